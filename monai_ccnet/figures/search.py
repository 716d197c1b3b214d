"""Figure of a search: the score on held-out images against size, for each network that was trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_ccnet.figures.canvas import PAGE_WIDTH, Figure, plain_log_axis

__all__ = ["draw_search"]


def draw_search(found: Mapping[str, Any]) -> Figure:
    """Draw the trainings of a search: one point each, a line through the means of each scale, a star on the answer.

    Args:
        found: what ``search.json`` holds. Bars are 90 % intervals of a mean by the noise that the search knows.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in found["trainings"] if row["has_learned"]]
    for colour, scale in enumerate(dict.fromkeys(row["scale"] for row in found["trainings"])):
        scores: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            if row["scale"] == scale:
                scores[row["file_bytes"]].append(row["f1"])
        sizes = sorted(scores)
        means = [float(np.mean(scores[size])) for size in sizes]
        counts = [len(scores[size]) for size in sizes]
        errors = [1.645 * found["noise"] * mean / n**0.5 for n, mean in zip(counts, means, strict=True)]
        name = "full resolution" if scale == "1" else f"1/{scale}"
        axes.errorbar(sizes, means, errors, fmt="o-", color=f"C{colour}", capsize=3, linewidth=1, label=name)
        every = [(size, score) for size in sizes for score in scores[size]]
        if every:
            axes.plot(*zip(*every, strict=True), "x", color=f"C{colour}", markersize=5)
    chosen = [row for row in rows if row["is_chosen"]]
    if chosen:
        mean = float(np.mean([row["f1"] for row in chosen]))
        axes.plot(chosen[0]["file_bytes"], mean, "*", color="C3", markersize=16, label="the answer", zorder=3)
        axes.annotate(chosen[0]["channels"], (chosen[0]["file_bytes"], mean), (8, -16), textcoords="offset points")
    plain_log_axis(axes.xaxis, subdivided=(1, 3), unit="B")
    axes.set_xlabel("size of the file of weights, 32 bits each")
    axes.set_ylabel(f"F1 on {found['held_out_images']} held-out training images")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="works at", loc="lower right")
    return figure
