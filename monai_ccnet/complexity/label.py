"""Complexity of the label itself, independent of the image.

A stage at a coarse scale cannot express detail that the label has lost at that scale, so a label has a complexity at
each scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.scales import at_scale

__all__ = ["boundary_density", "label_at_scale", "label_detail", "label_jpeg_complexity"]


def label_at_scale(label: np.ndarray, scale: int) -> np.ndarray:
    """Subsample a label by ``scale`` and restore its size: each pixel gets the class that covers most of it.

    Args:
        label: class indices of shape ``(H, W)`` or ``(D, H, W)``; a volume is scaled along all three axes.
        scale: subsampling factor along each axis, a whole number from 1.

    Returns:
        Class indices of the same shape; where two classes cover equal areas, the higher index.
    """
    if scale == 1:
        return label
    volume = label.ndim == 3
    winner, most = np.zeros_like(label), np.full(label.shape, -1, np.int16)
    for index in np.unique(label):
        covered = at_scale((label == index).astype(np.uint8) * np.uint8(255), scale, volume=volume)
        better = covered >= most
        winner[better], most[better] = index, covered[better]
    return winner


def boundary_density(label: np.ndarray, *, spacing: Sequence[float] | None = None) -> float:
    """Return how much boundary between classes a label has per pixel.

    Each face between two neighbouring pixels of different classes counts, with its physical area; their sum is divided
    by the physical volume, and multiplied with the finest spacing so that it has no unit. At equal spacings this is
    the number of such faces per pixel.

    Args:
        label: class indices of shape ``(H, W)`` or ``(D, H, W)``.
        spacing: size of a pixel along each axis, in millimetres; equal if ``None``.

    >>> boundary_density(np.array([[0, 0, 1, 1], [0, 0, 1, 1]]))
    0.25
    """
    spacing = tuple(spacing) if spacing is not None else (1.0,) * label.ndim
    if len(spacing) != label.ndim or not min(spacing) > 0:
        raise ValueError(f"spacing must hold {label.ndim} lengths above 0, got {spacing}.")
    faces = [np.count_nonzero(np.diff(label.astype(np.int64), axis=axis)) for axis in range(label.ndim)]
    return float(sum(count * min(spacing) / length for count, length in zip(faces, spacing, strict=True)) / label.size)


def label_jpeg_complexity(label: np.ndarray, *, quality: int = 25) -> float:
    """Return the JPEG complexity of a label whose classes are spread evenly over the grey levels from 0 to 255.

    Args:
        label: class indices of shape ``(H, W)`` or ``(D, H, W)``; for a volume the result is the mean over its slices.
        quality: JPEG quality from 1 to 100.
    """
    grey = np.rint(label * (255 / max(1, label.max()))).astype(np.uint8)
    return float(
        np.mean([jpeg_complexity(plane, quality=quality) for plane in (grey if label.ndim == 3 else grey[None])])
    )


def label_detail(label: np.ndarray, restored: np.ndarray) -> float:
    """Return the share of a label that is lost at a scale: 1 - Dice of the label with itself at that scale.

    Args:
        label: class indices.
        restored: label of the same shape, subsampled and restored by :func:`label_at_scale`.

    Returns:
        A share from 0 (nothing is lost) to 1, the mean over the foreground classes of ``label``; 0 if it has none.
    """
    losses = [
        1 - 2 * np.count_nonzero(both) / (np.count_nonzero(label == index) + np.count_nonzero(restored == index))
        for index in np.unique(label)
        if index > 0
        for both in [(label == index) & (restored == index)]
    ]
    return float(np.mean(losses)) if losses else 0.0
