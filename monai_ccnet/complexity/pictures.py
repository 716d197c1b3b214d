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
from nibabel.orientations import io_orientation

__all__ = [
    "AXES",
    "CHANNELS",
    "INTENSITIES",
    "as_array",
    "as_grey",
    "as_radiologists_see",
    "check_channel_first",
    "in_ras",
    "to_pictures",
]

INTENSITIES = ("auto", "minmax", "percentile")
CHANNELS = ("auto", "colour", "rgba", "separate")
AXES = ("xy", "yx")
_PERCENTILES = (0.5, 99.5)


def as_array(image: Any) -> np.ndarray:
    """Return a NumPy array, a tensor or a MetaTensor (on any device) as a NumPy array, without importing torch.

    Floating-point types that NumPy lacks or calculates coarsely, such as bfloat16 and float16, become float32.
    """
    if hasattr(image, "detach"):
        known_to_numpy = not str(image.dtype).startswith(("torch.bfloat16", "torch.float8"))
        image = (image if known_to_numpy else image.float()).numpy(force=True)
    array = np.asarray(image)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def in_ras(
    array: np.ndarray, affine: Any, spacing: Sequence[float] | None = None, space: Any = "RAS"
) -> tuple[np.ndarray, Sequence[float] | None]:
    """Return a volume with its axes towards the right, the front (anterior) and the top (superior), and its spacing.

    Axes are permuted and flipped, never resampled; an oblique volume takes the nearest of the 48 orientations. A
    picture, and a volume without an affine, stay as they are.

    Args:
        array: image or label of shape ``(C, H, W)`` or ``(C, H, W, D)``.
        affine: matrix from its voxels to the patient, ``(4, 4)``, array or tensor; ``None`` if it has none.
        spacing: length of a pixel along each spatial axis of ``array``, if known.
        space: what the affine counts upwards: ``"LPS"`` left, back and up, all else as ``"RAS"`` does.

    Raises:
        ValueError: if the affine of a volume is not a finite and invertible 4 x 4 matrix.
    """
    if array.ndim != 4 or affine is None:
        return array, spacing
    affine = as_array(affine).astype(float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ValueError(
            f"the affine of a volume of shape {array.shape} must be a 4 x 4 matrix of finite numbers that can be "
            f"inverted, got {affine.tolist()}: repair it, or give the array without it, as one in RAS orientation."
        )
    if space == "LPS":
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    target, direction = io_orientation(affine).T.astype(int)
    order = np.argsort(target)
    flipped = np.flip(array, tuple(1 + np.flatnonzero(direction < 0)))
    if spacing is not None and len(spacing) == 3:
        spacing = [spacing[axis] for axis in order]
    return flipped.transpose(0, *(1 + order)), spacing


def check_channel_first(array: np.ndarray, name: str) -> None:
    """Refuse what is no channel-first image or label: of a wrong number of axes, empty, not real, or channel-last.

    Raises:
        ValueError: with the shape or type that was given, and what to do.
    """
    what = f"{'an' if name == 'image' else 'a'} {name}"
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(
            f"{what} must have the shape (C, H, W) or (C, H, W, D) with no empty axis, got {array.shape}; "
            f"add a channel axis with {name}[None]."
        )
    if array.shape[-1] <= 4 < array.shape[0]:
        raise ValueError(
            f"{what} must have its channel axis first, and in the shape {array.shape} it seems to be last: move it to "
            f"the front with np.moveaxis({name}, -1, 0)."
        )
    if array.dtype.kind not in "buif":
        remedy = "take its magnitude with np.abs" if array.dtype.kind == "c" else "convert it first"
        raise ValueError(f"{what} must hold real numbers, got dtype {array.dtype}: {remedy}.")


def as_radiologists_see(array: np.ndarray, affine: Any) -> np.ndarray:
    """Return a volume for pictures of its axial slices: the front at the top, the patient's right on the left.

    Args:
        array: image or label of shape ``(C, H, W)`` or ``(C, H, W, D)``; a picture, and a volume without an affine,
            stay as they are.
        affine: matrix from its voxels to the patient, ``(4, 4)``, as :func:`in_ras` takes it.
    """
    turned, _ = in_ras(array, affine)
    return turned[:, ::-1, ::-1] if array.ndim == 4 and affine is not None else turned


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
        intensity: intensities that become 0 and 255. ``"auto"`` keeps whole numbers in 0..255, whatever their dtype;
            stretches a picture of 0 and 1 alone to 0 and 255; narrows 8 bits that were widened to 16 (all multiples of
            257, or all of 256) back to 8; and treats all else as ``"percentile"``. ``"minmax"`` and ``"percentile"``
            (0.5 and 99.5, robust to metal and padding) stretch each picture. A pair ``(low, high)`` is a fixed window,
            in Hounsfield units for CT.
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
    check_channel_first(image, "image")
    image = image.view(np.uint8) if image.dtype == bool else image
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
    least, most = float(image.min()), float(image.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError(f"the image holds NaN or infinite values (min {least}, max {most}): repair or mask them.")
    step = _grey_step(image, least, most) if isinstance(intensity, str) and intensity == "auto" else None
    if step == 1 and most > 1:
        return image.astype(np.uint8, copy=False)
    low, high = _window(image, intensity, least, most) if step is None else (0, step * (255 if most > step else 1))
    exact = image.dtype.itemsize <= 2 or image.dtype == np.float32
    values = image.astype(np.float32 if exact else np.float64)  # float32 has seven digits
    values -= low
    values *= 255 / (high - low) if high > low else 0
    return np.rint(np.clip(values, 0, 255, out=values), out=values).astype(np.uint8)


def _grey_step(image: np.ndarray, least: float, most: float) -> int | None:
    """Return the step between the grey levels of 8-bit content: 1, or 256 or 257 at 16 bits; ``None`` of all else."""
    for step in (1, 256, 257):
        # the extremes alone rule out nearly every other image
        if least >= 0 and most <= 255 * step and least % step == most % step == 0 and _holds_multiples(image, step):
            return step
    return None


def _holds_multiples(image: np.ndarray, step: int) -> bool:
    """Tell whether an image in 0..65535 holds multiples of a whole number only."""
    whole = image
    if image.dtype.kind == "f":
        whole = image.astype(np.uint8 if step == 1 else np.uint16)
        if not np.array_equal(image, whole):
            return False
    return step == 1 or not (whole % step).any()


def _window(image: np.ndarray, intensity: str | Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Return the intensities that become 0 and 255."""
    if not isinstance(intensity, str):
        window = [float(value) for value in intensity]
        if len(window) != 2 or not (np.isfinite(window).all() and window[0] < window[1]):
            raise ValueError(
                f"an intensity window must be a pair (low, high) of finite numbers with low < high, got {intensity}."
            )
        return window[0], window[1]
    if intensity not in INTENSITIES:
        raise ValueError(f"intensity must be one of {INTENSITIES} or a pair (low, high), got {intensity!r}.")
    if intensity == "minmax":
        return least, most
    low, high = (float(value) for value in np.percentile(image, _PERCENTILES))
    return (low, high) if high > low else (least, most)


def _arrange(image: np.ndarray, axes: str) -> np.ndarray:
    """Put an image of shape ``(1, ...)`` or ``(3, H, W)`` into the layout of pictures and volumes, contiguously."""
    if image.ndim == 4:
        return np.ascontiguousarray(image[0].transpose((2, 1, 0) if axes == "xy" else (2, 0, 1)))
    planes = [cv2.transpose(np.ascontiguousarray(plane)) if axes == "xy" else plane for plane in image]
    return cv2.merge(planes) if len(planes) == 3 else np.ascontiguousarray(planes[0])
