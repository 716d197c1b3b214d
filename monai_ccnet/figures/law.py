"""Figure of a law and of the networks that it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_ccnet.degradation import DegradationModel, DegradationPoint
from monai_ccnet.figures.canvas import Figure, plain_log_axis

__all__ = ["draw_degradation"]


def draw_degradation(model: DegradationModel, points: Sequence[DegradationPoint]) -> Figure:
    """Draw relative scores against compression with the fitted law, and slopes against complexity (Figs. 6-8).

    Args:
        model: law that was fitted to the points.
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
    plain_log_axis(left.xaxis)
    left.set_xlabel("times fewer weights")
    left.set_ylabel(f"{model.metric.upper()} relative to full size (x: failed to learn)")
    left.set_title("dots: trained networks, lines: the law at each data set's complexity", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
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
    left_out = "" if model.left_out_error is None else f", leave-one-out error {model.left_out_error:.3f}"
    right.set_title(f"{model.slope:.3g} x complexity {model.intercept:+.3g}{squared}{left_out}", fontsize=9)
    right.grid(alpha=0.3)
    return figure
