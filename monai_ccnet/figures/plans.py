"""Figures of a plan: the channels of each stage, and the predicted scores of other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.degradation import WIDTH_WORDS, DegradationModel, WidthLaw
from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, plain_log_axis, scale_name

__all__ = ["draw_plan", "draw_trade_off"]


def draw_plan(plan: CompressionPlan) -> Figure:
    """Draw the channels of each stage, full-size and planned, and below them the predictions of the law.

    The lower panel shows the score that a law in width predicts, with its interval, against width. For a law in
    complexity it shows the predicted score at the complexity of each stage's scale, against how many times fewer
    weights the stage has; in a plan by complexity the dots are about level, because every stage loses the same share.
    Such a plan without a profile has no lower panel.

    Args:
        plan: plan as :func:`~monai_ccnet.constraints.compress` returns it.
    """
    stages = plan.family
    model, profile = plan.degradation, plan.complexity
    scales = plan.stage_scales if stages.layerwise else (1,) * len(plan.channels)
    by_width = isinstance(model, WidthLaw)
    explained = len(scales) > 0 and (by_width or (profile is not None and set(scales) <= set(profile.scales)))
    figure = Figure(figsize=(PAGE_WIDTH, 6.2 if explained else 3.1), layout="constrained")
    top, *below = figure.subplots(1 + explained, 1, squeeze=False).ravel()
    names = list(map(scale_name, scales)) if stages.layerwise else np.ravel(stages.argument).tolist()
    _draw_channels(top, plan, names)
    top.set_xlabel("scale at which the stage works" if stages.layerwise else "width of the network")
    if explained and isinstance(model, WidthLaw):
        _draw_width_law(below[0], plan, model)
    elif explained:
        assert profile is not None
        assert isinstance(model, DegradationModel)
        by_stage = plan.allocation == "complexity"
        compressions = [share**-2 for share in plan.multipliers] if by_stage else [plan.compression] * len(scales)
        lines = {scale_name(scale): profile.at(scale) for scale in (scales if by_stage else (1,))}
        _draw_law(below[0], model, lines, compressions)
        what = "the stage" if by_stage else "the network"
        below[0].set_xlabel(f"times fewer weights in {what}")
    return figure


def _draw_channels(axes: Any, plan: CompressionPlan, names: Sequence[str]) -> None:
    places, width = np.arange(len(names)), 0.4
    full = plan.full_channels
    size = 9 if len(names) < 8 else 7
    for offset, channels, colour, label in (
        (-width / 2, full, "0.75", "full-size network"),
        (width / 2, plan.channels, "C0", "this plan"),
    ):
        bars = axes.bar(places + offset, channels, width, color=colour, label=label)
        axes.bar_label(bars, fontsize=size)
    axes.set_xticks(places, names)
    plain_log_axis(axes.yaxis, base=2, subdivided=(1,))
    axes.set_ylim(0.5, 6 * max(full))  # room for the legend above the bars
    axes.set_ylabel("channels")
    axes.set_title(f"{plan.compression:,.1f} times fewer weights: {plan.size.weights:,}", fontsize=11)
    axes.legend(loc="upper center", ncols=2)


def _draw_law(
    axes: Any, model: DegradationModel, complexities: Mapping[str, float], compressions: Sequence[float]
) -> None:
    grid = np.logspace(0, np.log10(max(2.0, 1.6 * max(compressions))), 60)
    for (name, complexity), compression in zip(complexities.items(), compressions, strict=False):
        (line,) = axes.plot(grid, [model.predict(complexity, x) for x in grid], label=f"{name}: {complexity:.4f}")
        axes.plot(compression, model.predict(complexity, compression), "o", color=line.get_color())
    plain_log_axis(axes.xaxis, subdivided=(1, 2, 5) if grid[-1] < 500 else (1,))
    axes.set_ylabel(f"{model.metric.upper()} relative to full size")
    axes.legend(title="scale: complexity", fontsize=9, loc="lower left")
    axes.grid(alpha=0.3)


def _draw_width_law(axes: Any, plan: CompressionPlan, law: WidthLaw) -> None:
    width, full = (plan.family.width(channels, law.measure) for channels in (plan.channels, plan.full_channels))
    grid = np.geomspace(min(0.7 * width, law.narrowest or width), full, 40)
    found = [law.predict_interval(each, full) for each in grid]
    axes.plot(grid, [each.score for each in found], label="predicted")
    if plan.assumption is None:
        low, high = ([getattr(each, end) for each in found] for end in ("low", "high"))
        axes.fill_between(grid, low, high, alpha=0.15, label=f"{found[0].level:.0%} interval")
    axes.plot(width, law.predict(width, full), "o", color="C3", label="this plan")
    plain_log_axis(axes.xaxis, base=2, subdivided=(1,))
    axes.set_xlabel(WIDTH_WORDS[law.measure])
    axes.set_ylabel(f"{law.metric.upper()} relative to full size")
    axes.legend(fontsize=9, loc="lower right")
    axes.grid(alpha=0.3)


def draw_trade_off(plans: Sequence[CompressionPlan], chosen: CompressionPlan | None = None) -> Figure:
    """Draw the predicted score against the bytes of the file, with its interval.

    Args:
        plans: plans as :func:`~monai_ccnet.constraints.trade_off` returns them; each with a prediction.
        chosen: plan to highlight.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 3.8), layout="constrained")
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
    plain_log_axis(axes.xaxis, subdivided=(1, 3), unit="B")
    axes.set_xlabel("size of the file of weights, 32 bits each")
    metric = plans[0].degradation.metric if plans else "score"
    axes.set_ylabel(f"{metric.upper()} relative to full size")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right")
    return figure
