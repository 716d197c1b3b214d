"""A budget or a floor -> the plan of a narrower network.

Every budget is solved against the true count of the narrowed network, never against a formula for it.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from monai.utils import look_up_option

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.budgets import AccuracyFloor, Budget, DiskBudget, InfeasibleConstraintError, LatencyBudget
from monai_ccnet.constraints.plan import CompressionPlan
from monai_ccnet.degradation import DegradationModel, Prediction, inverse_log_compression
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.narrowing import check_input_shape, default_input_shape, widths_of, with_widths
from monai_ccnet.networks.size import disk_bytes, kernel_weights, network_size

__all__ = ["ALLOCATIONS", "compress", "compress_once", "predicted_by", "trade_off", "with_fewer_filters"]

Channels = tuple[int, ...]

ALLOCATIONS = ("complexity", "taper")

# Width of a stage per width of the stage above it, in a tapered network: what did best among those tried.
_TAPER = 0.84

# Relative loss of score per decade of weights that a plan counts on at least, where the model has measured none.
_LEAST_LOSS = 1e-4


def compress(
    network_def: Mapping[str, Any],
    constraint: Budget | AccuracyFloor | Sequence[Budget | AccuracyFloor],
    *,
    complexity: ComplexityProfile | None = None,
    degradation: DegradationModel | None = None,
    layerwise: bool = True,
    allocation: str = "complexity",
    input_shape: Sequence[int] | None = None,
) -> CompressionPlan:
    """Plan the narrowest network that keeps to a floor, or the widest that fits a budget.

    A uniform plan has one multiplier, to the nearest width that the network can have, and its predicted score comes
    from the complexity at the input's scale and the true number of weights. A layer-wise plan has a width of its own
    for each stage, by one of two rules:

    - ``allocation="complexity"`` (sections 4.1 and 4.2 of the paper): every stage loses the same share of the score at
      the complexity of its own scale, widths rounded up; the predicted score is that of the most degraded stage. Where
      the model sees next to no loss at a scale, a stage is still at least half as wide as the one before it.
    - ``allocation="taper"`` (ours): each stage is 0.84 times as wide as the one at twice its resolution. It was the
      best of the rules tried at equal bytes, most of all for very small networks, and no worse than any at equal
      multiply-adds, of which it takes more at equal bytes. The predicted score is that of a uniform plan with as many
      weights.

    For a floor no network is planned beyond what the model was measured at, in compression and in weights: where next
    to nothing is lost down to there, that is as far as one can know. A budget may lead further, and the plan says so.

    Of several constraints, each is planned for. Budgets are met by the narrowest of their plans. A floor beside budgets
    asks for the narrowest network that reaches it, which must fit them all. The plan names the constraint that binds.

    A network whose stages all follow from one width (SegResNet, SegResNetDS, MedNeXt, SwinUNETR, UNETR) has a uniform
    plan whatever ``layerwise`` says, and the plan says so: ``plan.layerwise`` is ``False``.

    Args:
        network_def: the full-size network's MONAI config, with references resolved.
        constraint: a :class:`DiskBudget`, a :class:`MemoryBudget`, a :class:`ComputeBudget`, a :class:`LatencyBudget`
            or an :class:`AccuracyFloor`, or several.
        complexity: profile of the data set; a uniform plan for a budget needs none.
        degradation: how fast the network loses accuracy; must hold for the profile's settings.
        layerwise: whether each stage gets a multiplier of its own, where it has a width of its own.
        allocation: by which rule, if so: one of ``ALLOCATIONS``.
        input_shape: ``(B, C, H, W[, D])`` for which multiply-adds and memory are stated; if ``None``, one image of the
            paper's 128 x 128 patches or of 64 x 64 x 64 in 3-D, or of the next size that the network takes.

    Raises:
        InfeasibleConstraintError: if no width meets the constraint, with the smallest size that can be had.
        ValueError: if the profile or the model is missing, their settings differ, a scale is missing, or the network
            cannot take an input of the shape given.

    >>> unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    >>> compress(unet, DiskBudget(1_000_000, bits_per_weight=64, count="weights"), layerwise=False).channels
    (4, 8, 16, 32, 65)
    """
    network_def = network_def_of(network_def)
    constraints = _as_tuple(constraint)
    stages = widths_of(network_def)
    layerwise = layerwise and stages.layerwise
    allocation = look_up_option(allocation, ALLOCATIONS)
    by_complexity = layerwise and allocation == "complexity"
    given: dict[str, Any] = {
        "complexity": complexity,
        "degradation": degradation,
        "layerwise": layerwise,
        "allocation": allocation,
    }
    scales = stages.scales if by_complexity else (1,)
    input_shape = tuple(input_shape) if input_shape is not None else default_input_shape(network_def)
    check_input_shape(network_def, input_shape)
    losses = _losses_per_decade(complexity, degradation, scales)
    if losses is None and (by_complexity or any(isinstance(each, AccuracyFloor) for each in constraints)):
        raise ValueError(
            "a layer-wise plan by complexity and an accuracy floor need complexity= (measure_dataset) and degradation= "
            "(DegradationModel); without them a budget can be planned with layerwise=False or allocation='taper'."
        )
    full_size = network_size(network_def, input_shape)
    curvature = degradation.curvature if degradation is not None else 0.0

    def uniform(decades: float) -> Channels:
        return stages.nearest([10.0**-decades] * len(stages.widths))

    def tapered(decades: float) -> Channels:
        shares = [_TAPER ** math.log2(scale) / width for scale, width in zip(stages.scales, stages.widths, strict=True)]
        return stages.nearest([min(1.0, 10.0**-decades * share / min(shares)) for share in shares])

    def layered(loss: float) -> Channels:
        assert losses is not None
        compressions = [inverse_log_compression(loss / per_decade, curvature) for per_decade in losses]
        widths = [width * compression**-0.5 for width, compression in zip(stages.widths, compressions, strict=True)]
        widths = list(itertools.accumulate(widths, lambda above, width: max(width, above / 2)))
        return stages.nearest([min(1.0, w / width) for w, width in zip(widths, stages.widths, strict=True)], up=True)

    def compression_of(channels: Channels) -> float:
        return max(1.0, full_size.weights / kernel_weights(with_widths(network_def, channels)))

    one_number = tapered if layerwise else uniform
    channels_at, smallest = layered if by_complexity else one_number, stages.nearest([0.0] * len(stages.widths))

    def within(budget: Budget) -> Channels:
        @functools.cache
        def needed(channels: Channels) -> float:
            return budget.needed(with_widths(network_def, channels))

        if (least := needed(smallest)) > budget.limit:
            raise InfeasibleConstraintError(
                f"no width fits: asked for {budget}, and with {'-'.join(map(str, smallest))} channels the network "
                f"still needs {budget.words(least)}. Allow as much, or take fewer stages."
            )

        def excess(channels: Channels) -> float:
            """Return decades above the budget: nearly a line, when what no width can save is taken off first."""
            slack = 0.5 * min(1.0, budget.limit)
            return math.log10((max(0.0, needed(channels) - least) + slack) / (budget.limit - least + slack))

        channels = _crossing(channels_at, excess, smallest)[1]
        return channels if budget.holds_again(with_widths(network_def, channels)) else within(budget)

    def above(floor: AccuracyFloor) -> Channels:
        assert degradation is not None
        assert complexity is not None
        model, at_input = degradation, complexity.at(1)
        most = model.covered_compression(full_size.weights)
        if by_complexity:
            asked, measured = layered(1 - floor.min_score), stages.nearest([most**-0.5] * len(stages.widths))
            return tuple(map(max, asked, measured))
        return _crossing(
            one_number,
            lambda c: min(model.predict(at_input, compression_of(c)) - floor.min_score, most / compression_of(c) - 1),
            smallest,
        )[0]

    budgets = [(within(each), each) for each in constraints if isinstance(each, Budget)]
    floors = [(above(each), each) for each in constraints if isinstance(each, AccuracyFloor)]
    channels, binding = max(floors, key=lambda pair: sum(pair[0])) if floors else min(budgets, key=lambda p: sum(p[0]))
    for widest, budget in budgets:
        if any(width > most for width, most in zip(channels, widest, strict=True)):
            reached = compress(network_def, budget, **given) if floors else None
            raise InfeasibleConstraintError(
                f"no width meets all: {binding} takes {'-'.join(map(str, channels))} channels, and {budget} allows no "
                f"more than {'-'.join(map(str, widest))}"
                + (f", predicted {reached.predicted.score:.1%}" if reached is not None and reached.predicted else "")
                + ". Lower the floor or raise the budget."
            )

    narrowed = with_widths(network_def, channels)
    size = network_size(narrowed, input_shape)
    multipliers = tuple(width / base for width, base in zip(channels, stages.widths, strict=True))
    predicted = None
    if degradation is not None and complexity is not None:
        shares = multipliers if by_complexity else None
        predicted = _least_predicted(degradation, complexity, full_size.weights / size.weights, scales, shares)
    clocks = [each for each in constraints if isinstance(each, LatencyBudget)]
    return CompressionPlan(
        network_def=narrowed,
        multipliers=multipliers,
        channels=channels,
        size=size,
        full_size=full_size,
        predicted=predicted,
        constraint=binding,
        layerwise=layerwise,
        allocation=allocation if layerwise else None,
        complexity=complexity,
        degradation=degradation,
        constraints=constraints,
        latency=clocks[0].compared(network_def, narrowed) if clocks else None,
    )


def with_fewer_filters(plan: CompressionPlan, count: int) -> CompressionPlan:
    """Return a plan with fewer filters in each stage than it has, and what is then predicted: ε in the paper's Table 9.

    What was planned for a floor is the narrowest network that keeps to it, so that this one is predicted below.

    Args:
        plan: made with a profile and a model, or not.
        count: of the filters that each stage loses, as far as it has more than one.

    Raises:
        ValueError: if the network cannot have such widths.
    """
    full = [round(width / share) for width, share in zip(plan.channels, plan.multipliers, strict=True)]
    channels = tuple(max(1, width - count) for width in plan.channels)
    network_def = with_widths(plan.network_def, channels)
    size = network_size(network_def, plan.size.input_shape)
    multipliers = tuple(width / base for width, base in zip(channels, full, strict=True))
    narrower = replace(plan, network_def=network_def, multipliers=multipliers, channels=channels, size=size)
    if plan.degradation is None or plan.complexity is None:
        return narrower
    return replace(narrower, predicted=predicted_by(narrower, plan.complexity, plan.degradation))


def predicted_by(plan: CompressionPlan, complexity: ComplexityProfile, degradation: DegradationModel) -> Prediction:
    """Return what a law predicts of a plan's network; its own law, or one of another metric.

    Args:
        plan: of which only the network's widths and sizes count.
        complexity: of the data set, by the measure that the law holds for.
        degradation: the law.

    Raises:
        ValueError: if the profile's settings are not the model's, or a scale is missing.
    """
    scales = widths_of(plan.network_def).scales if plan.allocation == "complexity" else (1,)
    _losses_per_decade(complexity, degradation, scales)
    shares = plan.multipliers if plan.allocation == "complexity" else None
    return _least_predicted(degradation, complexity, plan.compression, scales, shares)


def _least_predicted(
    degradation: DegradationModel,
    complexity: ComplexityProfile,
    compression: float,
    scales: Sequence[int],
    shares: Sequence[float] | None,
) -> Prediction:
    """Return what is predicted for the whole network, or for its most degraded stage if each has a share of its own."""
    cases = [(complexity.at(1), max(1.0, compression))]
    if shares is not None:
        cases = [(complexity.at(scale), share**-2) for scale, share in zip(scales, shares, strict=True)]
    return min((degradation.predict_interval(*case) for case in cases), key=lambda prediction: prediction.score)


def compress_once(
    path: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraint: Budget | AccuracyFloor | Sequence[Budget | AccuracyFloor],
    *,
    layerwise: bool = True,
    allocation: str = "complexity",
    input_shape: Sequence[int] | None = None,
    **known: Any,
) -> CompressionPlan:
    """Return the plan that a file holds if it was made for all that is given, else make and save one.

    Args:
        path: the file, such as ``plan.json``.
        network_def: as in :func:`compress`, which makes a new one, as are the others.
        constraint: what the plan is for.
        layerwise: whether each stage gets a multiplier of its own.
        allocation: by which rule, if so.
        input_shape: for which multiply-adds and activations are stated; ``None`` is content with any.
        known: ``complexity`` and ``degradation``.
    """
    network_def = network_def_of(network_def)
    if os.path.exists(path):
        plan, stages = CompressionPlan.load(path), widths_of(network_def)
        full = tuple(round(width / share) for width, share in zip(plan.channels, plan.multipliers, strict=True))
        made_for = (plan.constraints, plan.layerwise, plan.allocation, plan.complexity, plan.degradation, full)
        asked = (
            _as_tuple(constraint),
            layerwise and stages.layerwise,
            allocation if layerwise and stages.layerwise else None,
            known.get("complexity"),
            known.get("degradation"),
        )
        if (
            made_for == (*asked, stages.widths)
            and plan.network_def == json.loads(json.dumps(with_widths(network_def, plan.channels)))  # lists for tuples
            and (input_shape is None or tuple(input_shape) == plan.size.input_shape)
        ):
            return plan
    plan = compress(
        network_def, constraint, layerwise=layerwise, allocation=allocation, input_shape=input_shape, **known
    )
    plan.save(path)
    return plan


def trade_off(network_def: Mapping[str, Any], *, points: int = 12, **given: Any) -> list[CompressionPlan]:
    """Plan for a range of disk budgets, so that one can choose: size against predicted score, with its interval.

    Args:
        network_def: the full-size network's MONAI config, with references resolved.
        points: number of budgets, evenly spaced in decades from the narrowest network's file to the full-size one's.
        given: ``complexity``, ``degradation``, ``layerwise``, ``allocation``, ``input_shape``, as in :func:`compress`.

    Returns:
        The plans that differ, the smallest first. :func:`monai_ccnet.figures.draw_trade_off` draws them.
    """
    network_def = network_def_of(network_def)
    stages = widths_of(network_def)
    smallest = stages.nearest([0.0] * len(stages.widths))
    most, least = disk_bytes(network_def), disk_bytes(with_widths(network_def, smallest))
    budgets = [round(least * (most / least) ** (index / (points - 1))) for index in range(points)]
    plans = [compress(network_def, DiskBudget(budget), **given) for budget in [*budgets[:-1], most]]
    return list({plan.channels: plan for plan in plans}.values())


def _as_tuple(
    constraint: Budget | AccuracyFloor | Iterable[Budget | AccuracyFloor],
) -> tuple[Budget | AccuracyFloor, ...]:
    constraints = (constraint,) if isinstance(constraint, (Budget, AccuracyFloor)) else tuple(constraint)
    if not constraints or not all(isinstance(each, (Budget, AccuracyFloor)) for each in constraints):
        raise TypeError(f"a plan needs a budget or a floor, or several; got {constraint!r}.")
    return constraints


def _losses_per_decade(
    complexity: ComplexityProfile | None, degradation: DegradationModel | None, scales: Sequence[int]
) -> list[float] | None:
    """Return the loss of score per decade of weights of each stage, ``None`` without a profile or a model."""
    if complexity is None or degradation is None:
        return None
    degradation.check_settings(complexity.settings)
    if missing := sorted(set(scales) - set(complexity.scales)):
        raise ValueError(
            f"the network has stages at the scales {tuple(scales)}, the profile of {complexity.dataset!r} only "
            f"{complexity.scales}: measure the data set again with scale {', '.join(map(str, missing))} too."
        )
    return [max(_LEAST_LOSS, degradation.loss_per_decade(complexity.at(scale))) for scale in scales]


def _crossing(
    channels_at: Callable[[float], Channels], height: Callable[[Channels], float], smallest: Channels
) -> tuple[Channels, Channels]:
    """Return the last channels at which a falling height is above 0 and the first at which it is not.

    The channels fall as ``x`` grows from 0, at last to the smallest. If the height is never above 0, or always, both
    are the widest or both the smallest. Heights are found by building networks, so a few must do: the next is where the
    line through the last two is 0, or in the middle if three lines did not halve the interval.
    """
    known: dict[Channels, float] = {}

    def height_at(x: float) -> float:
        channels = channels_at(x)
        if channels not in known:
            known[channels] = height(channels)
        return known[channels]

    low, high = 0.0, 1.0
    if height_at(low) <= 0:
        return channels_at(low), channels_at(low)
    while channels_at(high) != smallest:
        high *= 2
    high = _reaches(channels_at, low, high)[1]
    if height_at(high) > 0:
        return smallest, smallest
    before, last, lines, length = low, high, 0, high - low
    while True:
        wide, narrow = channels_at(low), channels_at(high)
        next_narrower = _leaves(channels_at, low, high)
        if channels_at(next_narrower) == narrow:
            return wide, narrow
        next_wider = _reaches(channels_at, next_narrower, high)[0]
        x, rise = (low + high) / 2, height_at(last) - height_at(before)
        if lines < 3 and rise != 0:
            x = last - height_at(last) * (last - before) / rise
        x = min(max(x, next_narrower), next_wider)
        before, last, lines = last, x, lines + 1
        low, high = (x, high) if height_at(x) > 0 else (low, x)
        if high - low < length / 2:
            lines, length = 0, high - low


def _leaves(channels_at: Callable[[float], Channels], low: float, high: float) -> float:
    """Return the first x at which the channels are others than at the low end."""
    wide = channels_at(low)
    return _edge(lambda x: channels_at(x) != wide, low, high)[1]


def _edge(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return the last x at which a condition does not hold yet and the first at which it does, by bisection."""
    while high - low > 1e-13 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _reaches(channels_at: Callable[[float], Channels], low: float, high: float) -> tuple[float, float]:
    """Return the last x at which the channels are others than at the high end, and the first at which they are not."""
    narrow = channels_at(high)
    return _edge(lambda x: channels_at(x) == narrow, low, high)
