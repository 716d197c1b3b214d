"""Subsampling an image to a coarser scale and restoring its size."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["at_scale"]


def at_scale(image: np.ndarray, scale: int, *, volume: bool = False) -> np.ndarray:
    """Subsample an image by averaging over areas, and restore its size by linear interpolation.

    This is the paper's section 2.3: the restored image has the size of the original and the detail of the coarse one,
    so that all scales are comparable. A volume is scaled along all three axes.

    Args:
        image: a picture of shape ``(H, W)`` or ``(H, W, 3)``, or a volume of shape ``(D, H, W)``, ``uint8``.
        scale: subsampling factor along each axis, a whole number from 1; an axis never gets shorter than one pixel.
        volume: whether ``image`` is a volume.

    Returns:
        An array of the shape and dtype of ``image``; at scale 1 the image itself.
    """
    if int(scale) != scale or scale < 1:
        raise ValueError(f"scale must be a whole number from 1, got {scale}.")
    if scale == 1:
        return image
    if not volume:
        height, width = image.shape[:2]
        small = cv2.resize(image, (_length(width, scale), _length(height, scale)), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    depth, height, width = image.shape
    flat_size = _length(width, scale), _length(height, scale)
    small = np.stack([cv2.resize(plane, flat_size, interpolation=cv2.INTER_AREA) for plane in image])
    columns = small.reshape(depth, -1)  # the third axis is scaled as the rows of one picture
    columns = cv2.resize(columns, (columns.shape[1], _length(depth, scale)), interpolation=cv2.INTER_AREA)
    columns = cv2.resize(columns, (columns.shape[1], depth), interpolation=cv2.INTER_LINEAR)
    planes = columns.reshape(depth, flat_size[1], flat_size[0])
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes])


def _length(length: int, scale: int) -> int:
    return max(1, round(length / scale))
