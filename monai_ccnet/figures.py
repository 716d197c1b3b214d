"""Pictures of what was measured and found; each function returns a figure and touches no file.

They need matplotlib (``pip install "monai_ccnet[figures]"``) and neither a display nor its global state.
"""

from __future__ import annotations

import csv
import heapq
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.transforms.io.array import LoadImage
from monai.utils.module import optional_import

from monai_ccnet.complexity.pictures import as_array, to_pictures
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.complexity.selection import MeasureFit
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.degradation import DegradationModel, DegradationPoint
from monai_ccnet.values import atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    has_matplotlib = True
else:
    Figure, has_matplotlib = optional_import(
        "matplotlib.figure", name="Figure", descriptor="{}: pictures need it; pip install 'monai_ccnet[figures]'"
    )

__all__ = ["draw_complexity", "draw_degradation", "draw_measures", "draw_trade_off", "has_matplotlib", "save_figure"]


def save_figure(path: str | os.PathLike, figure: Figure, dots_per_inch: int = 120) -> None:
    """Write a figure as the kind of picture that the name of the file says, atomically."""
    kind = os.path.splitext(os.fspath(path))[1].lstrip(".") or "png"
    with atomically(path) as file:
        figure.savefig(file, format=kind, dpi=dots_per_inch)


def draw_complexity(profile: ComplexityProfile, table: str | os.PathLike, images: int = 4) -> Figure:
    """Draw the least and the most complex images of a data set with their numbers, and the fall over the scales.

    Args:
        profile: of the data set.
        table: the CSV file that :func:`~monai_ccnet.complexity.measure_dataset` wrote with it.
        images: how many of the least and of the most complex; a volume is shown by its middle slice.
    """
    with open(table, newline="", encoding="utf-8") as file:
        first = f"1/{profile.scales[0]}"
        rows = [(float(row[first]), row["file"]) for row in csv.DictReader(file)]
    images = min(images, len(rows))
    extremes = [heapq.nsmallest(images, rows), heapq.nlargest(images, rows)]

    figure = Figure(figsize=(2.2 * images + 4.6, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.2 * images, 4.6))  # type: ignore[misc]
    grid = left.subplots(2, images, squeeze=False)
    for axes_row, chosen, words in zip(grid, extremes, ("least complex", "most complex"), strict=True):
        for axes, (value, file_name) in zip(axes_row, chosen, strict=True):
            _show(axes, file_name, profile.settings)
            axes.set_title(f"{value:.4f}", fontsize=10)
            axes.set_xlabel(os.path.basename(file_name.split(";")[0])[-24:], fontsize=7)
        axes_row[0].set_ylabel(words)
    axes = right.subplots()
    axes.errorbar(
        profile.scales,
        profile.mean,
        yerr=None if profile.standard_error is None else 1.96 * np.array(profile.standard_error),
        marker="o",
        capsize=3,
        color="C0",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(profile.scales, [f"1/{scale}" if scale > 1 else "1" for scale in profile.scales])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("scale of the image")
    spread = "" if profile.standard_error is None else ", mean and its 95 % interval"
    axes.set_ylabel(f"complexity ({profile.settings['measure']}{spread})")
    axes.grid(alpha=0.3)
    figure.suptitle(f"{profile.dataset}: {profile.count:,} image{'s' * (profile.count != 1)}")
    return figure


def draw_measures(fits: Sequence[MeasureFit], measures: int = 6) -> Figure:
    """Draw the degradation of data sets and their complexity by several measures, each over its own range: Fig. 2.

    Args:
        fits: as :func:`~monai_ccnet.complexity.rank_measures` returns them.
        measures: how many of the best to draw.
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
    axes.set_ylabel("over its own range, least to most")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def draw_degradation(model: DegradationModel, points: Sequence[DegradationPoint]) -> Figure:
    """Draw relative scores against the loss of weights with the fitted law, and slopes against complexity: Figs. 6-8.

    Args:
        model: fitted to the points.
        points: trained networks of several data sets.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    datasets = {point.dataset: point.complexity for point in points}
    grid = np.logspace(0, np.log10(max(point.compression for point in points)), 60)
    for index, (name, complexity) in enumerate(sorted(datasets.items(), key=lambda pair: pair[1])):
        own = [point for point in points if point.dataset == name]
        for has_learned, marker in ((True, "o"), (False, "x")):
            kept = [(p.compression, p.score) for p in own if p.has_learned == has_learned]
            if kept:
                left.plot(*zip(*kept, strict=True), marker, color=f"C{index}", label=name if has_learned else None)
        left.plot(grid, [model.predict(complexity, x) for x in grid], color=f"C{index}", alpha=0.6)
        if name in model.dataset_slopes:
            right.plot(complexity, model.dataset_slopes[name], "o", color=f"C{index}")
            right.annotate(
                name, (complexity, model.dataset_slopes[name]), (5, 4), textcoords="offset points", fontsize=8
            )
    left.set_xscale("log")
    left.set_xlabel("times fewer weights")
    left.set_ylabel(f"{model.metric.upper()} relative to full size (x: did not learn)")
    left.set_title("dots: trained, lines: the law at each data set's complexity", fontsize=9)
    left.legend(fontsize=8)
    left.grid(alpha=0.3)

    complexities = np.linspace(0, 1.15 * max(datasets.values()), 60)
    line = np.array([model.loss_per_decade(c) for c in complexities])
    right.plot(complexities, line, "k-", linewidth=1)
    if model.covariance is not None:
        design = np.stack([complexities, np.ones_like(complexities)], axis=1)
        error = np.sqrt(np.einsum("ni,ij,nj->n", design, np.array(model.covariance), design))
        right.fill_between(complexities, line - error, line + error, color="k", alpha=0.12, label="standard error")
        right.legend(fontsize=8)
    right.set_xlabel(f"complexity ({model.settings.get('measure', 'any measure')})")
    right.set_ylabel("relative loss per decade of weights")
    squared = "" if model.r_squared is None else f", R² {model.r_squared:.2f}"
    left_out = "" if model.left_out_error is None else f", error of a set left out {model.left_out_error:.3f}"
    right.set_title(f"{model.slope:.3g} x complexity + {model.intercept:.3g}{squared}{left_out}", fontsize=9)
    right.grid(alpha=0.3)
    return figure


def draw_trade_off(plans: Sequence[CompressionPlan], chosen: CompressionPlan | None = None) -> Figure:
    """Draw the predicted score against the bytes of the file, with its interval.

    Args:
        plans: as :func:`~monai_ccnet.constraints.trade_off` returns them; each with a prediction.
        chosen: a plan to point out.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    predicted = [(plan.size.file_bytes, plan.predicted) for plan in plans if plan.predicted is not None]
    sizes = [size for size, _ in predicted]
    axes.plot(sizes, [prediction.score for _, prediction in predicted], "o-", markersize=4, label="predicted")
    if all(prediction.low is not None for _, prediction in predicted):
        low, high = ([getattr(prediction, end) for _, prediction in predicted] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, alpha=0.15, label=f"{predicted[0][1].level:.0%} interval")
    if chosen is not None and chosen.predicted is not None:
        axes.plot(chosen.size.file_bytes, chosen.predicted.score, "*", markersize=15, color="C3", label="this plan")
        words = "-".join(map(str, chosen.channels))
        axes.annotate(words, (chosen.size.file_bytes, chosen.predicted.score), (8, -14), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the file of weights, 32 bits each")
    metric = next((plan.degradation.metric for plan in plans if plan.degradation is not None), "score")
    axes.set_ylabel(f"{metric.upper()} relative to full size")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right")
    return figure


def _over_its_range(values: Sequence[float]) -> np.ndarray:
    array = np.array(values)
    return (array - array.min()) / (np.ptp(array) or 1)


def _show(axes: Any, file_name: str, settings: dict[str, Any]) -> None:
    """Show an image as its measure saw it: the first channel unless they are colours, the middle slice of a volume."""
    axes.set_xticks([])
    axes.set_yticks([])
    if not file_name:
        axes.text(0.5, 0.5, "not from\na file", ha="center", va="center", transform=axes.transAxes)
        return
    paths = file_name.split(";")
    image = as_array(LoadImage(image_only=True, ensure_channel_first=True)(paths if len(paths) > 1 else paths[0]))
    known = {key: settings[key] for key in ("intensity", "channels", "axes") if key in settings}
    picture = to_pictures(image, **known)[0]
    axes.imshow(picture[len(picture) // 2] if image.ndim == 4 else picture, cmap="gray", vmin=0, vmax=255)
