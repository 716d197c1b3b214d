"""A figure of what labels keep at each working scale."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_ccnet.complexity.ceiling import LabelCeiling, restored_label
from monai_ccnet.complexity.pictures import as_array, in_ras
from monai_ccnet.constraints.scale import LEAST_DICE
from monai_ccnet.data.images import load_image
from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, without_ticks
from monai_ccnet.figures.overlays import overlay
from monai_ccnet.scales import Scale, per_axis, resolution_words, scale_words

__all__ = ["draw_ceiling"]


def draw_ceiling(
    image: Any,
    label: Any,
    ceiling: LabelCeiling,
    scale: Scale = 1,
    label_values: dict[Any, int] | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """Draw an image with its label, and the label restored from each scale: what is kept, lost and added.

    Below them is the Dice that the labels of the data set keep, class by class.

    Args:
        image: image, channel-first, ``(C, H, W)`` or ``(C, H, W, D)``, or the path of its file, or the paths of several
            files, one per channel. Of a volume the axial slice with the most foreground is shown.
        label: its label, ``(1, H, W)`` or ``(1, H, W, D)``, or the path of its file.
        ceiling: what the labels of the data set keep.
        scale: scale at which the network works.
        label_values: number of the class for each value in the label's file.
        names: names of the classes, in the order of their numbers, the background first.
    """
    pixels, classes = _in_space(image), _in_space(label, label=True, label_values=label_values).astype(int)
    known = [each for each in ceiling.scales if classes.ndim - 1 == len(per_axis(each, classes.ndim - 1))]
    views = {1: classes, **{each: restored_label(classes[0], each)[None] for each in known}}
    shape = overlay(pixels, classes, classes).shape
    columns = 2 if shape[0] < 1.5 * shape[1] else 4
    rows = math.ceil(len(views) / columns)
    panel = PAGE_WIDTH / columns
    height = rows * (panel * min(2.5, shape[0] / shape[1]) + 0.3)
    figure = Figure(figsize=(PAGE_WIDTH, height + 3.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, 2.4])
    above, below = parts
    grid = above.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(views) :]:
        axes.set_axis_off()
    for axes, (each, view) in zip(grid, views.items(), strict=False):
        axes.imshow(overlay(pixels, classes, view))
        without_ticks(axes)
        name = "the label" if each == 1 else f"restored from 1/{scale_words(each)}"
        axes.set_title(name + (" *" if each == scale else ""), fontsize=9)
    _draw_curve(below.subplots(), ceiling, scale, names)
    figure.suptitle(f"{ceiling.dataset}: yellow kept, red lost, green added\n{_works_at(ceiling, scale)}", fontsize=10)
    return figure


def _in_space(image: Any, **how: Any) -> np.ndarray:
    """Return an image, channel-first, with the axes of a volume right-anterior-superior."""
    if isinstance(image, (str, os.PathLike, list, tuple)):
        image = load_image(image, **how)
    space = getattr(image, "meta", {}).get("space", "RAS")
    return in_ras(as_array(image), getattr(image, "affine", None), None, space)[0]


def _works_at(ceiling: LabelCeiling, scale: Scale) -> str:
    """Return in words how large a pixel of the working scale is."""
    factors, where = per_axis(scale, len(ceiling.size)), resolution_words(scale)
    if ceiling.spacing is None:
        return f"* works at {where}: a pixel covers {' x '.join(map(str, factors))} of the image"
    lengths = " x ".join(f"{by * each:.3g}" for by, each in zip(factors, ceiling.spacing, strict=True))
    return f"* works at {where}: a pixel of {lengths} mm"


def _draw_curve(axes: Any, ceiling: LabelCeiling, scale: Scale, names: Sequence[str]) -> None:
    places = range(1 + len(ceiling.scales))
    for index, values in ceiling.dice.items():
        name = names[int(index)] if int(index) < len(names) else f"class {index}"
        axes.plot(places, [1.0, *values], "o-", label=name)
    if ceiling.skeleton is not None:
        axes.plot(places, [1.0, *ceiling.skeleton], "s--", color="0.5", label="centre lines")
    axes.axhline(LEAST_DICE, color="C3", linestyle=":", label=f"{LEAST_DICE:g}")
    if scale == 1 or scale in ceiling.scales:
        axes.axvline(0 if scale == 1 else 1 + ceiling.index(scale), color="C2", alpha=0.4, linewidth=6)
    axes.set_xticks(places, ["1", *(f"1/{scale_words(each)}" for each in ceiling.scales)])
    axes.set_xlabel("working scale")
    axes.set_ylabel("share that labels keep")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
