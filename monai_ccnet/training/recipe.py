"""The recipe of a training: what follows from the data set, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_ccnet.complexity.ceiling import measure_ceiling
from monai_ccnet.data.facts import FileFacts
from monai_ccnet.data.reading import DataReading
from monai_ccnet.files import shown
from monai_ccnet.scales import Scale, per_axis, resolution_words

__all__ = [
    "ACTIVATIONS",
    "MOST_PIXELS",
    "Recipe",
    "device_of_cache",
    "largest_structure",
    "median_lengths",
    "plan_batch",
    "plan_recipe",
    "print_recipe",
]

# Activation of the bundle's networks, in MONAI's terms. Narrow networks die under a ReLU more often.
ACTIVATIONS: dict[str, Any] = {"planned": ["LEAKYRELU", {"negative_slope": 0.2}], "paper": "RELU"}

# Most pixels of a patch, seen at the working scale. A step of four such patches in 2-D, or two in 3-D, keeps 2.2 GB of
# activations of the paper's full-size U-Net. It is the same for all widths, so that they train alike.
MOST_PIXELS = {2: 256 * 256, 3: 64 * 64 * 48}
_BATCH = {2: 4, 3: 2}  # and up to twice as many of small patches
_BATCH_REASON = "twice as many where they are small to the network"
_CONTEXT = 2  # times the size of the largest structure, where a patch does not hold the whole image
_LEAST = {2: 96, 3: 48}  # pixels of the working scale, in such a patch


@dataclass(frozen=True)
class Recipe:
    """How networks are trained on a data set, by ids of ``train.yaml``.

    Attributes:
        name: ``"planned"`` or ``"paper"``.
        patch_size: lengths of a patch in pixels of the input, right-anterior-superior in 3-D.
        max_epochs: number of epochs.
        lambda_dice: weight of the Dice loss beside cross-entropy.
        learning_rate: highest learning rate.
        warmup_steps: steps over which it rises.
        rate_cycles: cosine cycles over which it falls, half of one to 0; none keeps it.
        reasons: why, by id; the others are the same for every data set.
    """

    name: str
    patch_size: tuple[int, ...]
    max_epochs: int
    lambda_dice: float
    learning_rate: float
    warmup_steps: int
    rate_cycles: float
    reasons: dict[str, str]


def plan_recipe(
    name: str,
    lengths: Sequence[int],
    scale: Scale = 1,
    *,
    divisor: int | Sequence[int] = 1,
    largest: float | None = None,
) -> Recipe:
    """Return the recipe for a data set. It follows from the data, and not from a network's width.

    Args:
        name: ``"planned"``, or ``"paper"``: cross-entropy alone, patches of 128 pixels and a fixed rate.
        lengths: lengths of the median training image in pixels, right-anterior-superior in 3-D.
        scale: factor by which the network averages its input down.
        divisor: divisor of each axis of the network's input, at the working scale.
        largest: size that the largest structure of an image keeps below in nine of ten, in pixels; ``None`` if it is
            not known.

    Raises:
        ValueError: if there is no such recipe.

    >>> recipe = plan_recipe("planned", (976, 976), divisor=16, largest=180)
    >>> print(recipe.patch_size, recipe.reasons["patch_size"], sep=": ")
    (256, 256): as much of a median image of 976 x 976 as 65,536 pixels hold
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"recipe must be one of {', '.join(ACTIVATIONS)}, got {shown(name)}.")
    axes = len(lengths)
    if name == "paper":
        patch = tuple([128] * axes if axes == 2 else [64, 64, 32])
        return Recipe(name, patch, 16, 0.0, 0.0005, 0, 0.0, {})
    patch, reason = _patch(lengths, per_axis(scale, axes), per_axis(divisor, axes, "divisor"), largest)
    return Recipe(name, patch, 16, 1.0, 0.005, 20, 0.5, {"patch_size": reason, "batch_size": _BATCH_REASON})


def plan_batch(name: str, patch_size: Sequence[int], scale: Scale = 1) -> int:
    """Return the number of patches of a step: 4, in 3-D 2; by the planned recipe up to twice as many of small ones.

    Beyond 4 a step holds no more pixels, as the network sees them, than one of the largest patches.

    Args:
        name: name of the recipe.
        patch_size: lengths of a patch in pixels of the input.
        scale: factor by which the network averages its input down.

    >>> plan_batch("planned", (256, 256)), plan_batch("planned", (256, 256), scale=4)
    (4, 8)
    """
    axes = len(patch_size)
    least = _BATCH.get(axes, 1)
    if name == "paper" or axes not in MOST_PIXELS:
        return least
    pixels = math.prod(max(1, length // by) for length, by in zip(patch_size, per_axis(scale, axes), strict=True))
    return max(least, min(2 * least, MOST_PIXELS[axes] // pixels))


def _patch(
    lengths: Sequence[int], factors: Sequence[int], divisors: Sequence[int], largest: float | None
) -> tuple[tuple[int, ...], str]:
    """Return the patch in pixels of the input, and why."""
    most, image = MOST_PIXELS[len(lengths)], " x ".join(map(str, lengths))
    at = "" if set(factors) == {1} else f" at {resolution_words(tuple(factors))}"
    if all(by == 1 for by in factors):  # a network within AtScale is fed what it needs
        whole = [unit * math.ceil(length / unit) for length, unit in zip(lengths, divisors, strict=True)]
    else:
        whole = [by * math.ceil(length / by) for length, by in zip(lengths, factors, strict=True)]
    seen = [length // by for length, by in zip(whole, factors, strict=True)]
    if math.prod(seen) <= most:
        return tuple(whole), f"the whole of a median image of {image}"
    seen = [unit * max(1, length // unit) for length, unit in zip(seen, divisors, strict=True)]
    reason = f"as much of a median image of {image} as {most:,} pixels{at} hold"
    while math.prod(seen) > most:
        axis = max((a for a in range(len(seen)) if seen[a] > divisors[a]), key=seen.__getitem__, default=None)
        if axis is None:
            break
        seen[axis] -= divisors[axis]
    if largest is not None:
        least = _LEAST[len(seen)]
        needed = [
            unit * math.ceil(max(least, _CONTEXT * largest / by) / unit)
            for unit, by in zip(divisors, factors, strict=True)
        ]
        if any(need < length for need, length in zip(needed, seen, strict=True)):
            seen = [min(need, length) for need, length in zip(needed, seen, strict=True)]
            reason = f"{_CONTEXT} times the largest structure, which spans {largest:.0f} pixels in nine of ten images"
    patch = tuple(length * by for length, by in zip(seen, factors, strict=True))
    return patch, reason


def median_lengths(reading: DataReading, spacing: Sequence[float] | None = None) -> list[int]:
    """Return the lengths of the median training image as the pipeline sees it, right-anterior-superior in 3-D.

    Args:
        reading: what was read of the data set.
        spacing: size of a voxel to which volumes are resampled, in millimetres.
    """
    return [math.ceil(length) for length in np.median([_lengths(each, spacing) for each in reading.images()], axis=0)]


def _lengths(image: FileFacts, spacing: Sequence[float] | None) -> list[int]:
    lengths = [image.shape[1 + axis] for axis in image.seen_axes]
    if spacing is None or image.frame != "volume":
        return lengths
    sizes = [image.spacing[axis] for axis in image.seen_axes]
    return [math.ceil(length * size / to) for length, size, to in zip(lengths, sizes, spacing, strict=True)]


def largest_structure(
    lengths: Sequence[int], scale: Scale, items: Sequence[Any], keeping: Mapping[str, Any]
) -> float | None:
    """Return the size of the largest structures in pixels, as :func:`plan_recipe` takes it.

    Labels are looked at only where a patch does not hold the whole of the median image; otherwise ``None``.

    Args:
        lengths: lengths of the median training image in pixels.
        scale: factor by which the network averages its input down.
        items: training items.
        keeping: what :func:`~monai_ccnet.complexity.measure_ceiling` is given beside them.
    """
    axes = len(lengths)
    if math.prod(length / by for length, by in zip(lengths, per_axis(scale, axes), strict=True)) <= MOST_PIXELS[axes]:
        return None
    ceiling = measure_ceiling(items, **keeping)
    if ceiling.largest is None or ceiling.spacing is None:
        return ceiling.largest
    return ceiling.largest / min(ceiling.spacing)


def device_of_cache(
    device: torch.device | str, reading: DataReading, spacing: Sequence[float] | None = None, num_workers: int = 0
) -> torch.device | None:
    """Return the device on which training images are kept: a GPU's own memory, if they take a quarter of it at most.

    Args:
        device: device of the training.
        reading: what was read of the data set.
        spacing: size of a voxel to which volumes are resampled, in millimetres.
        num_workers: number of processes that load images; they cannot share a GPU's memory.

    Returns:
        The device; ``None`` for the processor's memory.
    """
    device = torch.device(device)
    if device.type != "cuda" or num_workers:
        return None
    numbers = sum((each.shape[0] + 1) * math.prod(_lengths(each, spacing)) for each in reading.images())
    free, _ = torch.cuda.mem_get_info(device)
    return device if 4 * numbers <= free / 4 else None


def print_recipe(recipe: Recipe, used: Mapping[str, Any], batch_size: int) -> None:
    """Print how a network is trained, with the reason of each choice; in several processes the first one does.

    Args:
        recipe: the recipe.
        used: what is used, by id; where it is not what was planned, it was asked for.
        batch_size: planned number of patches of a step.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    print(f"Training by the {recipe.name} recipe:")
    for key, value in used.items():
        planned: Any = batch_size if key == "batch_size" else getattr(recipe, key, value)
        words = " x ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
        is_planned = list(value) == list(planned) if key == "patch_size" else value == planned
        reason = recipe.reasons.get(key)
        print(f"  {key} {words}" + (", as asked for" if not is_planned else f": {reason}" if reason else ""))
