"""What labels keep when a network works at a fraction of their resolution: its ceiling, known before any training."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from monai.utils.module import optional_import
from scipy import ndimage
from tqdm.auto import tqdm

from monai_ccnet.complexity.label import class_indices
from monai_ccnet.complexity.pictures import as_array, check_channel_first, in_ras
from monai_ccnet.files import file_digest, files_of, shown
from monai_ccnet.scales import Scale, as_scale, per_axis, scale_words
from monai_ccnet.values import Value, check_numbers

skeletonize, has_skimage = optional_import("skimage.morphology", name="skeletonize")

__all__ = ["LabelCeiling", "label_ceiling", "measure_ceiling", "restored_label", "scales_to_follow"]

SCALES = (2, 4, 8)
_SPECK = 0.1  # of the median label's largest structure: what is smaller may be a slip of the annotation
_LEAST_SPECK = 4  # pixels


def restored_label(label: np.ndarray, scale: int | Sequence[int]) -> np.ndarray:
    """Return a label after the way that :class:`~monai_ccnet.networks.AtScale` sends what a network sees and answers.

    Each class is averaged down by the scale, its edge repeated where a length is no multiple of it, and interpolated
    linearly back up; each pixel gets the class with the largest share. What is lost here is hard to find for a network
    at that scale, though its logits, which are no shares, can place a boundary between the pixels that it sees.

    Args:
        label: class indices of shape ``(H, W)`` or ``(H, W, D)``.
        scale: whole number from 1, or one for each axis.

    Returns:
        Class indices of the same shape and dtype; where two classes have equal shares, the lower one.

    >>> label = np.zeros((8, 8), int)
    >>> label[1, 1], label[4:, 4:] = 1, 2
    >>> np.unique(restored_label(label, 2)).tolist()  # a single pixel of 1 vanishes
    [0, 2]
    """
    factors = per_axis(scale, label.ndim)
    best, restored = _share(label == 0, factors), np.zeros_like(label)
    for index in np.unique(label):
        if index == 0:
            continue
        mask = label == index
        box = _box_around(mask, factors)
        share = _share(mask[box], factors)
        wins = share > best[box]
        restored[box][wins], best[box][wins] = index, share[wins]
    return restored


def label_ceiling(label: np.ndarray, restored: np.ndarray) -> float:
    """Return the Dice of a label with itself after :func:`restored_label`, the mean over its foreground classes.

    Args:
        label: class indices.
        restored: label of the same shape.

    Returns:
        A share from 0 to 1 (nothing is lost); 1 if the label has no foreground.
    """
    values = [_dice(label == index, restored == index) for index in np.unique(label) if index > 0]
    return float(np.mean(values)) if values else 1.0


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def _share(mask: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Return the share of a mask in each pixel after averaging down and linear interpolation back up."""
    padded = np.pad(mask, [(0, -length % by) for length, by in zip(mask.shape, factors, strict=True)], mode="edge")
    cells = [part for length, by in zip(padded.shape, factors, strict=True) for part in (length // by, by)]
    share = padded.reshape(cells).mean(axis=tuple(range(1, 2 * mask.ndim, 2)), dtype=np.float32)
    for axis, (by, length) in enumerate(zip(factors, mask.shape, strict=True)):
        if by == 1:
            continue
        centre = np.clip((np.arange(length) + 0.5) / by - 0.5, 0, share.shape[axis] - 1)
        below = np.floor(centre).astype(int)
        weight = (centre - below).astype(np.float32).reshape([-1 if each == axis else 1 for each in range(mask.ndim)])
        above = share.take(np.minimum(below + 1, share.shape[axis] - 1), axis)
        share = share.take(below, axis) * (1 - weight) + above * weight
    return share


def _box_around(mask: np.ndarray, factors: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the box, of whole cells, outside of which a mask has no share in any pixel."""
    box = []
    for axis, by in enumerate(factors):
        inside = np.flatnonzero(mask.any(axis=tuple(each for each in range(mask.ndim) if each != axis)))
        first, last = int(inside[0]) // by - 1, int(inside[-1]) // by + 2
        box.append(slice(max(0, first * by), min(mask.shape[axis], last * by)))
    return tuple(box)


class _Kept(NamedTuple):
    """What one label keeps: of each class its Dice at each scale, and of its structures what vanishes.

    ``spans`` holds the length of each structure along its longest side, and ``left`` for each scale whether anything of
    it is left.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...] | None
    dice: dict[int, list[float]]
    spans: list[float]
    left: list[list[bool]]
    merged: list[int]
    skeleton: list[int]  # pixels of it, and those covered at each scale


def _kept(label: np.ndarray, spacing: tuple[float, ...] | None, scales: Sequence[Sequence[int] | int]) -> _Kept:
    """Return what a label keeps, ``(1, ...)`` of class indices or ``(C, ...)`` with a channel of 0 and 1 per class."""
    size, axes = label.shape[1:], label.ndim - 1
    kept = _Kept(size, spacing, {}, [], [[] for _ in scales], [0] * len(scales), [0] * (1 + len(scales)))
    if not label.any():
        return kept
    factors = [per_axis(scale, axes) for scale in scales]
    cells = tuple(math.lcm(*each) for each in zip(*factors, strict=True))
    around = (slice(None), *_box_around(np.asarray(label.any(axis=0)), cells))
    label = label[around]
    views = [[restored_label(label[0], each)] if len(label) == 1 else label for each in factors]
    for index in map(int, np.unique(label)) if len(label) == 1 else range(1, 1 + len(label)):
        mask = label[0] == index if len(label) == 1 else label[index - 1] > 0
        if index == 0 or not mask.any():
            continue
        answers = [
            view[0] == index if len(label) == 1 else _share(mask, each) > 0.5
            for view, each in zip(views, factors, strict=True)
        ]
        box = _box_around(mask, cells)
        _follow(kept, index, mask[box], [answer[box] for answer in answers])
    return kept


def _follow(kept: _Kept, index: int, mask: np.ndarray, answers: Sequence[np.ndarray]) -> None:
    """Add what a class keeps: its Dice at each scale, and of each of its structures whether anything is left."""
    everywhere = np.ones((3,) * mask.ndim)
    parts, count = ndimage.label(mask, everywhere)
    lengths = kept.spacing or (1.0,) * mask.ndim
    kept.spans.extend(
        max((side.stop - side.start) * length for side, length in zip(box, lengths, strict=True))
        for box in ndimage.find_objects(parts)
    )
    line = skeletonize(mask) if mask.ndim == 2 and has_skimage else None
    kept.skeleton[0] += 0 if line is None else int(np.count_nonzero(line))
    kept.dice[index] = [_dice(mask, answer) for answer in answers]
    for number, answer in enumerate(answers):
        kept.left[number].extend((np.bincount(parts[answer], minlength=count + 1)[1:] > 0).tolist())
        kept.merged[number] += _merged(parts, answer, everywhere)
        kept.skeleton[1 + number] += 0 if line is None else int(np.count_nonzero(line & answer))


def _merged(parts: np.ndarray, answer: np.ndarray, everywhere: np.ndarray) -> int:
    """Return how many structures are joined to another one in an answer."""
    joined, count = ndimage.label(answer, everywhere)
    pairs = np.unique(np.stack([parts[answer], joined[answer]]), axis=1)
    parts_of = np.bincount(pairs[1][pairs[0] > 0], minlength=count + 1)[1:]
    return int(np.maximum(parts_of - 1, 0).sum())


@dataclass(frozen=True)
class LabelCeiling(Value):
    """What the labels of a data set keep at each working scale, by the way that a network's input and answer go.

    A structure is a connected part of one class; its size is the length of the box around it along its longest side, in
    millimetres where the labels have a spacing, else in pixels.

    Attributes:
        dataset: name of the data set.
        scales: factors by which resolution is divided, from the finest on; of one along all axes one number, else one
            for each axis, right-anterior-superior.
        count: number of labels.
        size: median length of each axis in pixels.
        spacing: median size of a pixel in millimetres; ``None`` where it is not known.
        dice: by class, the mean over the labels that hold it of its Dice with itself at each scale.
        smallest_structure: size from which structures count; smaller ones are specks.
        is_asked: whether that size was asked for, or follows from the labels: a tenth of the largest structure of the
            median label, and at least 4 pixels.
        structures: number of structures.
        vanished: number of them of which nothing is left at each scale.
        specks: number of smaller ones.
        vanished_specks: number of them of which nothing is left.
        largest_lost: size of the largest structure or speck of which nothing is left; 0 if there is none.
        merged: number of structures that touch or nearly touch another one and are joined to it.
        skeleton: share of the structures' centre lines that is left; ``None`` in 3-D and without scikit-image.
        digest: SHA-256 digest of what was measured.
        largest: size that the largest structure of a label keeps below in nine of ten labels; ``None`` if none has any.
    """

    dataset: str
    scales: tuple[int | tuple[int, ...], ...]
    count: int
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None
    dice: dict[str, tuple[float, ...]]
    smallest_structure: float
    is_asked: bool
    structures: int
    vanished: tuple[int, ...]
    specks: int
    vanished_specks: tuple[int, ...]
    largest_lost: tuple[float, ...]
    merged: tuple[int, ...]
    skeleton: tuple[float, ...] | None
    digest: str | None = None
    largest: float | None = None

    def __post_init__(self) -> None:
        scales = tuple(each if isinstance(each, int) else tuple(each) for each in self.scales)
        object.__setattr__(self, "scales", scales)
        for name in ("size", "spacing", "vanished", "vanished_specks", "largest_lost", "merged", "skeleton"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "dice", {str(key): tuple(values) for key, values in self.dice.items()})
        rows = [*self.dice.values(), self.vanished, self.vanished_specks, self.largest_lost, self.merged]
        rows += [] if self.skeleton is None else [self.skeleton]
        if {len(row) for row in rows} != {len(scales)} or not scales:
            raise ValueError(f"a ceiling has one number for each of its scales, {shown(scales)}, got {shown(rows)}.")
        for scale in scales:
            per_axis(scale, len(self.size))
        for row in rows:
            for number in row:
                check_numbers("a ceiling", 0, number=number)

    @property
    def unit(self) -> str:
        """Unit of the sizes of structures: ``"mm"`` or ``"pixels"``."""
        return "pixels" if self.spacing is None else "mm"

    @property
    def smallest_words(self) -> str:
        """The size from which structures count, with its unit."""
        return f"{self.smallest_structure:.3g} {self.unit}"

    def worst(self, scale: int | Sequence[int]) -> float:
        """Return the Dice that the class keeps which loses most at a scale; 1 at scale 1.

        Raises:
            ValueError: if the scale was not measured.
        """
        return min((values[self.index(scale)] for values in self.dice.values()), default=1.0) if scale != 1 else 1.0

    def index(self, scale: int | Sequence[int]) -> int:
        """Return the place of a scale among those that were measured.

        Raises:
            ValueError: if it is not among them.
        """
        wanted = scale if isinstance(scale, int) else tuple(scale)
        if wanted not in self.scales:
            raise ValueError(f"the ceiling of {self.dataset!r} is known at {self.scales}, and {wanted} is needed.")
        return self.scales.index(wanted)

    def __str__(self) -> str:
        lines = [
            f"Labels of {self.dataset} at a working scale ({self.count} labels, {self.structures} structures of "
            f"{self.smallest_words} and more, {self.specks} smaller):"
        ]
        for place, scale in enumerate(self.scales):
            words = f"  1/{scale_words(scale)}: keep {self.worst(scale):.4f} of their Dice; "
            words += f"{self.vanished[place]} structures and {self.vanished_specks[place]} smaller ones vanish"
            if self.largest_lost[place]:
                words += f", the largest of {self.largest_lost[place]:.3g} {self.unit}"
            words += f"; {self.merged[place]} are joined to others"
            if self.skeleton is not None:
                words += f"; {self.skeleton[place]:.1%} of centre lines are left"
            lines.append(words + ".")
        return "\n".join(lines)


def scales_to_follow(scale: Any, spatial_dims: int) -> list[int | list[int]]:
    """Return the scales at which what labels keep is of interest: 2, 4, 8, and one that was asked for as a number.

    >>> scales_to_follow("auto", 2), scales_to_follow([2, 2, 1], 3), scales_to_follow(3, 2)
    ([2, 4, 8], [[2, 2, 1], 2, 4, 8], [2, [3, 3], 4, 8])
    """
    if isinstance(scale, str) or scale == 1:
        return list(SCALES)
    asked = [scale] * spatial_dims if isinstance(scale, int) else list(scale)
    others: list[int | list[int]] = [each for each in SCALES if asked != [each] * len(asked)]
    return sorted([*others, asked], key=lambda each: math.prod(per_axis(each, len(asked))))


def measure_ceiling(
    items: Iterable[Any],
    scales: Sequence[int | Sequence[int]] = SCALES,
    *,
    name: str = "data set",
    smallest_structure: float | None = None,
    label_key: str = "label",
    saved: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LabelCeiling:
    """Measure what the labels of a data set keep at each working scale.

    Args:
        items: training items: dicts with the label's file or array at ``label_key``; or labels themselves, files or
            class indices of shape ``(1, H, W)`` or ``(1, H, W, D)``; or one channel of 0 and 1 per class or region, and
            each then goes its own way, as by a sigmoid.
        scales: factors by which resolution is divided, whole numbers from 1. Where pixels are longer along an axis,
            each is meant for the finest one, and axes of longer pixels are divided by less: with 1 x 1 x 5 mm a scale
            of 4 is 4 x 4 x 1. One number for each axis is taken as it is, and a scale that comes out twice counts once.
        name: name of the data set.
        smallest_structure: size from which a structure counts, in millimetres where the labels have a spacing, else in
            pixels; by default see :class:`LabelCeiling`.
        label_key: key of the label in an item that is a dict.
        saved: path of the JSON file to keep the result in; if it holds that of the same labels and settings, nothing is
            measured again.
        n_jobs: number of threads; ``None`` for one, or up to four.
        loading: how files are read: ``label_values`` and ``spacing`` of :func:`monai_ccnet.data.load_image`.
        progress: whether to show a progress bar on a terminal.

    Raises:
        OSError: if a label cannot be read.
        ValueError: if there is no label, or it holds what is no class.

    >>> label = np.zeros((1, 64, 64), int)
    >>> label[0, 8:56, 8:56], label[0, 2, 2] = 1, 1
    >>> ceiling = measure_ceiling([label], scales=(2, 8))
    >>> ceiling.structures, ceiling.specks, ceiling.vanished_specks, round(ceiling.worst(2), 4)
    (1, 1, (1, 1), 0.9998)
    """
    labels = [item.get(label_key) if isinstance(item, Mapping) else item for item in items]
    if not labels or any(label is None for label in labels):
        raise ValueError(
            f"{'an item' if labels else 'no item'} of {name!r} holds {'no' if labels else 'a'} label at {label_key!r}: "
            "list training images with labels, or give label_key."
        )
    if isinstance(scales, str) or not isinstance(scales, Sequence) or not scales:
        raise ValueError(f"scales must be a list of whole numbers from 1, got {shown(scales)}.")
    if smallest_structure is not None and not (isinstance(smallest_structure, (int, float)) and smallest_structure > 0):
        raise ValueError(f"smallest_structure must be a length above 0, got {shown(smallest_structure)}.")
    loading = {key: value for key, value in (loading or {}).items() if value is not None}
    digest = _digest(labels, [list(scales), smallest_structure, loading])
    if saved is not None and os.path.exists(saved):
        with contextlib.suppress(ValueError):  # it only saves time, and is written anew
            known = LabelCeiling.load(saved)
            if (known.dataset, known.digest) == (name, digest):
                return known
    first, spacing = _loaded(labels[0], loading)
    factors = list(dict.fromkeys(_physical(scale, spacing, first.ndim - 1) for scale in scales))
    each = _each_kept(labels, loading, factors, n_jobs, progress)
    if len({len(kept.size) for kept in each}) > 1:
        raise ValueError(f"labels of {name!r} have two and three axes: give those of one kind.")
    spacings = [kept.spacing for kept in each if kept.spacing is not None]
    median = tuple(np.median(spacings, axis=0).tolist()) if len(spacings) == len(each) else None
    again = list(dict.fromkeys(_physical(scale, median, first.ndim - 1) for scale in scales))
    if again != factors:  # the first label's pixels are not the usual ones
        factors, each = again, _each_kept(labels, loading, again, n_jobs, progress)
    ceiling = _summed(each, factors, name, smallest_structure, median, digest)
    if saved is not None:
        ceiling.save(saved)
    return ceiling


def _each_kept(
    labels: Sequence[Any], loading: Mapping[str, Any], factors: Sequence[Any], n_jobs: int | None, progress: bool
) -> list[_Kept]:
    n_jobs = min(4, os.cpu_count() or 1) if n_jobs is None else n_jobs
    tasks = (delayed(_kept_of)(label, loading, factors) for label in labels)
    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(tasks)
    bar = tqdm(results, total=len(labels), desc="what labels keep", unit="label", disable=None if progress else True)
    return list(bar)


def _kept_of(label: Any, loading: Mapping[str, Any], factors: Sequence[Any]) -> _Kept:
    return _kept(*_loaded(label, loading), factors)


def _loaded(label: Any, loading: Mapping[str, Any]) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return a label, channel-first and right-anterior-superior, and the size of a pixel, if it is known."""
    if isinstance(label, (str, os.PathLike)):
        # Imported here because the import takes seconds and arrays do not need it.
        from monai_ccnet.data.images import load_image

        label = load_image(label, label=True, **loading)
    meta, pixdim = getattr(label, "meta", {}), getattr(label, "pixdim", None)
    array = as_array(label)
    check_channel_first(array, "label")
    is_volume = meta.get("frame", "volume" if array.ndim == 4 else "picture") == "volume"
    known = [float(each) for each in pixdim][: array.ndim - 1] if pixdim is not None and is_volume else None
    array, spacing = in_ras(array, getattr(label, "affine", None), known, meta.get("space", "RAS"))
    classes = class_indices(array)
    if len(array) == 1:
        array = (np.moveaxis(classes, 0, -1) if classes.ndim == 3 else classes)[None]
    return array, None if spacing is None else tuple(spacing)


def _physical(scale: int | Sequence[int], spacing: tuple[float, ...] | None, axes: int) -> Scale:
    """Return a scale along each axis, less where pixels are longer; as one number if it is the same."""
    if not isinstance(scale, int):
        return as_scale(per_axis(scale, axes))
    if spacing is None:
        return scale
    longer = [length / min(spacing) for length in spacing]
    factors = tuple(
        scale if ratio < 2**0.5 else max(1, min(scale, 2 ** round(math.log2(scale / ratio)))) for ratio in longer
    )
    return as_scale(factors)


def _digest(labels: Sequence[Any], read_as: Any) -> str:
    digest = hashlib.sha256(json.dumps(read_as, sort_keys=True, default=str).encode())
    for label in labels:
        if isinstance(label, (str, os.PathLike)):
            digest.update(file_digest(*files_of(str(label))).encode())
        else:
            array, affine = as_array(label), getattr(label, "affine", None)
            place = "" if affine is None else as_array(affine).tolist()
            digest.update(f"{array.dtype} {array.shape} {place}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _summed(
    each: Sequence[_Kept],
    factors: Sequence[Scale],
    name: str,
    smallest_structure: float | None,
    spacing: tuple[float, ...] | None,
    digest: str,
) -> LabelCeiling:
    largest = [max(kept.spans) for kept in each if kept.spans]
    least = smallest_structure
    if least is None:
        least = max(_LEAST_SPECK * min(spacing or (1.0,)), _SPECK * float(np.median(largest or [0.0])))
    spans = np.array([span for kept in each for span in kept.spans])
    counts = spans >= least
    left = np.array([[is_left for kept in each for is_left in kept.left[place]] for place in range(len(factors))], bool)
    classes = sorted({index for kept in each for index in kept.dice})
    lengths, *covered = np.sum([kept.skeleton for kept in each], axis=0).tolist()
    return LabelCeiling(
        dataset=name,
        scales=tuple(factors),
        count=len(each),
        size=tuple(int(length) for length in np.median([kept.size for kept in each], axis=0)),
        spacing=spacing,
        dice={
            str(index): np.mean([kept.dice[index] for kept in each if index in kept.dice], axis=0).tolist()
            for index in classes
        },
        smallest_structure=float(least),
        is_asked=smallest_structure is not None,
        structures=int(counts.sum()),
        vanished=tuple(int((counts & ~row).sum()) for row in left),
        specks=int((~counts).sum()),
        vanished_specks=tuple(int((~counts & ~row).sum()) for row in left),
        largest_lost=tuple(float(spans[~row].max(initial=0.0)) for row in left),
        merged=tuple(np.sum([kept.merged for kept in each], axis=0).tolist()),
        skeleton=tuple(length / lengths for length in covered) if lengths else None,
        digest=digest,
        largest=float(np.quantile(largest, 0.9)) if largest else None,
    )
