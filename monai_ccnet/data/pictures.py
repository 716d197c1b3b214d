"""Decoding 2-D pictures: PNG, JPEG, BMP, TIFF and what else Pillow opens, at their full depth, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["RefusedError", "read_picture"]

_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "YCbCr"}
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _SAMPLE_FORMAT = (
    274,
    258,
    262,
    277,
    284,
    339,
)  # tags of EXIF and TIFF
_BY_FORMAT = {1: "u", 2: "i", 3: "f", 5: "c", 6: "c"}  # kind of number by TIFF's SampleFormat
_SPREAD = {"L;2": 85, "L;4": 17}  # by which Pillow spreads the values of few bits over 0..255
_LOSSY_TIFF = {"jpeg", "tiff_jpeg", "webp", "jpeg2000"}  # compressions
_LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP"}


class RefusedError(ValueError):
    """A file that can be decoded, but not to what it means."""


def read_picture(path: Path, label: bool = False) -> tuple[np.ndarray, str]:
    """Return the pixels of a picture, and its mode in words.

    The header is compared with the array that was decoded: 16-bit colours are read as such, an orientation in EXIF is
    applied, and an opaque alpha channel is dropped. The colours of a palette are looked up for an image; for a label,
    whose palette only colours its classes, the indices are taken.

    Args:
        path: path of the file.
        label: whether it holds classes.

    Returns:
        Array of shape ``(rows, columns)`` or ``(rows, columns, channels)``; and words such as ``"PNG, RGB, uint8"``.

    Raises:
        RefusedError: if it cannot be decoded rightly; the message is the reason.
        OSError: if it cannot be decoded.
    """
    # Given a path, Pillow maps uncompressed TIFF into memory, and then turns it wrongly or not at all.
    with open(path, "rb") as file, _opened(file) as opened:
        pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # a photograph and its preview
        if pages > 1:
            raise RefusedError(f"it holds {pages} pages: save each as a file of its own, or slices as one NIfTI volume")
        if opened.mode not in _MODES:
            raise RefusedError(f"it has the mode {opened.mode}: convert it to greyscale or RGB")
        header, stored = f"{opened.format}, {opened.mode}", _stored(opened)
        lossy = opened.format if opened.format in _LOSSY else opened.info.get("compression", "")
        if label and lossy in {*_LOSSY, *_LOSSY_TIFF}:
            raise RefusedError(
                f"it is stored by {lossy.upper()}, which changes the class numbers of a label: save it as PNG"
            )
        pixels, turn = _decoded(opened, path, stored, label)
        if not label and "transparency" in opened.info and opened.mode in ("1", "L", "RGB"):
            _without_alpha(np.asarray(opened.convert("RGBA")))
        size = opened.size[::-1]
    if pixels.shape[:2] not in (size, size[::-1]):  # TIFF may be turned
        raise RefusedError(f"it has {size[1]} x {size[0]} pixels by its header, and {pixels.shape[1::-1]} were decoded")
    pixels = _without_alpha(pixels)
    if pixels.ndim == 3 and (label or "P" in header.split(", ")[1]) and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]  # grey, written as a colour
    return _turned(pixels, turn), f"{header}, {pixels.dtype}"


def _opened(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        raise OSError("no reader here knows its format: save it as PNG, TIFF or NIfTI") from error


def _stored(opened: Image.Image) -> tuple[np.dtype, int, str]:
    """Return the type and the number of channels of the numbers in the file, as its header states them, and its name.

    The name is Pillow's, such as ``"RGB;16B"`` or ``"L;4"``; it is not known after decoding.
    """
    tile = getattr(opened, "tile", None)
    args = tile[0].args if tile else ""
    raw = args if isinstance(args, str) else next((each for each in args or () if isinstance(each, str)), "")
    tags: Any = getattr(opened, "tag_v2", None)
    if tags is None:
        channels = 2 if raw.startswith("LA") else len(opened.getbands())
        return np.dtype(np.uint16 if ";16" in raw else np.uint8), channels, raw
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    depth = max(bits if isinstance(bits, tuple) else (bits,))
    width = next((each for each in (8, 16, 32, 64, 128) if each >= depth), 128)
    return np.dtype(f"{_BY_FORMAT.get(kinds[0], 'u')}{width // 8}"), int(tags.get(_SAMPLES, 1)), raw


def _decoded(opened: Image.Image, path: Path, stored: tuple[np.dtype, int, str], label: bool) -> tuple[np.ndarray, int]:
    """Return the pixels from the first library that returns what the header states, and how they are yet to be turned.

    Both libraries turn some TIFF files by themselves; Pillow then forgets the orientation.
    """
    dtype, channels, raw = stored
    tags: Any = getattr(opened, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0 and opened.mode not in ("1", "L"):
        raise RefusedError("it stores white as 0 (TIFF's MinIsWhite): save it with black as 0")
    holds = np.dtype({"F": np.float32, "I": np.int32}.get(opened.mode, np.uint16 if "16" in opened.mode else np.uint8))
    if opened.mode == "P" or (len(opened.getbands()) == channels and np.can_cast(dtype, holds)):
        if opened.mode == "P":
            pixels = _of_palette(opened, label)
        else:
            pixels = np.asarray(opened.convert("RGB") if opened.mode == "YCbCr" else opened)
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * np.uint8(1 if label else 255)
        if label and raw in _SPREAD:
            pixels = pixels // np.uint8(_SPREAD[raw])
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), int(opened.getexif().get(_ORIENTATION, 1))
    if tags.get(_PLANES, 1) != 1:
        raise RefusedError(f"it stores its channels of {dtype} in separate planes: save it with interleaved pixels")
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != dtype or (1 if found.ndim == 2 else found.shape[2]) != channels:
        raise RefusedError(
            f"it is stored as {channels} channel{'s' * (channels > 1)} of {dtype}, which no reader here decodes: save "
            "it with 8 or 16 bits, or as NIfTI"
        )
    found = found if found.ndim == 2 else found[..., [2, 1, 0, 3][:channels]]  # OpenCV's order is BGRA
    return found, 1 if opened.format == "TIFF" else int(opened.getexif().get(_ORIENTATION, 1))


def _of_palette(opened: Image.Image, label: bool) -> np.ndarray:
    if not label:
        return np.asarray(opened.convert("RGBA" if "transparency" in opened.info else "RGB"))
    indices = np.asarray(opened)
    used = np.unique(indices)
    colours = np.asarray(opened.getpalette("RGB"), dtype=int).reshape(-1, 3)
    if used.max() >= len(colours) or (0 in used and colours[0].sum() > colours[used].sum(axis=1).min()):
        raise RefusedError(
            "it has a palette whose colour number 0 is not its darkest, so that the background is not known: save the "
            "class numbers as greyscale"
        )
    return indices


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2 or pixels.shape[2] not in (2, 4):
        return pixels
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
    if (pixels[..., -1] != opaque).any():
        raise RefusedError("it is partly transparent: flatten it, without an alpha channel")
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as a viewer shows them that heeds the orientation in EXIF, 1 to 8."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return pixels[::rows, ::columns]
