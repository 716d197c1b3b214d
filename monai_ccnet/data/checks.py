"""Validate a datalist before training: hours are not spent on a run that one file would stop."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ccnet.data.images import load_image

__all__ = ["check_datalist"]


def check_datalist(
    datalist: Iterable[Mapping[Hashable, Any]],
    labels: Mapping[str, Any] | Sequence[Any],
    *,
    image_key: str = "image",
    label_key: str = "label",
) -> int:
    """Read every file of a datalist once, and refuse the first that cannot be trained on or scored.

    Each image must be readable, finite and of as many channels as the first; each label readable, of one channel and of
    its image's size, with no other values than those declared. A file that has not changed is not read again in one
    process. Items that hold arrays, not paths, are not looked at.

    Args:
        datalist: dicts of file paths; the label may be missing, as in images to be segmented.
        labels: of ``dataset.json``: ``{"0": "background", "1": "vessel"}``, or their names in order.
        image_key: where an item holds its image.
        label_key: where an item holds its label.

    Returns:
        The number of items that were looked at.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is not as it must be; the message names it and what to do.
    """
    numbers = sorted(map(str, labels)) if isinstance(labels, Mapping) else None
    if numbers is not None and numbers != sorted(map(str, range(len(numbers)))):
        raise ValueError(
            f"`labels` of dataset.json must be numbered from 0 on, as in {{'0': 'background', '1': 'vessel'}}, got "
            f"{numbers}: number them so, and the masks' values with them."
        )
    count, channels = 0, None
    for item in datalist:
        paths = item.get(image_key), item.get(label_key)
        if not _is_path(paths[0]) or not (paths[1] is None or _is_path(paths[1])):
            continue
        image, label = (None if path is None else _stamped(path) for path in paths)
        assert image is not None
        found = _check_files(image, label, len(labels))
        channels = channels or (found, paths[0])
        if found != channels[0]:
            raise ValueError(
                f"the image {paths[0]} has {found} channels and {channels[1]} has {channels[0]}: convert it, or leave "
                "it out of dataset.json."
            )
        count += 1
    return count


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _stamped(path: str | os.PathLike) -> tuple[str, int, int]:
    """Return a path with what changes when the file does."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is listed in dataset.json and missing: put it there, or take it off the list.")
    stat = os.stat(path)
    return str(path), stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=100_000)
def _check_files(image_file: tuple[str, int, int], label_file: tuple[str, int, int] | None, classes: int) -> int:
    """Check an image and its label, and return the number of channels of the image."""
    image = _loaded(image_file[0], "image")
    if not np.isfinite(image).all():
        raise ValueError(f"the image {image_file[0]} holds NaN or infinity: correct it, or leave it out.")
    if label_file is not None:
        label = _loaded(label_file[0], "label")
        if label.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"the label {label_file[0]} has the size {_words(label)} and its image {image_file[0]} "
                f"{_words(image)}: they must be equal; resample one to the other."
            )
        if len(label) != 1:
            raise ValueError(f"the label {label_file[0]} has {len(label)} channels: save it with one.")
        if undeclared := sorted(set(np.unique(label).tolist()) - set(range(classes))):
            shown = ", ".join(f"{value:g}" for value in undeclared[:5]) + (", ..." if len(undeclared) > 5 else "")
            raise ValueError(
                f"the label {label_file[0]} holds {shown}, and dataset.json declares 0 to {classes - 1}: correct it, "
                "or add what is missing to `labels`."
            )
    return len(image)


def _loaded(path: str, what: str) -> np.ndarray:
    try:
        return np.asarray(load_image(path))
    except ValueError as error:
        raise ValueError(f"the {what} {error}: replace it, or leave it out.") from error


def _words(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[1:]))
