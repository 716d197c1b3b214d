"""Reading images and labels from files: one function, and one transform, for the whole package."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation, Spacing
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple
from nibabel.orientations import aff2axcodes

from monai_ccnet.data.pictures import RefusedError, read_picture
from monai_ccnet.data.volumes import is_volume, read_volume
from monai_ccnet.files import files_of

__all__ = ["ReadImaged", "Stored", "as_paths", "is_file", "list_images", "load_image", "read_stored"]

_MOST_CLASSES = 2**31
_NOT_WHOLE = 1e-3  # a label's number may be so far from a whole one


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        array: numbers as they are stored, ``(C, X, Y)`` or ``(C, X, Y, Z)``; of a label its class numbers, ``C`` is 1.
        affine: ``(4, 4)``, from voxels to millimetres, right-anterior-superior; the identity for a picture.
        frame: ``"picture"`` without a place in the world, ``"volume"`` with one, or ``"array"`` without named axes.
        mode: format and type in words.
    """

    array: np.ndarray
    affine: np.ndarray
    frame: str
    mode: str


def is_file(image: Any) -> bool:
    """Tell whether an image is given as the path of its file, or as several paths, one per channel."""
    several = isinstance(image, (list, tuple)) and len(image) > 0
    return isinstance(image, (str, os.PathLike)) or (several and all(map(is_file, image)))


def as_paths(image: Any) -> list[str]:
    """Return the paths of an image that is given as one path or several."""
    return list(map(str, image)) if isinstance(image, (list, tuple)) else [str(image)]


def read_stored(image: Any, *, label: bool = False, label_values: Mapping[Any, int] | None = None) -> Stored:
    """Return what the file of an image or label holds, or the files of its channels; never anything else.

    Args:
        image: path of a file, or a list of paths, one per channel.
        label: whether it holds classes: whole numbers in one channel.
        label_values: number of the class for each value in a label, such as ``{0: 0, 255: 1}``; others stay.

    Raises:
        FileNotFoundError: if a file is missing.
        OSError: if a file cannot be read.
        ValueError: if it cannot be read rightly; the message names it, the reason and the remedy.
    """
    paths = as_paths(image)
    parts = [_explained(path, label) for path in paths]
    first = parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        shapes = {(each.frame, each.array.shape[1:]) for each in (first, part)}
        if len(shapes) > 1 or displacement(first.array.shape[1:], first.affine, part.affine) > SAME_GRID:
            raise ValueError(
                f"{paths[0]} and {path} are channels of one image, and their grids differ ({_grid(first)}; "
                f"{_grid(part)}): resample one to the other"
            )
    stored = first if len(parts) == 1 else first._replace(array=np.concatenate([part.array for part in parts]))
    try:
        if label:
            return stored._replace(array=_classes(stored.array, as_label_values(label_values)))
        _check_range(stored.array)
    except ValueError as error:
        raise ValueError(f"{';'.join(paths)} {error}") from error
    return stored


def load_image(
    image: Any,
    *,
    label: bool = False,
    label_values: Mapping[Any, int] | None = None,
    spacing: Sequence[float] | None = None,
) -> MetaTensor:
    """Return the image or the label of a file, or of several files, one per channel.

    Args:
        image: path of a file, or a list of paths. Pictures: PNG, JPEG, BMP, TIFF; an orientation in EXIF is applied.
            Volumes: NIfTI, and with their packages NRRD, MetaImage and DICOM, of which a folder is one series.
        label: whether it holds classes.
        label_values: number of the class for each value in a label, such as ``{0: 0, 255: 1}``.
        spacing: size of a voxel in millimetres, right-anterior-superior, to resample to, of a flat image along its axes
            as they are stored; ``None`` keeps the grid.

    Returns:
        Float32, ``(C, X, Y)`` or ``(C, X, Y, Z)``, the first spatial axis along x; the affine is the file's.

    Raises:
        FileNotFoundError: if a file is missing.
        OSError: if a file cannot be read.
        ValueError: if it cannot be read rightly, or holds NaN or infinity; the message names the file.
    """
    stored = read_stored(image, label=label, label_values=label_values)
    if spacing is not None:
        check_spacing(spacing, stored.frame, stored.array.shape[1:], stored.affine)
    array = np.array(stored.array, dtype=np.float32, order="C")
    meta = {
        "filename_or_obj": as_paths(image)[0],
        "spatial_shape": np.array(array.shape[1:]),
        "original_channel_dim": float("nan"),  # what MONAI's readers say of an image that had no channels
        "original_affine": stored.affine.copy(),
        "space": "RAS",
        "frame": stored.frame,
    }
    loaded: Any = MetaTensor(array, meta={"affine": stored.affine, **meta})
    if spacing is None:
        return loaded
    mode = "nearest" if label else "bilinear"
    resample: Any = Spacing(pixdim=spacing, mode=mode)
    return resample(Orientation(axcodes="RAS", labels=None)(loaded) if array.ndim == 4 else loaded)


class ReadImaged(MapTransform):
    """Read images and labels from their files, as :func:`load_image` does, in a MONAI pipeline.

    In place of ``LoadImaged`` with ``ensure_channel_first``: what cannot be read rightly is refused by its name.

    Args:
        keys: keys of images and labels; their values are paths.
        label_keys: those of them that are labels.
        label_values: number of the class for each value in a label, such as ``{0: 0, 255: 1}``.
        allow_missing_keys: whether items may lack some of the keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection = ("label",),
        label_values: Mapping[Any, int] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys = set(ensure_tuple(label_keys))
        self.label_values = label_values

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with the images in place of their paths."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = load_image(d[key], label=key in self.label_keys, label_values=self.label_values)
        return d


SAME_GRID = 1e-3  # voxels: two grids lie in the same place if no corner is further away


def displacement(shape: Sequence[int], affine: Any, other: Any) -> float:
    """Return how far the corners of a grid move, in voxels at most, where one affine takes the place of another."""
    lengths = np.array([*shape, 1, 1][:3]) - 1
    corners = np.array([[*(np.array(each) * lengths), 1] for each in np.ndindex(2, 2, 2)]).T
    return float(np.abs(np.linalg.inv(np.asarray(affine)) @ np.asarray(other) @ corners - corners).max())


def grid_words(frame: str, shape: Sequence[int], affine: Any) -> str:
    """Return size and place of a grid in words.

    >>> grid_words("volume", (64, 64, 32), np.diag([2.0, 2.0, 3.0, 1.0]))
    '64 x 64 x 32, RAS, 2 x 2 x 3 mm, origin 0, 0, 0'
    """
    size = " x ".join(map(str, shape))
    if frame != "volume":
        return f"{size}, {'an' if frame[0] == 'a' else 'a'} {frame}"
    matrix = np.asarray(affine)
    lengths = " x ".join(f"{each:.4g}" for each in np.linalg.norm(matrix[:3, :3], axis=0)[: len(shape)])
    origin = ", ".join(f"{value:.4g}" for value in matrix[:3, 3])
    return f"{size}, {''.join(aff2axcodes(matrix)[: len(shape)])}, {lengths} mm, origin {origin}"


def _grid(stored: Stored) -> str:
    return grid_words(stored.frame, stored.array.shape[1:], stored.affine)


def orientation(stored: Stored) -> str:
    """Return the orientation of a grid, such as ``"RAS"``: where each axis leads to."""
    return "".join(aff2axcodes(stored.affine)[: stored.array.ndim - 1])


def _explained(path: str, label: bool) -> Stored:
    """Read a file, and name it in whatever error that gives."""
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{path} is missing: add it, or leave it out")
    try:
        return _read(file, label)
    except (RefusedError, ImportError) as error:
        raise RefusedError(f"{path} cannot be read ({error})") from error
    except Exception as error:  # libraries that decode images raise errors of all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(f"{path} cannot be read ({reason})") from error


def _read(file: Path, label: bool) -> Stored:
    if is_volume(file):
        array, affine, mode = read_volume(file)
        return Stored(array, affine, "volume", mode)
    if file.suffix.lower() == ".npy":
        array, mode = np.load(file, allow_pickle=False), "NPY"
        if array.dtype.kind not in "buif":
            raise RefusedError(f"it holds {array.dtype} numbers: save real ones")
        if array.size == 0:
            raise RefusedError(f"it has the shape {array.shape}, with an empty axis")
        if array.ndim not in (2, 3) or (array.ndim == 3 and min(array.shape) <= 4):
            raise RefusedError(
                f"it has the shape {array.shape}, and an array does not say what its axes are: save it as PNG or NIfTI"
            )
        array, mode = array.astype(np.uint8) if array.dtype == bool else array, f"NPY, {array.dtype}"
        if array.ndim == 3:
            return Stored(array[None], np.eye(4), "array", mode)
        return Stored(array.T[None], np.eye(4), "picture", mode)  # rows first, as all image libraries have it
    pixels, mode = read_picture(file, label)
    return Stored(np.atleast_3d(pixels).transpose(2, 1, 0), np.eye(4), "picture", mode)


def _check_range(array: np.ndarray) -> None:
    """Refuse numbers that are not finite, or that float32, in which networks calculate, cannot tell apart."""
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("holds NaN or infinity: correct it, or leave it out")
    if array.dtype.itemsize > 2 and array.dtype != np.float32:
        largest, limit = max(abs(low), abs(high)), float(np.finfo(np.float32).max)
        if high > low and (largest > limit or np.spacing(np.float32(largest)) > (high - low) / _LEVELS):
            raise ValueError(f"holds numbers from {low:g} to {high:g}, too large for float32: subtract an offset")


_LEVELS = 256  # that must be left of an image's range


def as_label_values(given: Any) -> dict[int, int]:
    """Return the number of the class for each value in a label, such as ``{0: 0, 255: 1}``; empty for ``None``.

    Raises:
        ValueError: if it is not a dictionary of whole numbers.
    """
    try:
        whole = {int(str(value)): int(str(number)) for value, number in ({} if given is None else dict(given)).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"label_values must map whole numbers, as in {{0: 0, 255: 1}}, got {given!r}.") from error
    return whole


def check_spacing(spacing: Any, frame: str, shape: Sequence[int], affine: Any) -> None:
    """Refuse a size of voxels to which an image cannot be resampled.

    Args:
        spacing: lengths in millimetres, right-anterior-superior.
        frame: ``"volume"`` where the image has a size of its own.
        shape: lengths of its axes.
        affine: ``(4, 4)``, from its voxels to millimetres.

    Raises:
        ValueError: the message says what was given and what is allowed.
    """
    if frame != "volume":
        raise ValueError(f"spacing={spacing} needs volumes, and a {frame} has no size of a pixel")
    numbers = isinstance(spacing, Sequence) and all(isinstance(each, (int, float)) for each in spacing)
    if not numbers or len(spacing) != len(shape) or not min(spacing) > 0:
        raise ValueError(f"spacing must hold one length above 0 for each of {len(shape)} axes, got {spacing}")
    volume = abs(float(np.linalg.det(np.asarray(affine)[: len(shape), : len(shape)])))
    if (times := volume / float(np.prod(spacing))) > _MOST_TIMES:
        raise ValueError(f"spacing={spacing} makes {times:,.0f} voxels of each one: give it in millimetres")


_MOST_TIMES = 1000


def _classes(array: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """Return the class numbers of a label, in one channel."""
    if len(array) > 1:
        raise ValueError(f"has {len(array)} channels: save the label with one, of class numbers")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError("holds NaN or infinity: correct it, or leave it out")
        whole = np.rint(array)
        if (apart := np.abs(array - whole)).max(initial=0) > _NOT_WHOLE:
            value = float(array.flat[int(apart.argmax())])
            raise ValueError(f"holds {value:.6g}: a label must hold whole numbers, one for each class")
        array = whole
    if array.size and max(abs(float(array.min())), abs(float(array.max()))) > _MOST_CLASSES:
        raise ValueError(f"holds {array.max():g}: a label must hold the numbers of its classes")
    array = array.astype(np.int64) if array.dtype.kind == "f" else array
    if not values:
        return array
    mapped = array.astype(np.int64)
    for value, number in values.items():
        mapped[array == value] = number
    return mapped


def list_images(folder: str | os.PathLike, channels: int = 1) -> list[dict[str, Any]]:
    """Return the images of a folder as a datalist, in the order of their names.

    Hidden files, descriptions (``.json``) and the data that a header's file names are no images of their own.

    Args:
        folder: the folder.
        channels: number of files of an image; of several, ``case_0000.nii.gz``, ``case_0001.nii.gz`` and so on are one.

    Raises:
        FileNotFoundError: if there is no such folder, or no file in it.
        ValueError: if an image lacks files of its channels.
    """
    folder = Path(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    belonging = {other for path in files if path.suffix.lower() in _HEADERS for other in files_of(path)[1:]}
    shown = [
        path
        for path in files
        if not path.name.startswith(".") and path.suffix.lower() != ".json" and str(path) not in belonging
    ]
    if not shown:
        raise FileNotFoundError(f"{folder} contains no images: add them, or give a `datalist`.")
    if channels == 1:
        return [{"image": str(path)} for path in shown]
    cases: dict[str, list[str]] = {}
    for path in shown:
        cases.setdefault(_CHANNEL.sub(r"\2", path.name), []).append(str(path))
    for case, paths in cases.items():
        if len(paths) != channels:
            raise ValueError(f"{folder / case} has {len(paths)} files, and {channels} channels are expected: add them.")
    return [{"image": paths} for paths in cases.values()]


_HEADERS = (".hdr", ".mhd", ".nhdr")
_CHANNEL = re.compile(r"_(\d{4})(\.[^/]*)$")
