"""One reading of a data set: every file once, checked, and remembered in ``data.json``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ccnet.data.checks import check_overlap, check_pairs, median_spacing, uneven_spacing
from monai_ccnet.data.facts import FileFacts, facts_of, shares
from monai_ccnet.data.folder import DatasetFolder
from monai_ccnet.data.images import as_label_values, as_paths, check_spacing, is_file
from monai_ccnet.files import atomically, relative_path
from monai_ccnet.values import Value

__all__ = [
    "DataReading",
    "check_resampled",
    "check_scorable",
    "check_trainable",
    "common_spacing",
    "first_with_foreground",
    "read_dataset",
]

_PARTS = ("training", "validation", "test", "unlabelled")


@dataclass(frozen=True)
class DataReading(Value):
    """What was seen when a data set was read.

    Attributes:
        dataset: name of the data set.
        labels: names of its classes, in the order of their numbers.
        label_values: number of the class for each value in the labels, where they were mapped.
        held_out: which part of training is scored, and why; ``None`` if the set has a test part with labels.
        training: facts of each training image, followed by its label's.
        validation: the same of the validation part.
        test: the same of the test part; no number of theirs enters a plan, a patch or a recipe.
        unlabelled: facts of the test images without labels.
    """

    dataset: str
    labels: tuple[str, ...]
    label_values: dict[str, int]
    held_out: str | None
    training: tuple[FileFacts, ...]
    validation: tuple[FileFacts, ...] = field(default=())
    test: tuple[FileFacts, ...] = field(default=())
    unlabelled: tuple[FileFacts, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("labels", *_PARTS):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def digest(self) -> str:
        """SHA-256 digest of all that a result depends on: which file is in which part, its bytes, and the classes."""
        parts = {part: sorted(self._digests(part).items()) for part in _PARTS}
        text = json.dumps([parts, list(self.labels), self.label_values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _digests(self, part: str) -> dict[str, str]:
        return {file.path: file.digest for file in getattr(self, part)}

    def images(self, part: str = "training") -> list[FileFacts]:
        """Return the facts of the images of a part."""
        return [file for file in getattr(self, part) if not file.is_label]

    def differences(self, before: DataReading) -> str | None:
        """Return in words what changed since an earlier reading, or ``None`` if nothing did."""
        if (self.dataset, self.digest) == (before.dataset, before.digest):
            return None
        if self.dataset != before.dataset:
            return f"the data set was {before.dataset!r} and is {self.dataset!r}"
        now, then = ({name: each for part in _PARTS for name, each in r._digests(part).items()} for r in (self, before))
        changed = sorted(name for name in now if name in then and now[name] != then[name])
        if changed:
            return f"{len(changed)} of {len(then)} files have changed since, such as {changed[0]}"
        if gone := sorted(set(then) - set(now)):
            return f"{len(gone)} of {len(then)} files are no longer listed, such as {gone[0]}"
        if new := sorted(set(now) - set(then)):
            return f"{len(new)} files are new, such as {new[0]}"
        return "files are in other parts, or the classes or their values are others"

    def keep(self, path: str | os.PathLike) -> None:
        """Write this reading to a file, unless the file holds it already."""
        text = json.dumps(self.to_dict(), allow_nan=False) + "\n"  # in one line: there may be thousands of files
        if not os.path.exists(path) or Path(path).read_text(encoding="utf-8") != text:
            with atomically(path) as file:
                file.write(text.encode())

    def __str__(self) -> str:
        images = self.images()
        sizes = sorted({image.size for image in images}, key=lambda size: [int(n) for n in size.split(" x ")])
        size = sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        counts = ", ".join(f"{len(self.images(part))} {part}" for part in _PARTS if getattr(self, part))
        classes = shares([file for file in self.training if file.is_label])
        shown = ", ".join(f"{self.labels[int(value)]} {share:.2%}" for value, share in classes.items() if value != "0")
        lines = [f"{self.dataset}: {counts} images of {size}, {images[0].mode}; {shown or 'no foreground'}."]
        return "\n".join([*lines, *self.notes])

    @property
    def notes(self) -> list[str]:
        """What whoever trains on this set should know."""
        absent = [self._absent("training", "cannot be learned"), self._absent("test", "is not scored")]
        return [note for note in (self.held_out, uneven_spacing(self.images()), *absent) if note]

    def _absent(self, part: str, so: str) -> str | None:
        """Return what to say where no label of a part holds some of the declared classes."""
        held = {value for file in getattr(self, part) for value in file.values}
        names = [name for number, name in enumerate(self.labels) if number and held and str(number) not in held]
        return f"No {part} label holds {', '.join(names)}, which {so}." if names else None


def common_spacing(reading: DataReading) -> list[float] | None:
    """Return the size of a voxel to which all volumes are resampled, in millimetres, right-anterior-superior.

    It is the median of the training images where their voxels differ by more than 20 % in size, else ``None``: then
    each keeps its own.
    """
    return median_spacing(reading.images())


def check_resampled(reading: DataReading, spacing: Sequence[float] | None) -> None:
    """Refuse a size of a voxel to which the images of a data set cannot be resampled.

    Raises:
        ValueError: if the images have no spacing, or another number of axes.
    """
    if spacing is not None:
        first = reading.training[0]
        check_spacing(spacing, first.frame, first.shape[1:], first.affine)


def first_with_foreground(
    items: Sequence[Mapping[str, Any]], reading: DataReading, count: int = 4
) -> list[Mapping[str, Any]]:
    """Return the first few training items whose labels hold foreground, by which it is seen whether a network learns.

    Args:
        items: training items, as they were read.
        reading: what was read of the data set.
        count: how many of them.
    """
    labels = [label for _, label in _pairs(reading.training)]
    if len(labels) != len(items):  # some are no files
        return list(items[:count])
    shown = [item for item, label in zip(items, labels, strict=True) if label is None or set(label.values) - {"0"}]
    return shown[:count]


def check_scorable(reading: DataReading) -> None:
    """Refuse a data set on which no network could be scored, before one is trained.

    Raises:
        ValueError: if there is no image with a label to be scored, or no such label has any foreground.
    """
    labels = [file for file in reading.test if file.is_label]
    if not labels:
        raise ValueError(
            f"{reading.dataset!r} has no test image with a label, and a single training image, of which none can be "
            "held out: list more images, or a `test` part with labels."
        )
    if not any(set(label.values) - {"0"} for label in labels):
        raise ValueError(
            f"none of the {len(labels)} test labels of {reading.dataset!r} holds any foreground, so that no score is "
            "defined: list test images that show what is to be segmented."
        )


def read_dataset(
    data: DatasetFolder,
    training: Sequence[Mapping[str, Any]] | None = None,
    test: Sequence[Mapping[str, Any]] | None = None,
    *,
    saved: str | os.PathLike | None = None,
    label_values: Mapping[Any, int] | None = None,
    allow_overlap: bool = False,
    n_jobs: int | None = None,
    progress: bool = False,
) -> DataReading:
    """Read every file of a data set once, and check what can be checked before anything is measured or trained.

    Args:
        data: the data set.
        training: datalist to train on in place of its own.
        test: datalist to score in place of its own.
        saved: path of an earlier reading, ``data.json``; a file of the same size and time of change is not read again.
        label_values: number of the class for each value in a label, such as ``{0: 0, 255: 1}``.
        allow_overlap: whether the same image may be in training and in test.
        n_jobs: number of threads; ``None`` for one, or up to four where files are large.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file cannot be used; the message names it and the remedy.
    """
    values = {str(value): number for value, number in as_label_values(label_values).items()}
    listed: dict[str, Sequence[Mapping[str, Any]]] = {
        "training": data.training if training is None else training,
        "validation": data.validation,
        "test": data.test if test is None else test,
        "unlabelled": data.unlabelled,
    }
    if not allow_overlap:
        _check_listed(listed)
        _check_subjects(listed)
    known: dict[str, FileFacts] = {}
    if saved is not None and os.path.exists(saved):
        before = None
        with contextlib.suppress(ValueError):  # it only saves time, and is written anew
            before = DataReading.load(saved)
        if before is not None and before.label_values == values:
            known = {file.path: file for part in _PARTS for file in getattr(before, part)}
    wanted = [
        (part, item[key], key == "label")
        for part, items in listed.items()
        for item in items
        for key in ("image", "label")
        if is_file(item.get(key))
    ]
    facts = facts_of(
        [(path, is_label) for _, path, is_label in wanted],
        lambda image: relative_path(image, data.folder),
        label_values=label_values,
        known=known,
        n_jobs=n_jobs,
        progress=progress,
    )
    parts: dict[str, list[FileFacts]] = {part: [] for part in listed}
    for (part, _, _), file in zip(wanted, facts, strict=True):
        parts[part].append(file)
    if not parts["training"]:
        raise ValueError(f"no training image of {data.name!r} is given as a file, so that none can be read.")
    first = parts["training"][0]
    if data.channel_names and len(data.channel_names) != first.shape[0]:
        raise ValueError(
            f"{first.path} has {first.shape[0]} channels, and dataset.json names {len(data.channel_names)}: "
            f"{', '.join(data.channel_names)}. Correct `channel_names`, or add the files."
        )
    check_pairs([pair for files in parts.values() for pair in _pairs(files)], data.labels)
    images = {part: [file for file in files if not file.is_label] for part, files in parts.items()}
    if not allow_overlap:
        check_overlap([*images["training"], *images["validation"]], [*images["test"], *images["unlabelled"]])
    return DataReading(
        dataset=data.name,
        labels=data.labels,
        label_values=values,
        held_out=data.held_out,
        training=tuple(parts["training"]),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        unlabelled=tuple(parts["unlabelled"]),
    )


def _check_listed(listed: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuse an image that is its own label, or that one part lists twice."""
    for part, items in listed.items():
        images = [tuple(map(os.path.realpath, as_paths(item["image"]))) for item in items if is_file(item.get("image"))]
        if len(set(images)) < len(images):
            twice = next(image for image in images if images.count(image) > 1)
            raise ValueError(f"{';'.join(twice)} is listed twice in `{part}`: remove one entry from dataset.json.")
        for item in items:
            if item.get("label") is not None and item["label"] == item.get("image"):
                raise ValueError(f"{item['image']} is listed as an image and as its own label: correct dataset.json.")


def _check_subjects(listed: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuse a subject that is in training and in test."""
    of_part = {
        part: {str(item["subject"]) for item in items if item.get("subject") is not None}
        for part, items in listed.items()
    }
    if both := sorted((of_part["training"] | of_part["validation"]) & (of_part["test"] | of_part["unlabelled"])):
        raise ValueError(
            f"{len(both)} subjects are in training and in test, such as {both[0]!r}: scores would say nothing of new "
            "subjects. Move them, or give --allow_overlap True where this is meant."
        )


def check_trainable(reading: DataReading) -> None:
    """Refuse a data set from whose training labels nothing can be learned.

    Raises:
        ValueError: if none of them holds any foreground.
    """
    labels = [file for file in reading.training if file.is_label]
    if not any(set(label.values) - {"0"} for label in labels):
        raise ValueError(
            f"none of the {len(labels)} training labels of {reading.dataset!r} holds any foreground, so that nothing "
            "can be learned: list training images that show what is to be segmented."
        )


def _pairs(files: Sequence[FileFacts]) -> list[tuple[FileFacts, FileFacts | None]]:
    """Return each image with the label that follows it."""
    following = [*files[1:], None][: len(files)]
    return [
        (file, after if after is not None and after.is_label else None)
        for file, after in zip(files, following, strict=True)
        if not file.is_label
    ]
