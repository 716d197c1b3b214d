"""What must hold of the files of a data set before anything is measured, trained or scored."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_ccnet.data.facts import FileFacts, facts_of
from monai_ccnet.data.images import SAME_GRID, as_paths, displacement, is_file

__all__ = ["check_datalist", "check_overlap", "check_pairs", "class_names", "uneven_spacing"]

_SPACING_VARIES = 1.2


def class_names(labels: Any) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    Args:
        labels: ``labels`` of a ``dataset.json``: names by number, ``{"0": "background", "1": "vessel"}``, numbers by
            name as nnU-Net has them, or names in order.

    Raises:
        ValueError: if they are not numbered from 0 on.

    >>> class_names({"0": "background", "1": "vessel"}) == class_names({"background": 0, "vessel": 1})
    True
    """
    if isinstance(labels, Sequence) and not isinstance(labels, str) and labels:
        return _different(list(map(str, labels)))
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError('it has no `labels`: add them, as in {"0": "background", "1": "vessel"}')
    if odd := [name for name in labels.values() if not isinstance(name, (str, int)) or isinstance(name, bool)]:
        raise ValueError(f"`labels` must be names of classes, got {odd[0]!r}: name each by text")
    by_number = {str(key): str(name) for key, name in labels.items()}
    if all(isinstance(number, int) and not isinstance(number, bool) for number in labels.values()):
        by_number = {str(number): str(name) for name, number in labels.items()}
    if sorted(by_number) != sorted(map(str, range(len(labels)))):
        raise ValueError(
            f"`labels` must be numbered from 0 on, as in {{'0': 'background', '1': 'vessel'}}, got "
            f"{sorted(by_number)}: renumber them, and map the values in the masks with --label_values, as in "
            "{0: 0, 255: 1}"
        )
    if "background" in by_number.values() and by_number.get("0") != "background":
        raise ValueError(f"`labels` numbers the background other than 0, {dict(labels)}: give it 0, in the masks too")
    return _different([by_number[str(number)] for number in range(len(by_number))])


def _different(names: list[str]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"`labels` gives two classes one name, {', '.join(names)}: name each differently")
    return tuple(names)


def check_datalist(
    datalist: Iterable[Mapping[Hashable, Any]],
    labels: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    image_key: str = "image",
    label_key: str = "label",
    label_values: Mapping[Any, int] | None = None,
) -> int:
    """Check the files of a datalist, each read once, and raise an error for the first that cannot be trained on.

    Each image must be readable and finite, and have as many channels as the first. Each label must be readable, have
    one channel, lie on the grid of its image, and hold only declared values. An unchanged file is not read again by
    the same process. Items that hold arrays instead of paths are not looked at; a warning says how many.

    Args:
        datalist: items with file paths; an item without a label is an image to be segmented.
        labels: classes, as :func:`class_names` takes them; ``None`` leaves the values of labels, and whether images are
            alike, to whoever trains on them, and checks where they lie alone.
        image_key: key of the image in an item.
        label_key: key of the label in an item.
        label_values: number of the class for each value in a label, such as ``{0: 0, 255: 1}``.

    Returns:
        The number of items looked at.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is invalid; the message names the file and the remedy.
    """
    names = None if labels is None else class_names(labels)
    if not isinstance(datalist, (list, tuple)):
        warnings.warn(f"a {type(datalist).__name__} is not a list of files: nothing was checked.", stacklevel=2)
        return 0
    items = [item if isinstance(item, Mapping) else {image_key: item} for item in datalist]
    files = [
        (item[image_key], item.get(label_key))
        for item in items
        if is_file(item.get(image_key)) and (item.get(label_key) is None or is_file(item[label_key]))
    ]
    if left := len(items) - len(files):
        warnings.warn(f"{left} of {len(items)} items are not given as files, and were not checked.", stacklevel=2)
    wanted = [(path, is_label) for pair in files for is_label, path in enumerate(pair) if path is not None]
    facts = iter(
        facts_of(
            [(path, bool(is_label) and names is not None) for path, is_label in wanted],
            _whole_name,
            label_values=label_values,
        )
    )
    pairs = [(next(facts), None if label is None else next(facts)) for _, label in files]
    if names is not None:
        check_pairs(pairs, names)
    else:
        for image, label in pairs:
            if label is not None:
                _check_grid(image, label)
    return len(files)


def _whole_name(image: Any) -> str:
    return ";".join(as_paths(image))


def check_pairs(pairs: Sequence[tuple[FileFacts, FileFacts | None]], names: Sequence[str]) -> None:
    """Refuse the first image, or pair of an image and its label, that does not fit the others or its classes.

    Args:
        pairs: facts of each image and of its label, if it has one.
        names: names of the classes.

    Raises:
        ValueError: the message names the file, both values and the remedy.
    """
    for image, label in pairs:
        first = pairs[0][0]
        if (image.shape[0], len(image.shape)) != (first.shape[0], len(first.shape)):
            raise ValueError(
                f"the image {image.path} has {_axes(image)} and {first.path} has {_axes(first)}: convert it, or remove "
                "it from dataset.json."
            )
        if image.frame != first.frame:
            raise ValueError(
                f"the image {image.path} is a {image.frame} ({image.mode}) and {first.path} is a {first.frame} "
                f"({first.mode}): their axes may differ; save both in one format."
            )
        if label is not None:
            _check_grid(image, label)
            _check_values(label, names)


def _axes(image: FileFacts) -> str:
    return f"{image.shape[0]} channels and {len(image.shape) - 1} axes"


def _check_grid(image: FileFacts, label: FileFacts) -> None:
    if label.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"the label {label.path} has the size {label.size} and its image {image.path} {image.size}: they must be "
            "equal; resample one to the other."
        )
    if label.frame != image.frame:
        raise ValueError(
            f"the label {label.path} is a {label.frame} ({label.mode}) and its image {image.path} a {image.frame} "
            f"({image.mode}): how one lies on the other is not known; save both in one format."
        )
    if image.frame == "volume" and (apart := displacement(image.shape[1:], image.affine, label.affine)) > SAME_GRID:
        raise ValueError(
            f"the label {label.path} lies on another grid ({label.grid}) than its image {image.path} ({image.grid}), "
            f"up to {apart:.3g} voxels apart: resample it to the image's grid, or correct its affine."
        )


def _check_values(label: FileFacts, names: Sequence[str]) -> None:
    declared = set(map(str, range(len(names))))
    if undeclared := sorted(set(label.values) - declared, key=int):
        shown = ", ".join(undeclared[:5]) + (", ..." if len(undeclared) > 5 else "")
        remedy = "correct it, add the missing classes to `labels`, or map its values with --label_values"
        if set(label.values) <= {"0", "255"} and len(names) == 2:
            remedy = 'give --label_values "{0: 0, 255: 1}" (in calibrate and compare within --training)'
        raise ValueError(
            f"the label {label.path} holds {shown}, and dataset.json declares 0 to {len(names) - 1}: {remedy}."
        )


def check_overlap(training: Sequence[FileFacts], test: Sequence[FileFacts]) -> None:
    """Refuse images of the test part that are in the training part too, in whatever format or orientation.

    Raises:
        ValueError: the message names the first pair and their number. Images of one constant value are not compared.
    """
    seen = {image.content: image.path for image in training if image.low < image.high}
    both = [(seen[image.content], image.path) for image in test if image.content in seen]
    if both:
        raise ValueError(
            f"{len(both)} of {len(test)} test images are in training or validation too, such as {both[0][1]} as "
            f"{both[0][0]}: scores would say nothing of new images. Remove them, or give --allow_overlap True where "
            "this is meant."
        )


def median_spacing(images: Sequence[FileFacts]) -> list[float] | None:
    """Return the median size of a voxel, right-anterior-superior in millimetres, where it varies by more than 20 %."""
    spacings = _spacings(images)
    if not spacings or (np.max(spacings, axis=0) <= _SPACING_VARIES * np.min(spacings, axis=0)).all():
        return None
    return [round(float(each), 4) for each in np.median(spacings, axis=0)]


def uneven_spacing(images: Sequence[FileFacts]) -> str | None:
    """Return what to say where the size of a voxel varies by more than 20 % from image to image, or ``None``."""
    if (middle := median_spacing(images)) is None:
        return None
    spacings = _spacings(images)
    ranges = zip(np.min(spacings, axis=0), np.max(spacings, axis=0), strict=True)
    return (
        f"Voxels are {' x '.join(f'{low:.4g} to {high:.4g}' for low, high in ranges)} mm large, and a network would "
        f"see the same structure at different sizes: all are resampled to {' x '.join(map(str, middle))} mm, "
        "unless --spacing says otherwise (None keeps each as it is); segmentations lie on the grid of their image."
    )


def _spacings(images: Sequence[FileFacts]) -> list[list[float]]:
    """Return the size of a voxel of each volume, right-anterior-superior; of flat ones as they are stored."""
    return [[image.spacing[axis] for axis in image.seen_axes] for image in images if image.frame == "volume"]
