"""Neuron merging: kept channels compensate for removed ones, without data or training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from monai_ccnet.networks.memory import copy_of
from monai_ccnet.posttraining.channels import ChannelGroup, check_plain
from monai_ccnet.posttraining.cutting import filters_of, without_channels

__all__ = ["Merge", "most_similar", "without_channels_merged"]


class Merge(NamedTuple):
    """A removed channel, approximated by a kept one times a scale."""

    removed: int
    kept: int
    scale: float  # above 0, because ReLU preserves only such scales
    similarity: float  # cosine of the two filters


def without_channels_merged(
    network: torch.nn.Module,
    groups: Sequence[ChannelGroup],
    removed: Sequence[Collection[int]],
    similarity_weight: float = 0.85,
    least_similarity: float = 0.1,
) -> torch.nn.Module:
    """Return a copy of a network without channels, whose next layers read the most similar kept channels instead.

    Kim et al. (NeurIPS 2020): the filters of a layer are decomposed into the kept ones and a scaling matrix. ReLU
    preserves scales above 0, so the matrix can be multiplied into the next layer's kernel. In a U-Net a channel has
    several next layers: transposed convolutions have their inputs on the first axis, and layers behind a concatenation
    have them at shifted positions. A channel is merged only with one of its own group. Layers are merged in the order
    in which they run.

    Channels are removed without merging if they are sums of several layers' outputs, if group normalisation or a second
    normalisation follows, or if they pass an activation other than ReLU and leaky ReLU.

    Args:
        network: trained network; it is not changed.
        groups: groups of its channels, as :func:`~monai_ccnet.posttraining.channels.follow_channels` returns them.
        removed: indices of the channels to remove from each group, counted from 0.
        similarity_weight: weight of the cosine distance in :func:`most_similar`, in [0, 1]; the paper tunes it for each
            network.
        least_similarity: least cosine similarity to a kept channel for merging, in [-1, 1]; the paper tunes it too.
    """
    if not (0 <= similarity_weight <= 1 and -1 <= least_similarity <= 1):
        raise ValueError(
            "similarity_weight must lie in [0, 1] and least_similarity in [-1, 1], got "
            f"{similarity_weight!r} and {least_similarity!r}."
        )
    check_plain(network)
    merged = copy_of(network)
    for group, channels in zip(groups, removed, strict=True):
        merges: list[Merge] = []
        if channels and (folded := _folded(merged, group)) is not None:
            kept = sorted(set(range(len(group))) - set(channels))
            merges = most_similar(*folded, kept, sorted(channels), similarity_weight)
        for place in group.places:
            if place.side == "in":
                inputs = filters_of(merged.get_submodule(place.layer)).transpose(0, 1)  # a view of the layer's own
                for merge in merges:
                    if merge.similarity >= least_similarity:
                        inputs[place.positions[merge.kept]] += merge.scale * inputs[place.positions[merge.removed]]
                inputs[[place.positions[channel] for channel in channels]] = 0
    return without_channels(merged, groups, removed)


def most_similar(
    filters: torch.Tensor,
    biases: torch.Tensor,
    kept: Sequence[int],
    removed: Sequence[int],
    similarity_weight: float = 0.85,
) -> list[Merge]:
    """Return for each removed filter the kept one that replaces it best, and its scale.

    The distance is ``w * (1 - cosine) + (1 - w) * |bias mismatch| / scale`` (Kim et al. 2020, Algorithm 3), where the
    scale is the ratio of the filters' norms and the mismatch is what scaling leaves of the removed filter's bias.

    Args:
        filters: filters, one per row, ``(C, ...)``, with the normalisation folded in.
        biases: biases of the filters, ``(C,)``, with the normalisation folded in.
        kept: rows of the kept filters.
        removed: rows of the removed filters.
        similarity_weight: weight ``w`` of the cosine distance, in [0, 1].

    >>> filters = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> most_similar(filters, torch.zeros(3), kept=[0, 1], removed=[2])
    [Merge(removed=2, kept=1, scale=3.0, similarity=1.0)]
    """
    rows, tiny = filters.flatten(1).double(), torch.finfo(torch.float64).tiny
    norms = rows.norm(dim=1)
    directions = rows / norms.clamp_min(tiny)[:, None]
    similarity = (directions[list(removed)] @ directions[list(kept)].T).clamp(-1, 1)
    scale = norms[list(removed)][:, None] / norms[list(kept)].clamp_min(tiny)[None]
    mismatch = biases.double()[list(removed)][:, None] - scale * biases.double()[list(kept)][None]
    distance = similarity_weight * (1 - similarity) + (1 - similarity_weight) * mismatch.abs() / scale.clamp_min(tiny)
    best = distance.nan_to_num(torch.inf).argmin(dim=1).tolist()
    return [
        Merge(channel, kept[column], float(scale[row, column]), float(similarity[row, column]))
        for row, (channel, column) in enumerate(zip(removed, best, strict=True))
    ]


def _folded(network: torch.nn.Module, group: ChannelGroup) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the filters and biases that do what a convolution and its normalisation do, or ``None`` if none do.

    Batch normalisation scales a filter by gamma / sigma. The paper's two cases in one: where a gamma is below zero, the
    folded filter points the other way, and similarity is measured on that. Instance normalisation sets a filter's scale
    to gamma.
    """
    normed = [place.layer for place in group.places if place.side == "each"]
    if len(group.layers) != 1 or not group.homogeneous or normed != [group.norm] * len(normed):
        return None
    layer = network.get_submodule(group.layers[0])
    (positions,) = (list(place.positions) for place in group.places if place.side == "out")
    filters = filters_of(layer)[positions]
    biases = layer.bias.detach()[positions] if isinstance(layer.bias, torch.Tensor) else filters.new_zeros(len(filters))
    if group.norm is None:
        return filters, biases
    norm = network.get_submodule(group.norm)
    gamma = norm.weight.detach() if isinstance(norm.weight, torch.Tensor) else filters.new_ones(len(filters))
    beta = norm.bias.detach() if isinstance(norm.bias, torch.Tensor) else filters.new_zeros(len(filters))
    if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
        scale = gamma / (norm.running_var + norm.eps).sqrt()
        biases = beta + scale * (biases - norm.running_mean)
    elif isinstance(norm, _InstanceNorm) and norm.running_mean is None:
        scale = gamma / filters.flatten(1).norm(dim=1).clamp_min(torch.finfo(filters.dtype).tiny)
        biases = beta
    else:
        return None
    return filters * scale.reshape(-1, *(1,) * (filters.dim() - 1)), biases
