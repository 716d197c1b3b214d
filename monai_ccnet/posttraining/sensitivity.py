"""Sensitivity of each layer of a trained network: the score lost when only this layer is pruned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch.nn.modules.conv import _ConvNd

from monai_ccnet.constraints.plan import CompressionPlan
from monai_ccnet.files import csv_rows
from monai_ccnet.networks.building import build_network
from monai_ccnet.networks.scaling import inner_def, uncompiled
from monai_ccnet.networks.size import kernel_weights
from monai_ccnet.posttraining.channels import follow_channels
from monai_ccnet.posttraining.pruning import prune_share
from monai_ccnet.values import Value

__all__ = ["SensitivityRow", "layer_sensitivity", "planned_weights", "save_sensitivity"]


@dataclass(frozen=True)
class SensitivityRow(Value):
    """One layer pruned once.

    Attributes:
        layer: name of the convolution, as ``network.named_modules()`` gives it.
        draw: number of the draw, from 0.
        channels: number of channels of the layer before pruning.
        removed: number of channels removed.
        weights_removed: number of kernel weights removed with them, in the layer and in those that read it.
        full_score: score of the network before pruning.
        score: score of the pruned network, without further training.
    """

    layer: str
    draw: int
    channels: int
    removed: int
    weights_removed: int
    full_score: float
    score: float

    @property
    def loss(self) -> float:
        """Score lost, relative to that of the network before pruning."""
        return 1 - self.score / self.full_score


def layer_sensitivity(
    network: torch.nn.Module,
    evaluate: Callable[[torch.nn.Module], float],
    *,
    input_shape: Sequence[int],
    share: float = 0.3,
    draws: int = 3,
    layers: Iterable[str] | None = None,
    rng: np.random.Generator | None = None,
) -> list[SensitivityRow]:
    """Prune a random share of each layer in turn, and return the score that each costs.

    Fig. 12(a) and section 6 of Mishra, Chen and Hu, who prune 30 % of each layer of the encoder once. Here the filters
    are really removed, with the weights that read them, and each layer is drawn several times. Layers whose outputs are
    added up can only be pruned together; they make one row under the name of the first.

    Args:
        network: trained network; it is not changed.
        evaluate: function that returns the score of a network, above 0 for this one.
        input_shape: shape of an input that the network can take, ``(B, C, H, W[, D])``.
        share: share of the layer's channels to remove, in (0, 1), rounded down; a layer that would lose none is
            skipped.
        draws: number of draws for each layer.
        layers: names of convolutions; if ``None``, all whose channels can be removed.
        rng: generator of the draws.

    Raises:
        ValueError: if a number is out of range, no channel of a layer can be removed, or the network's score is not
            above 0.
    """
    if draws < 1 or not 0 < share < 1:
        raise ValueError(f"draws must be at least 1 and share in (0, 1), got {draws!r} and {share!r}.")
    network = uncompiled(network)
    groups = {group.layers[0]: group for group in follow_channels(network, input_shape)}
    wanted = list(groups) if layers is None else list(layers)
    if unknown := [layer for layer in wanted if layer not in groups]:
        raise ValueError(f"no channel of {unknown[0]!r} can be removed; choose from: {', '.join(groups)}.")
    full_score, weights, rng = float(evaluate(network)), kernel_weights(network), rng or np.random.default_rng()
    if not full_score > 0:
        raise ValueError(f"the network's own score must be above 0, got {full_score!r}: train it first.")
    rows = []
    for layer in wanted:
        group = groups[layer]
        removed = group.blocks * int(share * len(group) / group.blocks)
        for draw in range(draws if removed else 0):
            pruned = prune_share(network, share, input_shape=input_shape, importance="random", layers=[layer], rng=rng)
            lighter = weights - kernel_weights(pruned)
            score = float(evaluate(pruned))
            rows.append(SensitivityRow(layer, draw, len(group), removed, lighter, full_score, score))
    return rows


def planned_weights(plan: CompressionPlan) -> dict[str, tuple[int, int]]:
    """Return the kernel weights of each layer, full-size and planned: Fig. 12(b) of Mishra, Chen and Hu.

    Returns:
        Both counts by the names of the layers that hold kernels, in the order of the network's own modules.

    >>> from monai_ccnet.constraints import DiskBudget, compress
    >>> unet = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [64, 128]}
    >>> plan = compress(unet, DiskBudget(400_000), layerwise=False)
    >>> plan.channels, planned_weights(plan)["encoder.0.1.conv"]  # 64 x 64 x 9 and 31 x 31 x 9
    ((31, 63), (36864, 8649))
    """
    full, narrow = (_kernels(each) for each in (plan.family.network_def, plan.network_def))
    return {layer: (count, narrow[layer]) for layer, count in full.items()}


def save_sensitivity(path: str | os.PathLike, rows: Sequence[SensitivityRow]) -> None:
    """Write rows as CSV, atomically: the attributes of :class:`SensitivityRow` and the loss."""
    with csv_rows(path, [*(field.name for field in fields(SensitivityRow)), "loss"]) as write_row:
        for row in rows:
            write_row([*astuple(row), row.loss])


def _kernels(network_def: Mapping[str, Any]) -> dict[str, int]:
    network = build_network(inner_def(network_def), device="meta")
    return {
        name: module.weight.numel()
        for name, module in network.named_modules()
        if isinstance(module, (_ConvNd, torch.nn.Linear))
    }
