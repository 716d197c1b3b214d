"""A data set as a folder: its name, its labels, and its lists of images."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ccnet.data.checks import class_names
from monai_ccnet.data.images import as_paths, is_file, load_image
from monai_ccnet.data.nnunet import is_nnunet, nnunet_parts
from monai_ccnet.files import read_json, relative_path

__all__ = ["DatasetFolder", "dataset_name", "folds", "hold_out", "open_dataset", "relative_names", "safe_name"]

_PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class DatasetFolder:
    """An opened folder of a data set.

    Attributes:
        folder: folder of the data set, which holds ``dataset.json``.
        name: name of the data set.
        labels: names of the classes in the order of their numbers.
        training: datalist of the training images, dicts of file paths.
        validation: datalist of the validation images; empty if there are none.
        test: datalist of the test images with labels, or of the part of training that is held out in their place.
        unlabelled: datalist of the test images without labels.
        held_out: words on the part of training that is scored, or ``None`` if the test part has labels.
        channel_names: names of the channels of an image, where an nnU-Net ``dataset.json`` gives them.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]
    unlabelled: list[dict[str, Any]]
    held_out: str | None
    channel_names: tuple[str, ...] = ()

    @property
    def items(self) -> list[dict[str, Any]]:
        """All listed items, each once."""
        listed = [*self.training, *self.validation, *self.test, *self.unlabelled]
        return list({repr(item): item for item in listed}.values())

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


def open_dataset(folder: str | os.PathLike, held_out_by: str = "auto") -> DatasetFolder:
    """Open a folder with the ``dataset.json`` of the Medical Segmentation Decathlon or of nnU-Net; read no image.

    Where no test image has a label, a fifth of training is held out and scored in its place; see :func:`hold_out`.

    Args:
        folder: folder of the data set.
        held_out_by: what is held out together: ``"subject"``, ``"file_name"``, ``"image"``, or ``"auto"``.

    Raises:
        FileNotFoundError: if there is no ``dataset.json``.
        ValueError: if it lists no training images with labels, has no classes, or its name is not text.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder that holds the data set's dataset.json.")
    described = read_json(path, "correct it")
    if not isinstance(described, Mapping):
        raise ValueError(f"{path} must hold a dictionary, got {type(described).__name__}.")
    labels: Sequence[str]
    if is_nnunet(described):
        labels, parts = nnunet_parts(folder, described)
    else:
        parts = {part: _listed(path, part, described.get(part)) for part in _PARTS}
        try:
            labels = class_names(described.get("labels"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}.") from error
    training, held_out = parts["training"], None
    test = [item for item in parts["test"] if "label" in item]
    if not test:
        training, test, held_out = hold_out(training, folder, held_out_by)
    return DatasetFolder(
        folder=folder,
        name=dataset_name(described, folder),
        labels=tuple(labels),
        training=training,
        validation=[item for item in parts["validation"] if "label" in item],
        test=test,
        unlabelled=[item for item in parts["test"] if "label" not in item],
        held_out=held_out,
        channel_names=tuple(map(str, described["channel_names"].values())) if is_nnunet(described) else (),
    )


def _listed(path: Path, part: str, entries: Any) -> list[dict[str, Any]]:
    """Return a list of ``dataset.json`` with whole paths; a plain path is an image without a label."""
    if part == "training" and not entries:
        raise ValueError(f"{path} lists no `training` images: add them.")
    if not isinstance(entries or [], list):
        raise ValueError(f"{path}: `{part}` must be a list, got {str(entries)[:80]!r}.")
    items = []
    for entry in entries or ():
        item = dict(entry) if isinstance(entry, Mapping) else {"image": entry}
        files = {key: item[key] for key in ("image", "label") if item.get(key) is not None}
        if "image" not in files or not all(map(_is_named, files.values())) or (part == "training" and len(files) < 2):
            raise ValueError(
                f'{path}: `{part}` lists {str(entry)[:80]!r}: each entry must be {{"image": "imagesTr/1.png", "label": '
                '"labelsTr/1.png"}.'
            )
        items.append(
            {**{k: v for k, v in item.items() if v is not None}, **{k: _within(path, v) for k, v in files.items()}}
        )
    return items


def _is_named(files: Any) -> bool:
    return is_file(files) and all(name.strip() for name in as_paths(files))


def _within(path: Path, files: Any) -> Any:
    """Return the whole path of a file, or of several, that is given relative to the folder of ``dataset.json``."""
    if isinstance(files, (list, tuple)):
        return [_within(path, file) for file in files]
    return str(path.parent / files)


def hold_out(
    items: Sequence[Mapping[str, Any]], folder: str | os.PathLike, by: str = "auto", share: float = 0.2
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str | None]:
    """Split the items of a list in two: those to train on, and a part that is held out to be scored.

    Which ones are held out depends on names alone, not on their order or on chance.

    Args:
        items: datalist.
        folder: folder of the data set; names are relative to it.
        by: what is held out together: all images of a ``"subject"`` (a key of the items), all whose file names agree
            up to the first underscore (``"file_name"``), each ``"image"`` alone; or ``"auto"``: by subject where all
            items name theirs, else by image.
        share: share of the groups that is held out, at least one.

    Returns:
        Items to train on, items held out, and words on what was done; with a single group none are held out.

    Raises:
        ValueError: if ``by`` is unknown, or an item names no subject.
    """
    by, groups, group = _groups(items, folder, by)
    if len(groups) < 2:
        return [dict(item) for item in items], [], None
    out = set(groups[: max(1, round(share * len(groups)))])
    held = [dict(item) for item in items if group(item) in out]
    words = (
        f"No test image has a label: {len(held)} of {len(items)} training images, chosen by {by.replace('_', ' ')}, "
        "are held out and scored."
    )
    return [dict(item) for item in items if group(item) not in out], held, words


_FEW = 12  # groups; of fewer each is held out once


def folds(
    items: Sequence[Mapping[str, Any]], folder: str | os.PathLike, by: str = "auto", share: float = 0.25
) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Split the training items of a data set for choices that its test part must not decide.

    A quarter of the groups is held out once; of few groups all are, in up to four folds, so that enough images judge.

    Args:
        items: datalist of the training part.
        folder: folder of the data set; names are relative to it.
        by: what is held out together, as in :func:`hold_out`.
        share: share of the groups that is held out, where there are many.

    Returns:
        Items to train on and items held out, of each fold.

    Raises:
        ValueError: if ``by`` is unknown, an item names no subject, or there is one group only.
    """
    by, groups, group = _groups(items, folder, by)
    if len(groups) < 2:
        raise ValueError(
            f"all {len(items)} training images are of one {by.replace('_', ' ')}, so that none can be held out to "
            "choose by: add others, or give --held_out_by image if images of one subject may stand on both sides."
        )
    if len(groups) < _FEW:
        count = min(4, len(groups))
        outs = [set(groups[place::count]) for place in range(count)]
    else:
        outs = [set(groups[: round(share * len(groups))])]
    return [
        (
            [dict(item) for item in items if group(item) not in out],
            [dict(item) for item in items if group(item) in out],
        )
        for out in outs
    ]


def _groups(
    items: Sequence[Mapping[str, Any]], folder: str | os.PathLike, by: str
) -> tuple[str, list[str], Callable[[Mapping[str, Any]], str]]:
    """Return what items are grouped by, the groups in an order that their names alone decide, and each item's group."""
    if by not in ("auto", "subject", "file_name", "image"):
        raise ValueError(f"held_out_by must be 'auto', 'subject', 'file_name' or 'image', got {by!r}.")
    named = [item.get("subject") is not None for item in items]
    if by == "subject" and not all(named):
        raise ValueError(
            f"held_out_by='subject' needs a `subject` in each training item; {named.count(False)} lack it."
        )
    by = ("subject" if all(named) else "image") if by == "auto" else by

    def group(item: Mapping[str, Any]) -> str:
        if by == "subject":
            return str(item["subject"])
        name = relative_path(item["image"], folder)
        return Path(name).name.split("_")[0] if by == "file_name" else name

    groups = sorted({group(item) for item in items}, key=lambda each: hashlib.sha256(each.encode()).hexdigest())
    return by, groups, group


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
