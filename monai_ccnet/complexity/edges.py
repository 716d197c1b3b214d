"""Edge information: the strength of a picture's gradients."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from monai_ccnet.complexity.pictures import as_grey

__all__ = ["edge_information", "spatial_information"]

_KERNELS: dict[str, Callable[..., np.ndarray]] = {"sobel": cv2.Sobel, "scharr": cv2.Scharr}
_STATISTICS = ("mean", "rms", "deviation")


def edge_information(picture: np.ndarray, *, kernel: str = "sobel") -> float:
    """Return the mean over pixels of the squared horizontal and vertical responses (Mishra et al., section 2.1).

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.
        kernel: ``"sobel"`` or ``"scharr"``, 3 x 3, not normalised.

    Returns:
        Squared grey levels per squared pixel, times the squared gain of the kernel (8 for Sobel, 32 for Scharr).

    >>> ramp = np.tile(np.arange(0, 50, 5, dtype=np.uint8), (10, 1))
    >>> edge_information(ramp)  # (8 * 5) ** 2
    1600.0
    """
    return float(np.mean(_squared_gradient(picture, kernel)))


def spatial_information(picture: np.ndarray, *, statistic: str = "mean", kernel: str = "sobel") -> float:
    """Return the mean, root mean square or standard deviation of the gradient's magnitude.

    Yu and Winkler, "Image complexity and spatial information" (QoMEX 2013); of the three they recommend the mean.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.
        statistic: ``"mean"``, ``"rms"`` or ``"deviation"``.
        kernel: ``"sobel"`` or ``"scharr"``.

    >>> ramp = np.tile(np.arange(0, 50, 5, dtype=np.uint8), (10, 1))
    >>> spatial_information(ramp), spatial_information(ramp, statistic="deviation")
    (40.0, 0.0)
    """
    if statistic not in _STATISTICS:
        raise ValueError(f"statistic must be one of {_STATISTICS}, got {statistic!r}.")
    squared = _squared_gradient(picture, kernel)
    if statistic == "rms":
        return float(np.sqrt(squared.mean()))
    magnitude = np.sqrt(squared)
    return float(magnitude.mean() if statistic == "mean" else magnitude.std())


def _squared_gradient(picture: np.ndarray, kernel: str) -> np.ndarray:
    """Return the squared gradient, in float64, without the border of one pixel where the kernel reaches outside."""
    if kernel not in _KERNELS:
        raise ValueError(f"kernel must be one of {sorted(_KERNELS)}, got {kernel!r}.")
    grey = as_grey(picture)
    along_x, along_y = (_KERNELS[kernel](grey, cv2.CV_64F, *order) for order in ((1, 0), (0, 1)))
    squared = along_x**2 + along_y**2
    return squared[1:-1, 1:-1] if min(squared.shape) > 2 else squared
