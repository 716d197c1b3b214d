"""The methods of a comparison: how each obtains its network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints import AccuracyFloor, Budget, DiskBudget, compress, predicted_by, with_fewer_filters
from monai_ccnet.degradation import DegradationModel, Law, WidthLaw
from monai_ccnet.networks import inner_def, narrow, scale_of
from monai_ccnet.records import TrialRecord
from monai_ccnet.values import Value

__all__ = ["FULL_SIZE", "METHODS", "Rival", "constraints_taken", "folder_of", "planned_network", "stored_budget"]

FULL_SIZE = "full size"

# Settings of each method. Those with a ``multiplier`` take no constraint. Those with ``fewer`` filters than planned are
# for an accuracy floor, which they should miss: ε in the paper's Table 9.
METHODS: dict[str, dict[str, Any]] = {
    "full size": {"multiplier": 1.0},
    "half width": {"multiplier": 0.5},  # CC-Net (2019)
    "quarter width": {"multiplier": 0.25},  # the simplest baseline
    "uniform": {"layerwise": False},
    "layer-wise": {"allocation": "complexity"},
    "taper": {"allocation": "taper"},
    "uniform, one filter fewer": {"layerwise": False, "fewer": 1},
    "uniform, two filters fewer": {"layerwise": False, "fewer": 2},
    "layer-wise, one filter fewer": {"allocation": "complexity", "fewer": 1},
    "layer-wise, two filters fewer": {"allocation": "complexity", "fewer": 2},
    "squeeze": {"_target_": "monai_ccnet.networks.SqueezeUNet", "layerwise": False},
    "uniform, int8": {"layerwise": False, "bits_per_weight": 8},
    "taper, int8": {"allocation": "taper", "bits_per_weight": 8},
    # After training: the full-size network is pruned in rounds, each followed by some training.
    "random pruning": {"importance": "random"},
    "L1 pruning": {"importance": "l1"},  # Li et al. (2017)
    "Taylor pruning": {"importance": "taylor"},  # Molchanov et al. (2017)
    "importance estimation": {"importance": "estimation"},  # Molchanov et al. (2019)
    "importance estimation, int8": {"importance": "estimation", "bits_per_weight": 8},
    # Pruned in one shot, without training afterwards, merged or not.
    "L1 pruning, untrained": {"importance": "l1", "share": 1.0, "epochs": 0},
    "neuron merging": {"importance": "l1", "share": 1.0, "epochs": 0, "merge": True},  # Kim et al. (2020)
}


@dataclass(frozen=True)
class Rival(Value):
    """One network of a comparison.

    Attributes:
        method: name of the method, one of ``METHODS``.
        constraint: constraint that the network was made for; ``None`` for a method that takes none.
        seed: seed of the training run.
        predicted: predicted score relative to the full-size network's, by metric; empty without a prediction.
        record: record of the trained network.
        seconds: total time in seconds: training, pruning, fine-tuning and evaluation.
    """

    method: str
    constraint: Budget | AccuracyFloor | None
    seed: int
    predicted: dict[str, float]
    record: TrialRecord
    seconds: float


def constraints_taken(method: Mapping[str, Any], constraints: Sequence[Budget | AccuracyFloor]) -> list[Any]:
    """Return the constraints that a method can be applied to, ``[None]`` if it takes none."""
    if "multiplier" in method:
        return [None]
    if "fewer" in method:
        kinds: tuple[type, ...] = (AccuracyFloor,)
    elif "bits_per_weight" in method:  # fewer bits only affect bytes
        kinds = (DiskBudget,)
    else:  # squeezed networks have no law, and pruning stops at a budget
        kinds = (Budget,) if {"importance", "_target_"} & set(method) else (Budget, AccuracyFloor)
    return [each for each in constraints if isinstance(each, kinds)]


def folder_of(method: str, constraint: Budget | AccuracyFloor | None, seed: int) -> str:
    """Return the name of the folder of a method's network within a comparison."""
    asked_for = [] if constraint is None else [f"{type(constraint).__name__}-{_limit(constraint)}"]
    return "-".join([re.sub(r"\W+", "-", method), *asked_for, f"seed{seed}"])


def _limit(constraint: Budget | AccuracyFloor) -> float:
    return constraint.min_score if isinstance(constraint, AccuracyFloor) else constraint.limit


def planned_network(
    method: Mapping[str, Any],
    network_def: dict[str, Any],
    constraint: Budget | AccuracyFloor | None,
    laws: Sequence[tuple[ComplexityProfile, Law]],
) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """Return the network of a method, its predicted relative scores by metric, and the settings of its training."""
    method = dict(method)
    if constraint is None:
        return narrow(network_def, method["multiplier"]), {}, {}
    constraint, settings = stored_budget(method, constraint)
    method.pop("bits_per_weight", None)
    if target := method.pop("_target_", None):
        other = {**inner_def(network_def), "_target_": target}  # it has no law
        plan = compress(other, constraint, scale=scale_of(network_def), **method)
        return plan.network_def, {}, settings
    fewer = method.pop("fewer", 0)
    complexity, degradation = laws[0]
    if method.get("allocation") == "complexity" and isinstance(degradation, WidthLaw):
        degradation = DegradationModel.named("calibrated", inner_def(network_def)).assuming(complexity.settings)
    plan = compress(network_def, constraint, complexity=complexity, degradation=degradation, **method)
    if fewer:
        plan = with_fewer_filters(plan, fewer)
    predicted = {law.metric: predicted_by(plan, profile, law).score for profile, law in laws}
    return plan.network_def, predicted, settings


def stored_budget(method: Mapping[str, Any], constraint: Any) -> tuple[Any, dict[str, int]]:
    """Return a disk budget at the bits per weight that a method stores, and these as a setting of ``train.yaml``."""
    if "bits_per_weight" not in method or not isinstance(constraint, DiskBudget):
        return constraint, {}
    bits = {"bits_per_weight": method["bits_per_weight"]}
    return replace(constraint, **bits), bits
