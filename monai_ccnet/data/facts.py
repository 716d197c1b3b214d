"""What the reading of a file saw: its type, its place in the world, its range or its classes, and digests of it."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from nibabel.orientations import apply_orientation, io_orientation
from tqdm.auto import tqdm

from monai_ccnet.data.images import Stored, as_label_values, as_paths, grid_words, orientation, read_stored
from monai_ccnet.data.volumes import META_ENDINGS
from monai_ccnet.files import file_digest, files_of, shown
from monai_ccnet.values import Value

__all__ = ["FileFacts", "facts_of"]


@dataclass(frozen=True)
class FileFacts(Value):
    """What is known of one image or label after its file, or the files of its channels, were read.

    Attributes:
        path: path relative to the data set's folder; several files are joined by ``;``.
        is_label: whether it holds classes.
        bytes: size of the files.
        modified: time of the last change, in nanoseconds since 1970; the sum over several files.
        mode: format and type in words, such as ``"PNG, RGB, uint8"``.
        frame: ``"picture"``, ``"volume"`` or ``"array"``, as in :class:`~monai_ccnet.data.images.Stored`.
        shape: channels, then the length of each axis.
        affine: rows of the affine of a volume, from voxels to millimetres.
        orientation: where each axis of a volume leads to, such as ``"RAS"``.
        low: least number.
        high: greatest number.
        values: number of pixels of each class of a label, by its number; empty for an image.
        digest: SHA-256 digest of the files' bytes.
        content: SHA-256 digest of the numbers in space: equal for copies in another format, type or orientation.
    """

    path: str
    is_label: bool
    bytes: int
    modified: int
    mode: str
    frame: str
    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]
    orientation: str
    low: float
    high: float
    values: dict[str, int]
    digest: str
    content: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "affine", tuple(map(tuple, self.affine)))
        if self.frame not in ("picture", "volume", "array"):
            raise ValueError(f"frame of a file must be picture, volume or array, got {shown(self.frame)}.")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel of a volume along each stored axis, in millimetres."""
        return tuple(np.linalg.norm(np.array(self.affine)[:3, :3], axis=0)[: len(self.shape) - 1].tolist())

    @property
    def seen_axes(self) -> list[int]:
        """The stored axes in the order in which a pipeline sees them.

        Volumes are turned to right-anterior-superior. Flat images are not, whatever their affine says.
        """
        if self.frame != "volume" or len(self.shape) < 4:
            return list(range(len(self.shape) - 1))
        return np.argsort(io_orientation(np.array(self.affine))[:, 0]).tolist()

    @property
    def size(self) -> str:
        """The lengths of the axes in words."""
        return " x ".join(map(str, self.shape[1:]))

    @property
    def grid(self) -> str:
        """Size and place in the world, in words."""
        return grid_words(self.frame, self.shape[1:], self.affine)


def facts_of(
    wanted: Iterable[tuple[Any, bool]],
    relative: Callable[[Any], str],
    *,
    label_values: Mapping[Any, int] | None = None,
    known: Mapping[str, FileFacts] | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> list[FileFacts]:
    """Return the facts of images and labels, each read once by this process unless it changes.

    Args:
        wanted: pairs of an image's or label's path, or paths, and whether it is a label.
        relative: gives the name for the path.
        label_values: number of the class for each value in a label.
        known: facts from earlier, by name; a file of the same size and time of change is not read again.
        n_jobs: number of threads; ``None`` for one, or up to four where files are large.
        progress: whether to show a progress bar on a terminal.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file cannot be read rightly, or holds NaN or infinity; the message names it.
    """
    wanted = list(wanted)
    mapped = tuple(sorted(as_label_values(label_values).items()))
    if any(path.lower().endswith(META_ENDINGS) for image, _ in wanted for path in as_paths(image)):
        n_jobs = 1  # ITK changes the working directory of the process while it loads its parts
    if n_jobs is None:  # threads only wait for each other where files are small
        first = [path for image, _ in wanted[:_FEW_FILES] for path in as_paths(image) if os.path.exists(path)]
        large = sum(map(os.path.getsize, first)) > _SMALL * len(first)
        n_jobs = min(4, os.cpu_count() or 1) if large else 1
    tasks = (delayed(_facts)(image, is_label, relative(image), mapped, known or {}) for image, is_label in wanted)
    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(tasks)
    return list(
        tqdm(results, total=len(wanted), desc="reading the data set", unit="file", disable=None if progress else True)
    )


def _facts(
    image: Any, is_label: bool, name: str, mapped: tuple[tuple[int, int], ...], known: Mapping[str, FileFacts]
) -> FileFacts:
    stamps = tuple(map(_stamp, as_paths(image)))
    before = known.get(name)
    if (
        before is not None
        and (before.bytes, before.modified) == (sum(each[1] for each in stamps), sum(each[2] for each in stamps))
        and before.is_label == is_label
    ):
        return before
    return _read(stamps, is_label, name, mapped)


def _stamp(path: str) -> tuple[str, int, int]:
    """Return a path with the size and the time of change of its file, or of the files in it."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is listed as a part of the data set but missing: add it, or {_UNLIST}.")
    stats = [os.stat(each) for each in files_of(path)]
    return path, sum(stat.st_size for stat in stats), sum(stat.st_mtime_ns for stat in stats)


@functools.lru_cache(maxsize=100_000)
def _read(
    stamps: tuple[tuple[str, int, int], ...], is_label: bool, name: str, mapped: tuple[tuple[int, int], ...]
) -> FileFacts:
    paths = [path for path, _, _ in stamps]
    what = "label" if is_label else "image"
    try:
        stored = read_stored(paths, label=is_label, label_values=dict(mapped))
    except (ValueError, OSError) as error:
        raise ValueError(f"the {what} {error}: replace it, or {_UNLIST}.") from error
    low, high, values, content = _numbers(stored, is_label)
    return FileFacts(
        path=name,
        is_label=is_label,
        bytes=sum(size for _, size, _ in stamps),
        modified=sum(time for _, _, time in stamps),
        mode=stored.mode,
        frame=stored.frame,
        shape=stored.array.shape,
        affine=tuple(map(tuple, stored.affine.tolist())) if stored.frame == "volume" else (),
        orientation=orientation(stored) if stored.frame == "volume" else "",
        low=low,
        high=high,
        values=values,
        digest=file_digest(*(each for path in paths for each in files_of(path))),
        content=content,
    )


def _numbers(stored: Stored, is_label: bool) -> tuple[float, float, dict[str, int], str]:
    """Return least and greatest number, the pixels of each class, and the digest of the numbers in space."""
    digest = hashlib.sha256(repr(stored.array.shape[0]).encode())
    low, high, counts = np.inf, -np.inf, dict[int, int]()
    for plane in _planes(stored):
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        if is_label:
            for value, count in _counted(plane):
                counts[value] = counts.get(value, 0) + count
        digest.update(repr(plane.shape).encode() + np.ascontiguousarray(plane, dtype=np.float32).tobytes())
    return low, high, {str(value): counts[value] for value in sorted(counts)}, digest.hexdigest()


_FEW_FILES, _SMALL = 20, 1_000_000  # bytes; by the first files it is judged whether threads help
_UNLIST = "remove it from the list, such as dataset.json"
_FEW = 4096  # values up to here are counted without sorting, about ten times as fast


def _counted(plane: np.ndarray) -> Iterator[tuple[int, int]]:
    if plane.dtype.kind in "bui" and plane.min() >= 0 and plane.max() < _FEW:
        counts = np.bincount(plane.ravel())
        values: Any = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(plane, return_counts=True)
    yield from zip(map(int, values), map(int, counts), strict=True)


def _planes(stored: Stored) -> Iterator[np.ndarray]:
    """Return the numbers plane by plane along the last axis of space, so that little memory is needed."""
    array = stored.array
    if array.ndim == 3:
        yield array
        return
    in_space = np.moveaxis(apply_orientation(np.moveaxis(array, 0, -1), io_orientation(stored.affine)), -1, 0)
    for index in range(in_space.shape[-1]):
        yield in_space[..., index]


def shares(files: Sequence[FileFacts]) -> dict[str, float]:
    """Return the share of each class in all pixels of some labels, by its number."""
    counts: dict[str, int] = {}
    for file in files:
        for value, count in file.values.items():
            counts[value] = counts.get(value, 0) + count
    total = sum(counts.values())
    return {value: counts[value] / total for value in sorted(counts, key=int)}
