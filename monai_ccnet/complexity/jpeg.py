"""JPEG complexity: the share of an image that a JPEG encoder cannot discard."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ccnet.complexity.pictures import as_array

__all__ = ["SUBSAMPLINGS", "jpeg_complexity"]

SUBSAMPLINGS = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


def jpeg_complexity(picture: np.ndarray, *, quality: int = 25, subsampling: str = "4:2:0") -> float:
    """Return the size of a picture after JPEG compression, relative to its raw size.

    The inverse of the compression ratio of Mishra et al., Eq. 1, at the quality of 25 of Yu and Winkler (2013). The
    encoder is baseline JPEG with its standard Huffman tables (not optimised, not progressive), which Pillow,
    OpenCV, imagecodecs and torchvision all write to the same byte.

    Args:
        picture: array or tensor of intensities, ``(H, W)``, or RGB, ``(H, W, 3)``, dtype ``uint8``.
        quality: JPEG quality, a whole number from 1 to 100; complexities compare only at equal quality and subsampling.
        subsampling: subsampling of the colour planes, ``"4:2:0"``, ``"4:2:2"`` or ``"4:4:4"``; unused for grey.

    Returns:
        Compressed bytes, header included, per raw byte, unitless; near 0 for a flat image, largest for white noise.

    Raises:
        ValueError: if ``picture`` has another shape or dtype, or a setting is invalid.

    >>> flat = np.full((256, 256), 128, np.uint8)
    >>> noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    >>> bool(jpeg_complexity(flat) < 0.02), round(jpeg_complexity(noise), 1)
    (True, 0.3)
    """
    picture = as_array(picture)
    if picture.dtype != np.uint8:
        raise ValueError(f"picture must be uint8, got {picture.dtype}; use complexity_at_scales for any other image.")
    if picture.size == 0 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[-1] == 3)):
        raise ValueError(f"picture must have the shape (H, W) or (H, W, 3), got {picture.shape}.")
    if max(picture.shape) > 65_500:
        raise ValueError(
            f"a picture of shape {picture.shape} does not fit into JPEG: no side may exceed 65,500 pixels."
        )
    if not (1 <= quality <= 100 and quality == int(quality)):
        raise ValueError(f"quality must be a whole number in 1..100, got {quality}.")
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling must be one of {sorted(SUBSAMPLINGS)}, got {subsampling!r}.")
    settings = [
        (cv2.IMWRITE_JPEG_QUALITY, int(quality)),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 0),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 0),
    ]
    encoded = picture
    if picture.ndim == 3:
        settings.append((cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SUBSAMPLINGS[subsampling]))
        encoded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", encoded, [number for pair in settings for number in pair])
    return file.size / picture.size
