"""Parts of the law: decades of weights that a compression removes, trained networks as points, and predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from monai_ccnet.files import shown
from monai_ccnet.values import Value

__all__ = ["DegradationPoint", "Prediction", "check_settings", "inverse_log_compression", "log_compression"]

# Scores, in the order of tables; laws and floors use the first unless another is named.
METRICS = ("f1", "iu", "jaccard", "sensitivity", "specificity", "accuracy", "auc")
_LN_10 = math.log(10)


class DegradationPoint(NamedTuple):
    """One trained network: the data set, its complexity, how much the network was compressed, what score it kept.

    ``compression`` is full weights / weights, at least 1; ``score`` is relative to the full network's. A network that
    failed to learn (not ``has_learned``) tells nothing about degradation: it is counted but not fitted.
    """

    dataset: str
    complexity: float
    compression: float
    score: float
    has_learned: bool = True


@dataclass(frozen=True)
class Prediction(Value):
    """A predicted score relative to the full-size network's, and an interval that holds it with probability ``level``.

    ``low`` and ``high`` are ``None`` if the law's uncertainty is unknown.
    """

    score: float
    low: float | None
    high: float | None
    level: float

    def __post_init__(self) -> None:
        numbers = [each for each in (self.score, self.low, self.high) if each is not None]
        if not (all(map(math.isfinite, numbers)) and 0 < self.level < 1):
            raise ValueError(
                f"a prediction needs finite scores and a level in (0, 1), got {shown([*numbers, self.level])}."
            )


def check_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise an error for complexities that were measured with other settings than those of a law.

    Args:
        ours: settings of the law; empty where it holds for any.
        theirs: settings of the complexities.

    Raises:
        ValueError: if a setting differs; the message names each one, with both values.
    """
    differing = [key for key in sorted({*ours, *theirs}) if ours and ours.get(key) != theirs.get(key)]
    if differing:
        listed = "; ".join(f"{key}: law {ours.get(key)!r}, complexity {theirs.get(key)!r}" for key in differing)
        raise ValueError(
            f"complexities measured with different settings cannot be compared ({listed}). Measure with the law's "
            "settings, fit a law to yours, or accept the error with law.assuming(complexity.settings)."
        )


def log_compression(compression: float, curvature: float = 0.0) -> float:
    """Return h_c(x), the decades of weights that a compression removes, adjusted by the curvature.

    >>> log_compression(100.0)
    2.0
    """
    if not compression >= 1:
        raise ValueError(f"compression (full weights / weights) must be at least 1, got {compression}.")
    decades = math.log10(compression)
    return decades if curvature == 0 else math.expm1(curvature * _LN_10 * decades) / (curvature * _LN_10)


def inverse_log_compression(value: float, curvature: float = 0.0) -> float:
    """Return the compression x at which h_c(x) is ``value``; infinite where a negative curvature never reaches it.

    >>> inverse_log_compression(2.0)
    100.0
    """
    if curvature == 0:
        return 10.0**value if value < 308 else math.inf
    gained = curvature * _LN_10 * value
    if gained <= -1:
        return math.inf
    exponent = math.log1p(gained) / curvature
    return math.exp(exponent) if exponent < 709 else math.inf
