"""A data set as a folder: its name, its labels, and its lists of images."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from monai_ccnet.data.images import load_image
from monai_ccnet.files import read_json, relative_path

__all__ = ["DatasetFolder", "dataset_name", "open_dataset", "relative_names", "safe_name"]

_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class DatasetFolder:
    """An opened Decathlon folder.

    Attributes:
        folder: folder of the data set, which holds ``dataset.json``.
        name: name of the data set.
        labels: names of the classes by number, ``{"0": "background", "1": "vessel"}``, or in order.
        training: datalist of the training images, dicts of file paths.
        validation: datalist of the validation images; empty if there are none.
        test: datalist of the test images; empty if there are none.
        digest: SHA-256 digest of ``dataset.json``; folders with equal content of it have equal digests.
    """

    folder: Path
    name: str
    labels: Mapping[str, Any] | Sequence[Any]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]
    digest: str

    @property
    def items(self) -> list[dict[str, Any]]:
        """All listed items, each once."""
        return list({repr(item): item for item in [*self.training, *self.validation, *self.test]}.values())

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes of the first image: 2 or 3."""
        return self._first_image.ndim - 1

    @property
    def in_channels(self) -> int:
        """Number of channels of the first image."""
        return len(self._first_image)

    @property
    def middle(self) -> dict[str, Any]:
        """The training item in the middle of the list, for figures."""
        return self.training[len(self.training) // 2]

    @functools.cached_property
    def _first_image(self) -> Any:
        return load_image(self.training[0]["image"])


def open_dataset(folder: str | os.PathLike) -> DatasetFolder:
    """Open a Decathlon folder: read its ``dataset.json`` and no image.

    Raises:
        FileNotFoundError: if there is no ``dataset.json``.
        ValueError: if it lists no training images, has no labels, or its name is not text.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder that holds the data set's dataset.json.")
    described = read_json(path)
    if not isinstance(described, Mapping) or not described.get("training"):
        raise ValueError(f"{path} lists no `training` images: add them.")
    if not described.get("labels"):
        raise ValueError(f'{path} has no `labels`: add them, as in {{"0": "background", "1": "vessel"}}.')
    lists = {
        part: load_decathlon_datalist(str(path), data_list_key=part) if described.get(part) else [] for part in _PARTS
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return DatasetFolder(folder, dataset_name(described, folder), described["labels"], **lists, digest=digest)


def dataset_name(described: Mapping[str, Any], folder: str | os.PathLike) -> str:
    """Return the name of a data set: ``name`` in its ``dataset.json``, or the name of its folder.

    Raises:
        ValueError: if ``name`` is given and is not text.

    >>> dataset_name({}, "data/drive/"), dataset_name({"name": "vessels"}, "data/drive")
    ('drive', 'vessels')
    """
    name = described.get("name")
    if name is None or (isinstance(name, str) and not name.strip()):
        return Path(os.path.abspath(folder)).name
    if not isinstance(name, str):
        raise ValueError(f"`name` of {Path(folder) / 'dataset.json'} must be text, got {name!r}: put it in quotes.")
    return name.strip()


def safe_name(name: str) -> str:
    """Return a name that is safe for a file or a folder; different names give different results.

    >>> safe_name("mni_gm"), safe_name("../set #1")
    ('mni_gm', 'set-1-173d')
    """
    safe = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


def relative_names(folder: str | os.PathLike) -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, str]]]:
    """Return a function that gives MONAI's ``MetricsSaver`` the paths of a batch's images, relative to a folder."""

    def names(batch: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        return [{"filename_or_obj": relative_path(item["image"].meta["filename_or_obj"], folder)} for item in batch]

    return names
