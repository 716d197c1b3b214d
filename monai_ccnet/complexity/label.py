"""Complexity of the label itself, independent of the image.

A stage at a coarse scale cannot express detail that the label has lost at that scale, so a label has a complexity at
each scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.pictures import check_channel_first
from monai_ccnet.complexity.scales import at_scale

__all__ = ["boundary_density", "class_indices", "label_at_scale", "label_detail", "label_jpeg_complexity"]

_FURTHEST_FROM_WHOLE = 1e-3
_MOST_CLASSES_OF_NOISE = 128  # more than the 117 organs of TotalSegmentator
_FEW_CLASSES = 4096


def class_indices(label: np.ndarray) -> np.ndarray:
    """Return the classes of a label, ``(H, W)`` or, third axis first, ``(D, H, W)``.

    Args:
        label: class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``, whole numbers of any dtype to within 0.001; or
            one channel of 0 and 1 per class without the background, of which the first counts where two overlap.

    Raises:
        ValueError: if the shape is another one, or a value is no class: NaN, negative, or a fraction; in several
            channels anything but 0 and 1; in one channel the greys of a picture or of a mask that was saved as JPEG.
    """
    check_channel_first(label, "label")
    whole = _whole(label)
    if len(whole) > 1:
        if (others := np.unique(whole[(whole != 0) & (whole != 1)])).size:
            shown = ", ".join(str(int(value)) for value in others[:3]) + (", ..." if others.size > 3 else "")
            raise ValueError(
                f"a label with several channels must hold one channel of 0 and 1 per class, and in one of shape "
                f"{label.shape} there is {shown}: give channels of 0 and 255 as label > 0, and of a mask in colours or "
                "with opacity one channel alone, as label[:1]."
            )
        if (whole.sum(axis=0) == 1).all():
            raise ValueError(
                f"a label with several channels must hold those of the foreground, and in one of shape {label.shape} "
                "each pixel is in exactly one, as if the background had a channel too: leave that out, as label[1:]."
            )
        classes = np.where(whole.any(axis=0), 1 + np.argmax(whole, axis=0), 0)
    else:
        classes = whole[0].astype(np.int64)
    if classes.min() < 0:
        raise ValueError(f"a label must hold class indices from 0 on, got {classes.min()}.")
    if _is_grey(classes):
        raise ValueError(
            f"a label must hold class indices, and one of shape {label.shape} holds {np.unique(classes).size} values "
            f"from {classes.min()} to {classes.max()}, as a picture does, or a mask that was saved as JPEG: give "
            "label >= 128 of such a mask, and save labels in a format without losses, such as PNG or NIfTI."
        )
    return np.ascontiguousarray(np.moveaxis(classes, -1, 0)) if classes.ndim == 3 else classes


def _whole(label: np.ndarray) -> np.ndarray:
    """Return a label with each value rounded to the whole number that it nearly is."""
    if label.dtype.kind != "f":
        return label
    if not np.isfinite(label).all():
        raise ValueError("the label holds NaN or infinite values: repair it first.")
    whole = np.rint(label)
    apart = np.abs(label - whole) > _FURTHEST_FROM_WHOLE
    if apart.any():
        raise ValueError(
            f"a label must hold whole numbers, class indices from 0 on, got {label[apart][0]:.6g}: threshold "
            "probabilities, and resample labels by the nearest neighbour."
        )
    return whole


def _is_grey(classes: np.ndarray) -> bool:
    """Tell whether what should be classes are the greys of a picture or of a mask that was saved as JPEG.

    JPEG leaves greys beside white: 254 and 1 at the highest quality, more at any other. Classes do not reach from 0 to
    255 so closely; 255 alone marks a binary mask, or pixels to be ignored. A picture that is not so bright has more
    values than there are organs, and most neighbours differ.
    """
    if classes.max() == 255:
        counts = np.bincount(classes.ravel())
        if np.count_nonzero(counts[240:255]) >= 3 or (counts[1] and counts[254]):
            return True
    noisy = classes.max() >= _MOST_CLASSES_OF_NOISE and boundary_density(classes) > classes.ndim / 2
    return noisy and np.unique(classes).size > _MOST_CLASSES_OF_NOISE


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
    winner, most = np.zeros_like(label), np.zeros(label.shape, np.uint8)
    for index in _classes_in(label):
        covered = at_scale((label == index).astype(np.uint8) * np.uint8(255), scale, volume=volume)
        better = covered >= most
        winner[better] = index
        np.maximum(most, covered, out=most)
    return winner


def _classes_in(label: np.ndarray) -> np.ndarray:
    """Return the classes that a label holds; without sorting, which takes ten times as long, where they are few."""
    if label.dtype.kind in "bui" and label.size and label.min() >= 0 and label.max() < _FEW_CLASSES:
        return np.flatnonzero(np.bincount(label.ravel()))
    return np.unique(label)


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
    sides = [np.moveaxis(label, axis, 0) for axis in range(label.ndim)]
    faces = [np.count_nonzero(side[1:] != side[:-1]) for side in sides]
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
        for index in _classes_in(label)
        if index > 0
        for both in [(label == index) & (restored == index)]
    ]
    return float(np.mean(losses)) if losses else 0.0
