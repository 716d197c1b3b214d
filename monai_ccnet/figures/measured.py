"""Figures of complexity: of images, of data sets, over the scales, by several measures."""

from __future__ import annotations

import csv
import heapq
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_ccnet.complexity.label import label_at_scale
from monai_ccnet.complexity.measures import MEASURES, class_indices
from monai_ccnet.complexity.pictures import as_array, as_radiologists_see, to_pictures
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.complexity.scales import at_scale
from monai_ccnet.complexity.selection import MeasureFit
from monai_ccnet.data.images import load_image
from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, scale_axis, scale_name, without_ticks

__all__ = ["draw_complexity", "draw_measures", "draw_profiles", "draw_scales"]


def draw_complexity(
    profile: ComplexityProfile, table: str | os.PathLike, images: int = 4, folder: str | os.PathLike = ""
) -> Figure:
    """Draw the least and the most complex images of a data set with their values, and the mean at each scale.

    Args:
        profile: profile of the data set.
        table: path of the CSV file that :func:`~monai_ccnet.complexity.measure_dataset` wrote with it.
        images: number of the least and of the most complex images; a volume is shown by its middle slice.
        folder: folder of the data set, needed if the table names its files relative to it.
    """
    with open(table, newline="", encoding="utf-8") as file:
        first = f"1/{profile.scales[0]}"
        rows = [(float(row[first]), row["file"]) for row in csv.DictReader(file)]
    images = min(images, len(rows))
    extremes = [heapq.nsmallest(images, rows), heapq.nlargest(images, rows)]

    figure = Figure(figsize=(2.2 * images + 4.6, 5.6), layout="constrained")
    cells = figure.add_gridspec(2, images + 1, width_ratios=[2.2] * images + [4.6])
    for row, (chosen, words) in enumerate(zip(extremes, ("least complex", "most complex"), strict=True)):
        for column, (value, file_name) in enumerate(chosen):
            axes = figure.add_subplot(cells[row, column])
            _show_file(axes, folder, file_name, profile.settings)
            axes.set_title(f"{value:.4f}", fontsize=10)
            axes.set_xlabel(os.path.basename(file_name.split(";")[0])[-24:], fontsize=7)
            if column == 0:
                axes.set_ylabel(words)
    _draw_profile(figure.add_subplot(cells[:, images]), [profile])
    figure.suptitle(f"{profile.dataset}: {profile.count:,} image{'s' * (profile.count != 1)}")
    return figure


def draw_scales(image: Any, profile: ComplexityProfile, *, label: Any = None, pixels: int = 256) -> Figure:
    """Draw an image at each scale, restored to its size, with the data set's mean complexity at the scale (Fig. 3).

    Args:
        image: image, channel-first, of shape ``(C, H, W)`` or ``(C, H, W, D)``, or the path of its file, or the paths
            of several files, one per channel. Of a volume the middle slice is shown, of channels that are not colours
            the first.
        profile: profile of the data set that the image belongs to.
        label: label of the image, of shape ``(1, H, W)`` or ``(1, H, W, D)``, or the path of its file; shown instead of
            the image if the measure is one of labels.
        pixels: longest side shown, in pixels; of a larger image the middle is shown, so that detail can be seen.
    """
    measure = profile.settings["measure"]
    what = "label" if label is not None and measure in MEASURES and MEASURES[measure].source == "label" else "image"
    array = _loaded(label if what == "label" else image)
    views = _label_views(array, profile.scales) if what == "label" else _image_views(array, profile)
    height, width = (min(pixels, length) for length in views[0].shape[:2])
    columns = min(3 if height < 1.5 * width else 5, len(profile.scales))
    rows = math.ceil(len(profile.scales) / columns)
    panel = PAGE_WIDTH / columns
    figure = Figure(figsize=(PAGE_WIDTH, rows * (panel * min(2.5, height / width) + 0.25) + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(profile.scales) :]:
        axes.set_axis_off()
    for axes, scale, complexity, view in zip(grid, profile.scales, profile.mean, views, strict=False):
        _show(axes, _middle(view, height, width))
        axes.set_title(f"{scale_name(scale)}: {complexity:.4f}", fontsize=11)
    article = "an" if what == "image" else "a"
    figure.suptitle(f"{article} {what} of {profile.dataset} at each scale,\nand the mean {measure} complexity")
    return figure


def _image_views(image: np.ndarray, profile: ComplexityProfile) -> list[np.ndarray]:
    """Return an image, of a volume the middle slice, at each scale."""
    picture, volume = _picture(image, profile.settings), image.ndim == 4
    views = [at_scale(picture, scale, volume=volume) for scale in profile.scales]
    return [view[len(view) // 2] for view in views] if volume else views


def _label_views(label: np.ndarray, scales: Sequence[int]) -> list[np.ndarray]:
    """Return the classes of a label, of a volume those of the middle slice, at each scale, rows along y, up to 255."""
    classes = class_indices(label)
    views = [label_at_scale(classes, scale) * (255.0 / max(1, classes.max())) for scale in scales]
    return [(view[len(view) // 2] if view.ndim == 3 else view).T for view in views]


def draw_profiles(profiles: Sequence[ComplexityProfile]) -> Figure:
    """Draw the complexity of several data sets over the scales, the most complex first.

    Args:
        profiles: profiles with equal settings; each is drawn with its 95 % interval, if known.

    Raises:
        ValueError: if there is none, or their settings differ: such complexities are not comparable.
    """
    if not profiles:
        raise ValueError("there is no profile to draw: measure a data set with measure_dataset.")
    for profile in profiles:
        if profile.settings != profiles[0].settings:
            raise ValueError(
                f"complexities under different settings are not comparable: {profiles[0].dataset!r} has "
                f"{profiles[0].settings}, {profile.dataset!r} {profile.settings}."
            )
    figure = Figure(figsize=(PAGE_WIDTH, 4.0), layout="constrained")
    axes = figure.subplots()
    _draw_profile(axes, sorted(profiles, key=lambda profile: -profile.mean[0]))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def draw_measures(fits: Sequence[MeasureFit], measures: int = 6) -> Figure:
    """Draw the degradation of data sets and their complexity by several measures, each scaled to its range (Fig. 2).

    Args:
        fits: fits as :func:`~monai_ccnet.complexity.rank_measures` returns them.
        measures: number of the best measures to draw.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(fits[0].slopes)
    places = np.arange(len(order))
    axes.plot(places, _over_its_range(fits[0].slopes)[order], "k-", linewidth=3, label="degradation (measured)")
    for fit, marker in zip(fits[:measures], "osD^vPX*<>", strict=False):
        label = f"{fit.measure} (leave-one-out error {fit.leave_one_out_error:.3f})"
        axes.plot(places, _over_its_range(fit.complexities)[order], marker=marker, alpha=0.8, label=label)
    axes.set_xticks(places, [fits[0].datasets[index] for index in order], rotation=30, ha="right")
    axes.set_ylabel("scaled to its own range, least to most")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _over_its_range(values: Sequence[float]) -> np.ndarray:
    array = np.array(values)
    return (array - array.min()) / (np.ptp(array) or 1)


def _draw_profile(axes: Any, profiles: Sequence[ComplexityProfile]) -> None:
    for profile in profiles:
        interval = None if profile.standard_error is None else 1.96 * np.array(profile.standard_error)
        label = f"{profile.dataset} ({profile.count:,} image{'s' * (profile.count != 1)})"
        axes.errorbar(profile.scales, profile.mean, yerr=interval, marker="o", capsize=3, label=label)
    scale_axis(axes, sorted({scale for profile in profiles for scale in profile.scales}))
    known = any(profile.standard_error is not None for profile in profiles)
    spread = "\n(mean and 95 % interval)" if known else ""
    axes.set_ylabel(f"{profiles[0].settings['measure']} complexity{spread}")


def _loaded(image: Any) -> np.ndarray:
    """Return an image given as an array, or as the path of its file or of several; a volume as radiologists see it."""
    if isinstance(image, (str, os.PathLike, list, tuple)):
        image = load_image(image)
    return as_radiologists_see(as_array(image), getattr(image, "affine", None))


def _picture(image: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Return an image as its measure saw it; of channels that are not colours, the first."""
    return to_pictures(image, **{key: settings[key] for key in ("intensity", "channels", "axes") if key in settings})[0]


def _middle(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _show(axes: Any, picture: np.ndarray) -> None:
    without_ticks(axes)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)


def _show_file(axes: Any, folder: str | os.PathLike, file_name: str, settings: Mapping[str, Any]) -> None:
    """Show an image as its measure saw it, of a volume the middle slice."""
    if not file_name:
        without_ticks(axes)
        axes.text(0.5, 0.5, "not from\na file", ha="center", va="center", transform=axes.transAxes)
        return
    paths = [os.path.join(folder, each) for each in file_name.split(";")]
    image = _loaded(paths if len(paths) > 1 else paths[0])
    picture = _picture(image, settings)
    _show(axes, picture[len(picture) // 2] if image.ndim == 4 else picture)
