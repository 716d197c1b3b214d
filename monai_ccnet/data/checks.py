"""Validate a datalist before training, so that one bad file does not stop a long run."""

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
    """Validate a datalist before training: read every file once, and raise an error for the first unusable one.

    Each image must be readable and finite, and have as many channels as the first. Each label must be readable, have
    one channel and its image's size, and hold only declared values. An unchanged file is not read again by the same
    process. Items that hold arrays instead of paths are skipped.

    Args:
        datalist: items with file paths; an item without a label is an image to be segmented.
        labels: classes of ``dataset.json``, by number as in ``{"0": "background", "1": "vessel"}``, or their names in
            order.
        image_key: key of the image in an item.
        label_key: key of the label in an item.

    Returns:
        The number of items checked.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is invalid; the message names the file and the remedy.
    """
    numbers = sorted(map(str, labels)) if isinstance(labels, Mapping) else None
    if numbers is not None and numbers != sorted(map(str, range(len(numbers)))):
        raise ValueError(
            f"`labels` of dataset.json must be numbered from 0 on, as in {{'0': 'background', '1': 'vessel'}}, got "
            f"{numbers}: renumber them, and the values in the masks to match."
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
                f"the image {paths[0]} has {found} channels and {channels[1]} has {channels[0]}: convert it, or "
                "remove it from dataset.json."
            )
        count += 1
    return count


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _stamped(path: str | os.PathLike) -> tuple[str, int, int]:
    """Return a path with the modification time and the size of its file."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is listed in dataset.json but missing: add it, or remove it from the list.")
    stat = os.stat(path)
    return str(path), stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=100_000)
def _check_files(image_file: tuple[str, int, int], label_file: tuple[str, int, int] | None, classes: int) -> int:
    """Check an image and its label, and return the number of channels of the image."""
    image = _loaded(image_file[0], "image")
    if not np.isfinite(image).all():
        raise ValueError(f"the image {image_file[0]} holds NaN or infinity: correct it, or remove it from the list.")
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
                "or add the missing classes to `labels`."
            )
    return len(image)


def _loaded(path: str, what: str) -> np.ndarray:
    try:
        return np.asarray(load_image(path))
    except ValueError as error:
        raise ValueError(f"the {what} {error}: replace it, or remove it from dataset.json.") from error


def _words(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[1:]))
