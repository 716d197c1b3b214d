"""Pruning: removing the least important channels of a trained network until it fits a budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from monai_ccnet.constraints.budgets import Budget, InfeasibleConstraintError
from monai_ccnet.networks.memory import copy_of, on_meta
from monai_ccnet.networks.scaling import uncompiled
from monai_ccnet.posttraining.channels import ChannelGroup, check_plain, follow_channels
from monai_ccnet.posttraining.cutting import without_channels
from monai_ccnet.posttraining.importance import Losses, channel_importance
from monai_ccnet.posttraining.merging import without_channels_merged

__all__ = ["prune", "prune_share"]


def prune(
    network: torch.nn.Module,
    constraint: Budget | Sequence[Budget],
    *,
    input_shape: Sequence[int],
    importance: str = "taylor",
    losses: Losses | None = None,
    fine_tune: Callable[[torch.nn.Module], Any] | None = None,
    share: float = 0.1,
    merge: bool = False,
    rng: np.random.Generator | None = None,
) -> torch.nn.Module:
    """Return a pruned copy of a trained network that fits a budget.

    Pruning works in rounds, as in Molchanov et al. (2017, 2019): measure the importance of the channels of the current
    network, remove the least important ones of all layers, fine-tune the rest. The last round removes only as many as
    the budget requires; those that still fit are then restored, the most important first. Every layer keeps at least
    one channel.

    Sizes are counted on the network itself. No config can describe its irregular widths: save its state dict, and load
    it with :func:`~monai_ccnet.posttraining.load_pruned`.

    Args:
        network: trained network; it is not changed. Of a compiled or parallel one the inner network is pruned.
        constraint: one budget, or several that must all be met.
        input_shape: shape of an input that the network can take, ``(B, C, H, W[, D])``.
        importance: name of the importance, a key of :data:`~monai_ccnet.posttraining.IMPORTANCES`.
        losses: function that yields the loss of each batch for a network, for the importances that need data.
        fine_tune: function that trains the given network in place, called after each round. It needs a new optimizer
            each time, because the parameters are new.
        share: share of the remaining channels that a round removes, in (0, 1]; 1 makes a single round.
        merge: whether kept channels compensate for removed ones
            (:func:`~monai_ccnet.posttraining.without_channels_merged`).
        rng: generator of the random draws.

    Raises:
        InfeasibleConstraintError: if a budget is too small even for one channel per layer.
        ValueError: if no channel of the network can be removed, the importance is unknown, its data are missing, or a
            layer has weight_norm, spectral_norm or another parametrization: remove that first.
    """
    budgets = tuple(constraint) if isinstance(constraint, Sequence) else (constraint,)
    for budget in budgets:
        if not isinstance(budget, Budget):
            raise TypeError(f"a trained network is pruned to a budget, got {budget!r}: plan with compress() instead.")
    _check_share(share)
    rng, remove = rng or np.random.default_rng(), without_channels_merged if merge else without_channels
    network = uncompiled(network)
    check_plain(network)  # before the copy, which torch refuses of some
    network = copy_of(network)
    while not _fits(network, budgets):
        groups = follow_channels(network, input_shape)
        units = _units(groups, channel_importance(network, groups, importance, losses, rng))
        most = max(1, math.ceil(share * sum(map(len, groups))))
        network = remove(network, groups, _channels(groups, _least_that_fit(network, groups, units, budgets, most)))
        if fine_tune is not None:
            fine_tune(network)
    return network


def prune_share(
    network: torch.nn.Module,
    share: float,
    *,
    input_shape: Sequence[int],
    importance: str = "l1",
    losses: Losses | None = None,
    layers: Iterable[str] | None = None,
    merge: bool = False,
    rng: np.random.Generator | None = None,
) -> torch.nn.Module:
    """Return a copy of a trained network without a share of the least important channels of each layer.

    Li et al. (2017) prune in this way, in one shot, and Kim et al. (2020) before merging.

    Args:
        network: trained network; it is not changed. Of a compiled or parallel one the inner network is pruned.
        share: share of each layer's channels to remove, above 0 and at most 1, rounded down; at least one stays.
        input_shape: shape of an input that the network can take, ``(B, C, H, W[, D])``.
        importance: name of the importance, a key of :data:`~monai_ccnet.posttraining.IMPORTANCES`.
        losses: function that yields the loss of each batch for a network, for the importances that need data.
        layers: names of convolutions, as ``network.named_modules()`` gives them; if ``None``, all.
        merge: whether kept channels compensate for removed ones.
        rng: generator of the random draws.

    Raises:
        ValueError: if the share is out of range, no channel can be removed from one of the layers, or a layer has
            weight_norm, spectral_norm or another parametrization: remove that first.
    """
    _check_share(share)
    network = uncompiled(network)
    groups = follow_channels(network, input_shape)
    wanted = {layer for group in groups for layer in group.layers} if layers is None else set(layers)
    if unknown := sorted(wanted - {layer for group in groups for layer in group.layers}):
        raise ValueError(f"no channel of {unknown[0]!r} can be removed: name a convolution other than the last.")
    units = _units(groups, channel_importance(network, groups, importance, losses, rng))
    removed: list[tuple[int, ...]] = []
    for index, group in enumerate(groups):
        own = [unit for unit in units if unit.group == index]
        count = math.floor(share * len(group) / group.blocks) if wanted.intersection(group.layers) else 0
        removed.append(tuple(itertools.chain.from_iterable(unit.channels for unit in own[:count])))
    return (without_channels_merged if merge else without_channels)(network, groups, removed)


class _Unit(NamedTuple):
    """Channels of a group that are removed together: one, or one of each block of a group normalisation."""

    importance: float
    group: int
    channels: tuple[int, ...]


def _units(groups: Sequence[ChannelGroup], importance: Sequence[torch.Tensor]) -> list[_Unit]:
    """Return what can be removed, the least important first; one unit of each group stays out."""
    units = []
    for index, (group, scores) in enumerate(zip(groups, importance, strict=True)):
        blocks = np.asarray(scores, dtype=float).reshape(group.blocks, -1)
        order = blocks.argsort(axis=1, kind="stable")
        first = np.arange(group.blocks) * blocks.shape[1]
        ranked = np.take_along_axis(blocks, order, axis=1).mean(axis=0)
        for rank, mean in enumerate(ranked[:-1]):
            units.append(_Unit(float(mean), index, tuple((first + order[:, rank]).tolist())))
    return sorted(units)


def _least_that_fit(
    network: torch.nn.Module,
    groups: Sequence[ChannelGroup],
    units: Sequence[_Unit],
    budgets: Sequence[Budget],
    most: int,
) -> list[_Unit]:
    """Return as few of the least important units as make the network fit, or those of ``most`` channels if none do."""
    shapes = on_meta(network)

    def fit(chosen: Sequence[_Unit]) -> bool:
        return _fits(without_channels(shapes, groups, _channels(groups, chosen)), budgets)

    channels = list(itertools.accumulate(len(unit.channels) for unit in units))
    count = sum(1 for total in channels if total <= most) or min(1, len(units))
    if not fit(units[:count]):
        if count == len(units):
            least = without_channels(shapes, groups, _channels(groups, units))
            raise InfeasibleConstraintError(_too_small(least, budgets))
        return list(units[:count])
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fit(units[:middle]) else (middle, high)
    return _with_what_fits(list(units[:high]), fit)


def _with_what_fits(chosen: list[_Unit], fit: Callable[[Sequence[_Unit]], bool]) -> list[_Unit]:
    """Restore what still fits. Channels of a group cost the same, so a group is full if its best does not fit."""
    full: set[int] = set()
    for unit in reversed(list(chosen)):
        if unit.group not in full:
            others = [other for other in chosen if other is not unit]
            if fit(others):
                chosen = others
            else:
                full.add(unit.group)
    return chosen


def _channels(groups: Sequence[ChannelGroup], units: Iterable[_Unit]) -> list[list[int]]:
    removed: list[list[int]] = [[] for _ in groups]
    for unit in units:
        removed[unit.group].extend(unit.channels)
    return removed


def _fits(network: torch.nn.Module, budgets: Iterable[Budget]) -> bool:
    return all(budget.needed(network) <= budget.limit for budget in budgets)


def _too_small(least: torch.nn.Module, budgets: Iterable[Budget]) -> str:
    budget = next(budget for budget in budgets if budget.needed(least) > budget.limit)
    return (
        f"{budget} is not enough: pruned to one channel per layer, the network still needs "
        f"{budget.words(budget.needed(least))}. Raise the budget to at least that, or start from a smaller network."
    )


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}.")
