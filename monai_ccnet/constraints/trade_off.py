"""Other networks beside a plan's: of other sizes, with a few filters fewer, or predicted by another law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.budgets import DiskBudget
from monai_ccnet.constraints.outlook import Outlook
from monai_ccnet.constraints.plan import CompressionPlan
from monai_ccnet.constraints.solve import compress, family_of
from monai_ccnet.degradation import Law, Prediction, WidthLaw
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.size import disk_bytes

__all__ = ["predicted_by", "trade_off", "with_fewer_filters"]


def trade_off(
    network_def: Mapping[str, Any] | NetworkFamily, *, points: int = 12, **given: Any
) -> list[CompressionPlan]:
    """Plan for a range of disk budgets, to compare size and predicted score.

    Args:
        network_def: the full-size network's MONAI config, with references resolved, or its family.
        points: number of budgets, evenly spaced in decades from the narrowest network's file to the full-size one's.
        given: further arguments of :func:`compress`: ``complexity``, ``degradation``, ``layerwise``, ``allocation``,
            ``input_shape``, ``widths``, ``scale``, ``ceiling``, ``image_shape``.

    Returns:
        The plans that differ, the smallest first. :func:`monai_ccnet.figures.draw_trade_off` draws them.
    """
    widths = given.pop("widths", None)
    family = family_of(network_def, widths, given.get("scale", 1))
    most, least = disk_bytes(family.network_def), disk_bytes(family.at(family.smallest))
    budgets = [round(least * (most / least) ** (index / (points - 1))) for index in range(points)]
    plans = [compress(family, DiskBudget(budget), **given) for budget in [*budgets[:-1], most]]
    return list({plan.channels: plan for plan in plans}.values())


def with_fewer_filters(plan: CompressionPlan, count: int) -> CompressionPlan:
    """Return a plan with fewer filters in each stage, and its prediction: ε in the paper's Table 9.

    A plan for a floor is the narrowest network that meets it, so this one is predicted to miss it.

    Args:
        plan: plan to change, with or without a profile.
        count: number of filters that each stage loses; at least one stays.

    Raises:
        ValueError: if the network cannot have such widths.
    """
    family = plan.family
    channels = tuple(max(1, width - count) for width in plan.channels)
    outlook = Outlook(family, plan.allocation, plan.complexity, plan.degradation)
    return replace(
        plan,
        network_def=family.at(channels),
        multipliers=family.multipliers(channels),
        channels=channels,
        size=family.size(channels, plan.size.input_shape),
        predicted=outlook.predicted(channels),
        probability=outlook.probability(channels, plan.floor),
    )


def predicted_by(plan: CompressionPlan, complexity: ComplexityProfile, degradation: Law) -> Prediction:
    """Return the prediction of a law for a plan's network; the law may be for another metric.

    Args:
        plan: plan of the network, of which only widths and sizes are used.
        complexity: profile of the data set, by the measure that the law holds for.
        degradation: law that predicts the score.

    Raises:
        ValueError: if the profile's settings differ from the law's, or a scale is missing.
    """
    allocation = None if isinstance(degradation, WidthLaw) else plan.allocation
    predicted = Outlook(plan.family, allocation, complexity, degradation).predicted(plan.channels)
    assert predicted is not None
    return predicted
