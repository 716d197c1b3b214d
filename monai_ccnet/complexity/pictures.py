"""Conversion of channel-first biomedical images to the 8-bit pictures that the measures use.

Measures follow the layout of the image libraries: a *picture* is ``(H, W)`` or ``(H, W, 3)`` RGB, a *volume* is a
stack of axial pictures ``(D, H, W)``, both ``uint8``. The conversion affects every measured number,
so each choice is a setting that is recorded with the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

__all__ = ["AXES", "CHANNELS", "INTENSITIES", "as_array", "as_grey", "to_pictures"]

INTENSITIES = ("auto", "minmax", "percentile")
CHANNELS = ("auto", "colour", "rgba", "separate")
AXES = ("xy", "yx")
_PERCENTILES = (0.5, 99.5)


def as_array(image: Any) -> np.ndarray:
    """Return a NumPy array, a tensor or a MetaTensor (on any device) as a NumPy array, without importing torch."""
    return np.asarray(image.detach().cpu().numpy() if hasattr(image, "detach") else image)


def as_grey(picture: np.ndarray) -> np.ndarray:
    """Return a picture's luminance, ``(H, W)``; for RGB 0.299 R + 0.587 G + 0.114 B, rounded.

    Raises:
        ValueError: if ``picture`` is not ``(H, W)`` or ``(H, W, 3)`` and ``uint8``.
    """
    is_colour = picture.ndim == 3 and picture.shape[-1] == 3
    if picture.dtype != np.uint8 or picture.size == 0 or not (picture.ndim == 2 or is_colour):
        raise ValueError(
            f"a picture must be uint8 of shape (H, W) or (H, W, 3), got {picture.dtype} of shape {picture.shape}; "
            "use complexity_at_scales for any other image."
        )
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if is_colour else picture


def to_pictures(
    image: np.ndarray, *, intensity: str | Sequence[float] = "auto", channels: str = "auto", axes: str = "xy"
) -> list[np.ndarray]:
    """Turn a channel-first image into 8-bit pictures (2-D) or volumes (3-D).

    Args:
        image: shape ``(C, H, W)`` or ``(C, H, W, D)``, any real dtype.
        intensity: intensities that become 0 and 255. ``"auto"`` keeps whole numbers in 0..255, whatever their dtype,
            and treats all else as ``"percentile"``. ``"minmax"`` and ``"percentile"`` (0.5 and 99.5, robust to metal
            and padding) stretch each picture. A pair ``(low, high)`` is a fixed window, in Hounsfield units for CT.
        channels: use of the channels. ``"colour"`` makes one RGB picture of three channels, ``"rgba"`` one of the first
            three of four, whose last is opacity, and ``"separate"`` one grey picture of each channel. ``"auto"`` is
            ``"colour"`` for 2-D images with three channels and ``"separate"`` for all others, so four channels, which
            may be modalities, give four pictures.
        axes: order of the spatial axes: ``"xy"`` if the first one runs along x, as MONAI's readers yield; ``"yx"`` if
            it runs along y, as in arrays from OpenCV or scikit-image. JPEG sizes of an image and its transpose differ
            by about 1 %.

    Returns:
        One ``(H, W)``, ``(H, W, 3)`` or ``(D, H, W)`` array, ``uint8``, for each channel or RGB triple.

    Raises:
        ValueError: if the shape, a value or a setting is invalid, or a value is NaN or infinite.
    """
    if image.ndim not in (3, 4) or image.size == 0:
        raise ValueError(
            f"an image must have the shape (C, H, W) or (C, H, W, D) with no empty axis, got {image.shape}; "
            "add a channel axis with image[None]."
        )
    if channels not in CHANNELS:
        raise ValueError(f"channels must be one of {CHANNELS}, got {channels!r}.")
    if axes not in AXES:
        raise ValueError(f"axes must be one of {AXES}, got {axes!r}.")
    if channels == "rgba":
        if image.ndim != 3 or len(image) != 4:
            raise ValueError(f"channels='rgba' needs an image of shape (4, H, W), got {image.shape}; use 'auto'.")
        image, channels = image[:3], "colour"
    colour = channels == "colour" or (channels == "auto" and image.ndim == 3 and len(image) == 3)
    if colour and (image.ndim != 3 or len(image) != 3):
        raise ValueError(f"channels='colour' needs an image of shape (3, H, W), got {image.shape}; use 'separate'.")
    groups = [image] if colour else [channel[None] for channel in image]
    return [_arrange(_to_8bit(group, intensity), axes) for group in groups]


def _to_8bit(image: np.ndarray, intensity: str | Sequence[float]) -> np.ndarray:
    low, high = _window(image, intensity)
    if intensity == "auto" and (low, high) == (0, 255):  # whole numbers already
        return image.astype(np.uint8, copy=False)
    values = image.astype(np.float32)
    values -= low
    values *= 255 / (high - low) if high > low else 0
    return np.rint(np.clip(values, 0, 255, out=values), out=values).astype(np.uint8)


def _window(image: np.ndarray, intensity: str | Sequence[float]) -> tuple[float, float]:
    """Return the intensities that become 0 and 255."""
    if image.dtype.kind not in "buif":
        raise ValueError(f"an image must hold real numbers, got dtype {image.dtype}.")
    if image.dtype == np.uint8 and isinstance(intensity, str) and intensity == "auto":
        return 0, 255
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"the image holds NaN or infinite values (min {low}, max {high}): repair or mask them first.")
    if not isinstance(intensity, str):
        if len(intensity) != 2 or not float(intensity[0]) < float(intensity[1]):
            raise ValueError(f"an intensity window must be a pair (low, high) with low < high, got {intensity}.")
        return float(intensity[0]), float(intensity[1])
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity must be one of {INTENSITIES} or a pair (low, high), got {intensity!r}.")
    if intensity == "auto" and low >= 0 and high <= 255 and image.dtype.kind != "b" and _is_whole(image):
        return 0, 255
    if intensity == "minmax":
        return low, high
    robust_low, robust_high = (float(value) for value in np.percentile(image, _PERCENTILES))
    return (robust_low, robust_high) if robust_high > robust_low else (low, high)


def _is_whole(image: np.ndarray) -> bool:
    """Tell whether an image in 0..255 holds whole numbers only."""
    return image.dtype.kind in "ui" or bool(np.array_equal(image, image.astype(np.uint8)))


def _arrange(image: np.ndarray, axes: str) -> np.ndarray:
    """Put an image of shape ``(1, ...)`` or ``(3, H, W)`` into the layout of pictures and volumes, contiguously."""
    if image.ndim == 4:
        return np.ascontiguousarray(image[0].transpose((2, 1, 0) if axes == "xy" else (2, 0, 1)))
    planes = [cv2.transpose(np.ascontiguousarray(plane)) if axes == "xy" else plane for plane in image]
    return cv2.merge(planes) if len(planes) == 3 else np.ascontiguousarray(planes[0])
