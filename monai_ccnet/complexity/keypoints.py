"""Local keypoints: how many distinctive points a picture has, and how strong they are."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ccnet.complexity.pictures import as_grey

__all__ = ["sift_keypoints", "surf_keypoints"]

_STATISTICS = ("count", "strength")


def surf_keypoints(picture: np.ndarray, *, statistic: str = "count") -> float:
    """Return the number of SURF keypoints of a picture, or the sum of their strengths (Mishra et al., section 2.1).

    Detected by mahotas with its defaults: 4 octaves of 6 scales, determinant of the Hessian above 0.1.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.
        statistic: ``"count"`` or ``"strength"``.

    Raises:
        ImportError: if mahotas is not installed.
    """
    _check_statistic(statistic)
    try:
        from mahotas.features import surf
    except ImportError as error:
        raise ImportError(
            "SURF keypoints come from mahotas: pip install 'monai_ccnet[keypoints]', or use SIFT."
        ) from error
    points = surf.interest_points(as_grey(picture))
    return float(len(points) if statistic == "count" else points[:, 3].sum())


def sift_keypoints(picture: np.ndarray, *, statistic: str = "count") -> float:
    """Return the number of SIFT keypoints of a picture, or the sum of their strengths, as OpenCV detects them.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.
        statistic: ``"count"`` or ``"strength"``.
    """
    _check_statistic(statistic)
    points = cv2.SIFT.create().detect(as_grey(picture), None)
    return float(len(points) if statistic == "count" else sum(point.response for point in points))


def _check_statistic(statistic: str) -> None:
    if statistic not in _STATISTICS:
        raise ValueError(f"statistic must be one of {_STATISTICS}, got {statistic!r}.")
