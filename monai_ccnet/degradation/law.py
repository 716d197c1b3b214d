"""The law itself: how many decades of weights a compression takes away, and what a prediction is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from monai_ccnet.values import Value

__all__ = ["DegradationPoint", "Prediction", "inverse_log_compression", "log_compression"]

_LN_10 = math.log(10)


class DegradationPoint(NamedTuple):
    """One trained network: the data set, its complexity, how much the network was compressed, what score it kept.

    ``compression`` is full weights / weights, at least 1; ``score`` is relative to the full network's. A network that
    ``has_learned`` nothing says nothing of degradation: it is counted and not fitted.
    """

    dataset: str
    complexity: float
    compression: float
    score: float
    has_learned: bool = True


@dataclass(frozen=True)
class Prediction(Value):
    """A predicted score relative to the full-size network's, and where it lies with probability ``level``.

    ``low`` and ``high`` are ``None`` where the model's uncertainty is not known.
    """

    score: float
    low: float | None
    high: float | None
    level: float


def log_compression(compression: float, curvature: float = 0.0) -> float:
    """Return h_c(x), the decades of weights that a compression takes away, bent by the curvature.

    >>> log_compression(100.0)
    2.0
    """
    if not compression >= 1:
        raise ValueError(f"compression is full weights / weights and at least 1, got {compression}.")
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
