"""Planning a narrower network for budgets and accuracy floors.

Every budget is checked against the exact count of the narrowed network, not against a formula.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from monai.utils import look_up_option

from monai_ccnet.complexity.ceiling import LabelCeiling
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.allocation import ALLOCATIONS, Channels, Rule, by_complexity, tapered, uniform
from monai_ccnet.constraints.budgets import (
    AccuracyFloor,
    Budget,
    InfeasibleConstraintError,
    LatencyBudget,
)
from monai_ccnet.constraints.outlook import Outlook
from monai_ccnet.constraints.plan import CompressionPlan, floor_of
from monai_ccnet.constraints.scale import coarser_scales, working_scale
from monai_ccnet.constraints.search import crossing
from monai_ccnet.degradation import DegradationModel, Law, law_named
from monai_ccnet.names import named_in
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.finding import without_a_stage
from monai_ccnet.networks.size import NetworkSize, network_size
from monai_ccnet.networks.widths import Widths, known_widths
from monai_ccnet.scales import Scale, scale_words

__all__ = ["compress", "compress_once", "least_needed", "plan_at"]

Constraint = Budget | AccuracyFloor


def compress(
    network_def: Mapping[str, Any] | NetworkFamily,
    constraint: Constraint | Sequence[Constraint],
    *,
    complexity: ComplexityProfile | None = None,
    degradation: Law | None = None,
    layerwise: bool = True,
    allocation: str | None = None,
    input_shape: Sequence[int] | None = None,
    widths: Widths | Mapping[str, Any] | str | None = None,
    scale: int | Sequence[int] | str = 1,
    ceiling: LabelCeiling | None = None,
    image_shape: Sequence[int] | None = None,
) -> CompressionPlan:
    """Plan the narrowest network that meets a floor, or the widest that fits a budget.

    A uniform plan has one multiplier, rounded to possible widths. Its predicted score comes from the complexity at the
    input's scale and the exact number of weights. A layer-wise plan has a separate width for each stage, by one of two
    rules:

    - ``allocation="taper"`` (ours): each stage is 0.84 times as wide as the one at twice its resolution. Of the
      rules tried it was the best at equal bytes, most of all for very small networks, and no worse than any at equal
      multiply-adds; at equal bytes it needs more of these. The predicted score is that of a uniform plan with as many
      weights.
    - ``allocation="complexity"`` (sections 4.1 and 4.2 of the paper): every stage loses the same share of the score at
      the complexity of its own scale, widths rounded up; the predicted score is that of the most degraded stage.

    A floor alone never leads to a network smaller than those that the law was measured on, in compression or in
    weights. A budget may lead further; the plan then says that its prediction is an extrapolation.

    With several constraints, each is planned for, and the narrowest of these plans meets all budgets. If it is narrower
    than a floor's plan, it is used only if its predicted score still meets the floor. The plan names the binding
    constraint.

    A network whose stages all follow from one width (SegResNet, SegResNetDS, MedNeXt, SwinUNETR, UNETR) always gets a
    uniform plan, and ``plan.layerwise`` is ``False``.

    Args:
        network_def: the full-size network's MONAI config, with references resolved, or its family.
        constraint: one or several of :class:`DiskBudget`, :class:`MemoryBudget`, :class:`ComputeBudget`,
            :class:`LatencyBudget` and :class:`AccuracyFloor`.
        complexity: profile of the data set; a budget needs none, unless the allocation is ``"complexity"``.
        degradation: law, which must hold for the profile's settings. By default this project's own calibration of the
            network, or of PlainUNet if there is none.
        layerwise: whether each stage gets its own multiplier, if the network has a width for each stage.
        allocation: rule of a layer-wise plan, one of ``ALLOCATIONS``. By default ``"complexity"``, the paper's, if both
            a profile and a law are given, else ``"taper"``.
        input_shape: shape ``(B, C, H, W[, D])`` of the input for which multiply-adds and memory are stated; if
            ``None``, one image of 128 x 128 pixels (the paper's patches) or 64 x 64 x 64 voxels, or of the next size
            that the network takes.
        widths: location of the widths, needed if the network is not in :data:`~monai_ccnet.networks.WIDTHS`, unless the
            plan is for a scale alone; ``"auto"`` finds it.
        scale: factor by which the network averages its input down, see :class:`~monai_ccnet.networks.AtScale`: a whole
            number, one for each axis, ``"auto"`` for the coarsest at which the labels lose next to nothing
            (:func:`~monai_ccnet.constraints.choose_scale`), or ``"any"`` for that or, if no width meets the constraints
            there, the next coarser one at which one does.
        ceiling: what the training labels keep at each scale, needed for ``"auto"``.
        image_shape: shape of an image of the data set's median size, ``(B, C, H, W[, D])``, for which sizes are stated
            too.

    Raises:
        InfeasibleConstraintError: if no width meets the constraint; the message states the smallest possible size, and
            the coarser scale at which one would.
        ValueError: if the profile is missing, its settings differ from the law's, a scale is missing, or the network
            cannot take an input of the shape given.

    >>> from monai_ccnet.constraints import DiskBudget
    >>> unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    >>> compress(unet, DiskBudget(1_000_000, bits_per_weight=64, count="weights"), layerwise=False).channels
    (4, 8, 16, 32, 65)
    """
    family, constraints = family_of(network_def, widths, scale), _as_tuple(constraint)
    chosen = working_scale(scale, family, ceiling)
    given: dict[str, Any] = {
        "complexity": complexity,
        "degradation": degradation,
        "layerwise": layerwise,
        "allocation": allocation,
        "input_shape": input_shape,
        "ceiling": ceiling,
        "image_shape": image_shape,
    }
    try:
        return _plan(replace(family, scale=chosen), constraints, **given)
    except InfeasibleConstraintError as error:
        budgets = [each for each in constraints if isinstance(each, Budget)]

        def fits(at: Scale) -> bool:
            return all(each.needed(family.at(family.smallest, at)) <= each.limit for each in budgets)

        if family.has_fixed_size or fits(chosen):
            raise
        for coarser in filter(fits, coarser_scales(chosen, ceiling)):
            if scale == "any":
                return _plan(replace(family, scale=coarser), constraints, **given)
            kept = "" if ceiling is None else f", where labels keep {ceiling.worst(coarser):.4f} of their Dice"
            raise InfeasibleConstraintError(
                f"{error} Or let the network work at 1/{scale_words(coarser)} of the resolution{kept}: scale "
                f"{coarser if isinstance(coarser, int) else list(coarser)}, or 'any'."
            ) from error
        raise


def family_of(
    network_def: Mapping[str, Any] | NetworkFamily,
    widths: Widths | Mapping[str, Any] | str | None = None,
    scale: int | Sequence[int] | str = 1,
) -> NetworkFamily:
    """Return the family of a network; one that cannot be narrowed has no widths, if it is to work at a scale.

    Args:
        network_def: the full-size network's MONAI config, with references resolved, or its family.
        widths: location of the widths, as in :func:`compress`.
        scale: scale that was asked for.
    """
    if isinstance(network_def, NetworkFamily):
        return network_def
    if known_widths(network_def_of(network_def)) or widths is not None or scale in (1, "auto"):
        return NetworkFamily.of(network_def, widths)
    return NetworkFamily.as_it_is(network_def)


def _plan(
    family: NetworkFamily,
    constraints: tuple[Constraint, ...],
    *,
    complexity: ComplexityProfile | None,
    degradation: Law | None,
    layerwise: bool,
    allocation: str | None,
    input_shape: Sequence[int] | None,
    ceiling: LabelCeiling | None,
    image_shape: Sequence[int] | None,
) -> CompressionPlan:
    """Return the plan of a family at its scale."""
    rule_name = allocation_of(family, layerwise, allocation, complexity, degradation)
    law = degradation or law_named("calibrated", family.network_def, allocation=rule_name)
    if input_shape is not None:
        family.check_input_shape(input_shape)
    input_shape = family.input_shape_at() if input_shape is None else tuple(input_shape)
    outlook = Outlook(family, rule_name, complexity, law)
    asks = rule_name == "complexity" or any(isinstance(each, AccuracyFloor) for each in constraints)
    if asks and not outlook.predicts:
        raise ValueError(
            "allocation='complexity' and accuracy floors need complexity= (measure_dataset): give it, or plan for a "
            "budget with layerwise=False or allocation='taper'."
        )
    rule = _rule(outlook)
    planned = [
        _widest_within(family, rule, each) if isinstance(each, Budget) else _narrowest_above(outlook, rule, each)
        for each in constraints
    ]
    channels, binding = _reconciled(outlook, constraints, planned)
    return plan_at(outlook, channels, constraints, binding, input_shape, ceiling=ceiling, image_shape=image_shape)


def plan_at(
    outlook: Outlook,
    channels: Channels,
    constraints: tuple[Constraint, ...],
    binding: Constraint,
    input_shape: Sequence[int],
    *,
    ceiling: LabelCeiling | None = None,
    image_shape: Sequence[int] | None = None,
) -> CompressionPlan:
    """Return the plan of a family with known channels, at the family's scale.

    Args:
        outlook: the family, the allocation, the data set and the law.
        channels: width of each stage.
        constraints: constraints that they meet.
        binding: one of them, the binding one.
        input_shape: as in :func:`compress`, and so are the next two.
        ceiling: what the training labels keep.
        image_shape: shape of an image of the data set's median size.
    """
    family, rule_name = outlook.family, outlook.allocation
    clocks = [each for each in constraints if isinstance(each, LatencyBudget)]
    return CompressionPlan(
        network_def=family.at(channels),
        multipliers=family.multipliers(channels),
        channels=channels,
        size=family.size(channels, input_shape),
        full_size=_full_size(family, input_shape),
        predicted=outlook.predicted(channels),
        constraint=binding,
        layerwise=rule_name is not None,
        allocation=rule_name,
        complexity=outlook.complexity,
        degradation=outlook.law,
        family=family,
        constraints=constraints,
        latency=clocks[0].compared(_full_def(family, clocks[0].input_shape), family.at(channels)) if clocks else None,
        ceiling=ceiling,
        image_size=_image_size(family, channels, image_shape),
        probability=outlook.probability(channels, floor_of(constraints)),
    )


def _full_def(family: NetworkFamily, input_shape: Sequence[int]) -> dict[str, Any]:
    """Return the config of the full-size network at full resolution, which pads its input if it has to."""
    full = family.at(family.channels, scale=1)
    if all(length % by == 0 for length, by in zip(input_shape[2:], family.divisor, strict=True)):
        return full
    padding = {"_target_": "monai_ccnet.networks.AtScale", "scale": 1, "divisor": list(family.divisor)}
    return {**padding, "network": full}


def _full_size(family: NetworkFamily, input_shape: Sequence[int]) -> NetworkSize:
    if family.has_fixed_size and tuple(input_shape[2:]) != family.input_shape[2:]:
        return family.size(family.channels, scale=1)  # it takes no input of this size
    return network_size(_full_def(family, input_shape), input_shape)


def _image_size(family: NetworkFamily, channels: Channels, image_shape: Sequence[int] | None) -> NetworkSize | None:
    """Return the sizes for a whole image, ``None`` without one and where the network takes inputs of one size only."""
    if image_shape is None or family.has_fixed_size:
        return None
    return family.size(channels, _padded(family, image_shape))


def _padded(family: NetworkFamily, image_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that an image is padded to before a network takes it whole; at a scale it does so by itself."""
    if family.scale != 1:
        return tuple(image_shape)
    spatial = zip(image_shape[2:], family.divisor, strict=True)
    return (*image_shape[:2], *(by * math.ceil(length / by) for length, by in spatial))


def allocation_of(
    family: NetworkFamily,
    layerwise: bool,
    allocation: str | None,
    complexity: ComplexityProfile | None,
    degradation: Law | None,
) -> str | None:
    """Return the rule of a plan, ``None`` for one multiplier for all stages."""
    paper = complexity is not None and isinstance(degradation, DegradationModel)
    chosen = str(look_up_option(allocation or ("complexity" if paper else "taper"), ALLOCATIONS))
    return chosen if layerwise and family.layerwise else None


def _rule(outlook: Outlook) -> Rule:
    family = outlook.family
    if outlook.allocation == "complexity":
        assert isinstance(outlook.law, DegradationModel)
        curvature = outlook.law.curvature
        return lambda loss: by_complexity(family, loss, outlook.losses_per_decade, curvature)
    one_number = uniform if outlook.allocation is None else tapered
    return lambda decades: one_number(family, decades)


def least_needed(family: NetworkFamily, budget: Budget) -> float:
    """Return what the smallest network of a family needs of a budget.

    Raises:
        InfeasibleConstraintError: if that is above the budget, so that no width fits; the message says how much.
    """
    least = budget.needed(family.at(family.smallest))
    if least > budget.limit:
        channels = f"with {'-'.join(map(str, family.smallest))} channels " if family.channels else ""
        fewer = ", or use fewer stages" if without_a_stage(family.network_def, len(family.scales)) else ""
        raise InfeasibleConstraintError(
            f"no width fits the budget, {budget}: {channels}the network still needs {budget.words(least)}. Raise the "
            f"budget to at least that{fewer}."
        )
    return least


def _widest_within(family: NetworkFamily, rule: Rule, budget: Budget) -> Channels:
    """Return the widest channels by a rule that fit a budget."""

    @functools.cache
    def needed(channels: Channels) -> float:
        return budget.needed(family.at(channels))

    least = least_needed(family, budget)

    def excess(channels: Channels) -> float:
        """Return decades above the budget, without what no width can save, so that they fall nearly linearly."""
        slack = 0.5 * min(1.0, budget.limit)
        return math.log10((max(0.0, needed(channels) - least) + slack) / (budget.limit - least + slack))

    channels = crossing(rule, excess, family.smallest)[1]
    return channels if budget.holds_again(family.at(channels)) else _widest_within(family, rule, budget)


def _narrowest_above(outlook: Outlook, rule: Rule, floor: AccuracyFloor) -> Channels:
    """Return the narrowest channels by a rule that are predicted to meet a floor, within the range of the law."""
    family = outlook.family
    if floor.confidence is not None:
        _check_confidence(outlook, floor)
    elif outlook.allocation == "complexity":
        asked = rule(1 - floor.min_score)
        measured = family.nearest([outlook.covered_compression**-0.5] * len(family.channels))
        return tuple(map(max, asked, measured))

    def height(channels: Channels) -> float:
        return min(_above(outlook, channels, floor), outlook.margin(channels))

    return crossing(rule, height, family.smallest)[0]


def _above(outlook: Outlook, channels: Channels, floor: AccuracyFloor) -> float:
    """Return by how much a network is predicted to be above a floor, or surer of it than is asked."""
    if floor.confidence is None:
        return outlook.score(channels) - floor.min_score
    return (outlook.probability(channels, floor.min_score) or 0.0) - floor.confidence


def _check_confidence(outlook: Outlook, floor: AccuracyFloor) -> None:
    """Refuse a confidence that no width can have, since a training of the full-size network itself scatters."""
    most = outlook.probability(outlook.family.channels, floor.min_score)
    if most is None:
        raise InfeasibleConstraintError(
            f"how sure {floor} is cannot be said: no such network was measured. Leave confidence out, or find out by "
            "trainings of your own: monai-ccnet search."
        )
    if most < (floor.confidence or 0.0):
        raise InfeasibleConstraintError(
            f"no width is so sure: another training of the full-size network itself reaches {floor.min_score:.1%} with "
            f"a probability of {most:.2f}. Lower the floor or the confidence, or find out by trainings of your own: "
            "monai-ccnet search."
        )


def _reconciled(
    outlook: Outlook, constraints: Sequence[Constraint], planned: Sequence[Channels]
) -> tuple[Channels, Constraint]:
    """Return the channels that meet all constraints, given the plan of each, and the binding constraint.

    The highest floor and all budgets count. The narrowest of their plans, stage by stage, is used if it is predicted to
    meet the floor.
    """
    bounds: dict[Constraint, Channels] = dict(zip(constraints, planned, strict=True))
    floors = [each for each in constraints if isinstance(each, AccuracyFloor)]
    highest = max(floors, key=lambda floor: (sum(bounds[floor]), floor.min_score), default=None)
    bounds = {each: bound for each, bound in bounds.items() if each not in floors or each == highest}
    channels = tuple(min(widths) for widths in zip(*bounds.values(), strict=True))
    binding = min(bounds, key=lambda each: sum(bounds[each]))
    if highest is not None and channels != bounds[highest] and _above(outlook, channels, highest) < 0:
        tightest = min((each for each in bounds if each != highest), key=lambda each: sum(bounds[each]))
        raise InfeasibleConstraintError(
            f"no width meets all: {tightest} allows at most {'-'.join(map(str, channels))} channels, predicted score "
            f"{outlook.score(channels):.1%}, but {highest} needs {'-'.join(map(str, bounds[highest]))}. Lower the "
            "floor or raise the budget."
        )
    return channels, binding


def compress_once(
    path: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraint: Constraint | Sequence[Constraint],
    *,
    input_shape: Sequence[int] | None = None,
    widths: Widths | Mapping[str, Any] | str | None = None,
    **given: Any,
) -> CompressionPlan:
    """Return the plan in a file if it was made with the same arguments; otherwise make and save one.

    Args:
        path: path of the JSON file of the plan, such as ``plan.json``.
        network_def: the full-size network's MONAI config, with references resolved.
        constraint: constraint or constraints of the plan, as in :func:`compress`.
        input_shape: shape of the input for which multiply-adds and activations are stated; ``None`` accepts any.
        widths: location of the widths, as in :func:`compress`.
        given: further arguments of :func:`compress`: ``complexity``, ``degradation``, ``layerwise``, ``allocation``,
            ``scale``, ``ceiling``, ``image_shape``.
    """
    scale, ceiling = given.get("scale", 1), given.get("ceiling")
    family = family_of(network_def, widths, scale)
    if os.path.exists(path):
        plan = CompressionPlan.load(path, named_in(family.network_def))
        complexity, degradation = given.get("complexity"), given.get("degradation")
        allocation = allocation_of(
            family, given.get("layerwise", True), given.get("allocation"), complexity, degradation
        )
        law = degradation or law_named("calibrated", family.network_def, allocation=allocation)
        made_for = (
            plan.constraints,
            plan.allocation,
            plan.complexity,
            plan.degradation,
            plan.full_channels,
            plan.ceiling,
        )
        if (
            made_for == (_as_tuple(constraint), allocation, complexity, law, family.channels, ceiling)
            and (scale == "any" or plan.scale == working_scale(scale, family, ceiling))
            and plan.network_def == json.loads(json.dumps(family.at(plan.channels, plan.scale)))  # lists for tuples
            and (input_shape is None or tuple(input_shape) == plan.size.input_shape)
        ):
            return plan
    plan = compress(network_def, constraint, input_shape=input_shape, widths=widths, **given)
    plan.save(path)
    return plan


def _as_tuple(constraint: Constraint | Iterable[Constraint]) -> tuple[Constraint, ...]:
    constraints = (constraint,) if isinstance(constraint, (Budget, AccuracyFloor)) else tuple(constraint)
    if not constraints or not all(isinstance(each, (Budget, AccuracyFloor)) for each in constraints):
        raise TypeError(f"a plan needs one or several budgets or floors, got {constraint!r}.")
    return constraints
