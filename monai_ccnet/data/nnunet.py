"""nnU-Net data sets as they are: classes and datalists from a ``dataset.json`` and the names of files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_nnunet", "nnunet_parts"]

Cases = dict[str, tuple[list[str], str]]  # by name of the case, the paths of its images and of its label


def is_nnunet(described: Mapping[str, Any]) -> bool:
    """Tell whether a ``dataset.json`` describes an nnU-Net data set, version 2, and lists no images as Decathlon does.

    >>> is_nnunet({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}), is_nnunet({"modality": {"0": "CT"}})
    (True, False)
    """
    items = described.get("training")
    decathlon = isinstance(items, list) and any(isinstance(item, Mapping) for item in items)
    return "channel_names" in described and "file_ending" in described and not decathlon


def nnunet_parts(
    folder: str | os.PathLike, described: Mapping[str, Any]
) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """Return the classes and the datalists of an nnU-Net data set; no image is opened.

    Args:
        folder: folder with ``imagesTr``, ``labelsTr`` and, if there are test images, ``imagesTs`` and ``labelsTs``.
            Files whose names begin with a dot are passed over.
        described: content of its ``dataset.json``. If it has ``dataset``, the training cases are those listed there.

    Returns:
        Names of the classes in the order of their numbers, and the datalists ``training``, ``validation``, which is
        empty, and ``test``, in the order of the cases' names. ``image`` is an absolute path, or a list of them, one per
        channel. ``label`` is absent from test cases that have none.

    Raises:
        ValueError: if labels are regions, include ``ignore`` or are not numbered from a background of 0, or if files
            are missing, left over or not as many as ``numTraining``; the message names ``dataset.json`` and the remedy.
    """
    folder = os.path.abspath(folder)
    where = Path(folder) / "dataset.json"
    names = _class_names(described.get("labels"), described.get("regions_class_order"), where)
    ending, channels = described.get("file_ending"), described.get("channel_names")
    if not (isinstance(ending, str) and re.fullmatch(r"\.[^/\\]+", ending)):
        raise ValueError(f"`file_ending` of {where} must begin with a dot, as in .nii.gz or .png, got {ending!r}.")
    if not (isinstance(channels, Mapping) and sorted(map(str, channels)) == sorted(map(str, range(len(channels))))):
        raise ValueError(f'`channel_names` of {where} must be as in {{"0": "T1", "1": "T2"}}, got {channels!r}.')

    training = _listed(described["dataset"], folder) if "dataset" in described else _found(folder, "Tr", ending)
    test = _found(folder, "Ts", ending)
    if not training:
        raise ValueError(f"{where} has no training case: put images into imagesTr, named as in case_0000{ending}.")
    if (count := described.get("numTraining", len(training))) != len(training):
        raise ValueError(
            f"`numTraining` of {where} is {count!r}, but there are {len(training)} training cases: "
            "correct the number, or add the missing cases."
        )
    _check_channels([*training.items(), *test.items()], len(channels), where)
    if missing := [label for _, label in training.values() if not os.path.isfile(label)]:
        raise ValueError(
            f"the label {_first(missing)} of a training case of {where} is missing: add it, or remove the case's "
            "images and correct `numTraining`."
        )
    parts = {"training": _items(training), "validation": [], "test": _items(test)}
    return names, parts


def _class_names(labels: Any, regions: Any, where: Path) -> list[str]:
    example = '{"background": 0, "organ": 1, "tumour": 2}'
    if not isinstance(labels, Mapping):
        raise ValueError(f"`labels` of {where} must be names with their numbers, as in {example}, got {labels!r}.")
    if regions or any(isinstance(number, list) for number in labels.values()):
        raise ValueError(
            f"{where} defines regions, which overlap, and classes here do not: in a copy of the data set, name each "
            f"number of the label files once in `labels`, as in {example}, and remove `regions_class_order`."
        )
    if "ignore" in labels:
        raise ValueError(
            f"{where} has the label `ignore`, and here every voxel counts: in a copy of the data set, give those "
            "voxels a class in the label files, or leave their cases out, and remove `ignore` from `labels`."
        )
    names = {number: name for name, number in labels.items() if type(number) is int}
    if sorted(names) != list(range(len(labels))) or names.get(0) != "background" or len(labels) < 2:
        raise ValueError(
            f"`labels` of {where} must be numbered 0, 1, 2 and so on, `background` 0, as in {example}, got "
            f"{dict(labels)!r}: renumber them there and in the label files."
        )
    return [names[number] for number in range(len(names))]


def _listed(dataset: Any, folder: str) -> Cases:
    """Return the cases of ``dataset`` of ``dataset.json``; paths are relative to the folder and may hold variables."""
    where = Path(folder) / "dataset.json"
    example = '{"a": {"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}}'
    if not isinstance(dataset, Mapping):
        raise ValueError(f"`dataset` of {where} must name cases, as in {example}, got {dataset!r}.")
    cases: Cases = {}
    for case, entry in dataset.items():
        images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, Mapping) else (None, None)
        if not (isinstance(images, list) and images and all(isinstance(path, str) for path in [*images, label])):
            raise ValueError(f"case {case} in `dataset` of {where} must be as in {example}, got {entry!r}.")
        paths = [os.path.abspath(os.path.join(folder, os.path.expandvars(path))) for path in [*images, label]]
        cases[case] = (paths[:-1], paths[-1])
    if missing := [path for images, _ in cases.values() for path in images if not os.path.isfile(path)]:
        raise ValueError(f"the image {_first(missing)} in `dataset` of {where} is missing: add it or correct the path.")
    return dict(sorted(cases.items()))


def _found(folder: str, part: str, ending: str) -> Cases:
    """Return the cases whose images are in ``images<part>``, and whose labels belong into ``labels<part>``."""
    where = Path(folder) / "dataset.json"
    found: dict[str, list[str]] = {}
    images = os.path.join(folder, f"images{part}")
    of_ending = _files(images, ending)
    others = [name for name in _files(images, "") if name not in of_ending and re.search(r"_[0-9]{4}\.", name)]
    if of_ending and others:
        raise ValueError(
            f"images{part}/{_first(others)} beside {where} has another ending than `file_ending`, {ending}: convert "
            "it, or move it elsewhere."
        )
    for name in of_ending:
        if not (match := re.fullmatch(rf"(.+)_[0-9]{{4}}{re.escape(ending)}", name)):
            raise ValueError(
                f"images{part}/{name} beside {where} has no channel of four digits before its ending: rename it as in "
                f"case_0000{ending}, move it elsewhere, or correct `file_ending`."
            )
        found.setdefault(match[1], []).append(name)
    for case, names in found.items():
        if names != [f"{case}_{channel:04}{ending}" for channel in range(len(names))]:
            raise ValueError(
                f"case {case} beside {where} has the files {', '.join(names)} in images{part}: their channels must be "
                "numbered 0000, 0001 and so on; add the missing files, or rename these."
            )
    labels = _files(os.path.join(folder, f"labels{part}"), ending)
    if lone := sorted(set(labels) - {case + ending for case in found}):
        raise ValueError(
            f"labels{part}/{_first(lone)} beside {where} has no image in images{part}: add the image, or remove the "
            "label."
        )
    return {
        case: (
            [os.path.join(images, name) for name in names],
            os.path.join(folder, f"labels{part}", case + ending),
        )
        for case, names in sorted(found.items())
    }


def _files(folder: str, ending: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_file() and e.name.endswith(ending) and not e.name.startswith("."))


def _check_channels(cases: list[tuple[str, tuple[list[str], str]]], count: int, where: Path) -> None:
    """Refuse cases that do not all have one file per channel, or all one file with all channels."""
    expected = count if any(len(images) > 1 for _, (images, _) in cases) else 1
    if wrong := [f"{case} has {len(images)}" for case, (images, _) in cases if len(images) != expected]:
        raise ValueError(
            f"`channel_names` of {where} has {count} entries, so every case needs {expected} image file"
            f"{'s' if expected > 1 else ''}, but {_first(wrong)}: add or remove files, or correct `channel_names`."
        )


def _items(cases: Cases) -> list[dict[str, Any]]:
    return [
        {"image": images if len(images) > 1 else images[0], **({"label": label} if os.path.isfile(label) else {})}
        for images, label in cases.values()
    ]


def _first(wrong: Iterable[str]) -> str:
    first, *more = wrong
    return f"{first} and {len(more)} more" if more else first
