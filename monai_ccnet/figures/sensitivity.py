"""Figure of the sensitivity of each layer of a trained network, and of how far plans compress the layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.figures.canvas import Figure, plain_log_axis
from monai_ccnet.posttraining.sensitivity import SensitivityRow, planned_weights

__all__ = ["draw_sensitivity"]


def draw_sensitivity(rows: Sequence[SensitivityRow], plans: Mapping[str, CompressionPlan] | None = None) -> Figure:
    """Draw the score lost by pruning each layer against the weights removed, and how far plans compress it (Fig. 12).

    Args:
        rows: rows as :func:`~monai_ccnet.posttraining.layer_sensitivity` returns them; a dot is the mean over a layer's
            draws, and its bar spans the least to the most.
        plans: plans by their names in the legend; drawn is how many times fewer weights each layer has in a plan.
    """
    layers = list(dict.fromkeys(row.layer for row in rows))
    figure = Figure(figsize=(11 if plans else 6.4, 4.6), layout="constrained")
    panels = figure.subplots(1, 2 if plans else 1, squeeze=False)[0]
    for index, layer in enumerate(layers):
        own = [row for row in rows if row.layer == layer]
        losses = np.array([row.loss for row in own])
        mean, weights = losses.mean(), np.mean([row.weights_removed for row in own])
        spread = [[mean - losses.min()], [losses.max() - mean]]
        panels[0].errorbar(weights, mean, yerr=spread, marker="o", capsize=3, color=f"C{index % 10}")
        panels[0].annotate(f"L{index + 1}", (weights, mean), (5, 4), textcoords="offset points", fontsize=8)
    panels[0].axhline(0, color="k", linewidth=0.5)
    panels[0].set_xscale("log")
    panels[0].set_xlabel("kernel weights removed")
    panels[0].set_ylabel("relative loss of score")
    removed = sum(row.removed for row in rows) / max(1, sum(row.channels for row in rows))
    panels[0].set_title(f"{removed:.0%} of one layer's filters removed at random", fontsize=9)
    panels[0].grid(alpha=0.3)
    for place, (name, plan) in enumerate((plans or {}).items()):
        planned = planned_weights(plan)
        fewer = [full / left for full, left in (planned.get(layer, (1, 1)) for layer in layers)]
        panels[1].plot(range(1, len(layers) + 1), fewer, marker="osD^v"[place % 5], label=name)
    if plans:
        plain_log_axis(panels[1].yaxis, subdivided=(1,))
        panels[1].set_xticks(range(1, len(layers) + 1, 1 + len(layers) // 12))
        panels[1].set_xlabel("layer L")
        panels[1].set_ylabel("times fewer kernel weights in a plan")
        panels[1].legend(fontsize=8)
        panels[1].grid(alpha=0.3)
    figure.supxlabel("  ".join(f"L{index + 1} {layer}" for index, layer in enumerate(layers)), fontsize=6, wrap=True)
    return figure
