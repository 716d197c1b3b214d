"""How much accuracy a network loses as it narrows, per unit of image complexity: pure mathematics.

The law of Mishra, Chen and Hu (Eq. 3): narrowed from ``theta_0`` to ``theta`` weights, a network keeps the share

    score(theta) / score(theta_0) = 1 - (slope * C + intercept) * h_c(theta_0 / theta)

of its score on a data set of complexity ``C``, with ``h_0(x) = log10(x)`` as in the paper. Small networks fall off a
cliff that a line cannot follow; a curvature ``c > 0``, shared by all data sets, bends it:
``h_c(x) = (x**c - 1) / (c * ln 10)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from monai_ccnet.values import Value

__all__ = ["DegradationModel", "DegradationPoint", "Prediction", "inverse_log_compression", "log_compression"]

_LN_10 = math.log(10)

# Table 3: slope (lambda) and intercept (delta).
_PUBLISHED = {
    ("unet", "f1"): (0.437, 0.01030),
    ("cumedvision", "f1"): (0.538, 0.00427),
    ("ucunet", "f1"): (0.241, 0.00956),
    ("unet", "iu"): (0.349, 0.000072),
    ("cumedvision", "iu"): (0.366, 0.000096),
    ("ucunet", "iu"): (0.151, 0.007080),
}
_PUBLISHED_OMEGA = {"unet": 0.7, "cumedvision": 0.775, "ucunet": 0.95}
# Root mean square of the relative scores of Tables 4 and 5 (CHASE_DB1, DRIVE, melanoma) about the published law.
_PUBLISHED_RESIDUAL = {("unet", "f1"): 0.0617}


class DegradationPoint(NamedTuple):
    """One trained network: the data set, its complexity, how much the network was compressed, what score it kept.

    ``compression`` is full weights / weights, at least 1; ``score`` is relative to the full network's.
    """

    dataset: str
    complexity: float
    compression: float
    score: float


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


@dataclass(frozen=True)
class DegradationModel(Value):
    """The degree of degradation of a network: the share of its score that each decade of weights carries.

    Attributes:
        slope: lambda of the paper, the loss per decade of weights and unit of complexity.
        intercept: delta of the paper, the loss per decade of weights at complexity 0.
        metric: the score that it holds for, ``"f1"`` or ``"iu"``.
        network: name of the network family that it holds for.
        settings: of the complexity that it holds for; empty for any.
        source: where the numbers come from.
        curvature: c of h_c; 0 is the paper's straight line.
        covariance: of slope and intercept, 2 x 2; ``None`` where it is not known.
        between_deviation: standard deviation of the data sets' own slopes about the law; ``None`` where not known.
        residual_deviation: standard deviation of relative scores about the law; ``None`` where not known.
        r_squared: share of the variance of the data sets' slopes that the law explains; ``None`` where not known.
        datasets: number of data sets behind the numbers.
        points: number of trained networks behind the numbers, full-size ones not counted.
    """

    slope: float
    intercept: float
    metric: str = "f1"
    network: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    curvature: float = 0.0
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = None
    between_deviation: float | None = None
    residual_deviation: float | None = None
    r_squared: float | None = None
    datasets: int = 0
    points: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        if self.covariance is not None:
            object.__setattr__(self, "covariance", tuple(tuple(map(float, row)) for row in self.covariance))
        if not all(map(math.isfinite, (self.slope, self.intercept, self.curvature))):
            raise ValueError(
                f"slope, intercept and curvature must be finite, got {self.slope}, {self.intercept}, {self.curvature}."
            )

    @classmethod
    def from_constants(cls, slope: float, intercept: float, **fields: Any) -> DegradationModel:
        """Return the model with a known slope (lambda) and intercept (delta)."""
        return cls(slope, intercept, **fields)

    @classmethod
    def published(cls, network: str, metric: str = "f1") -> DegradationModel:
        """Return the constants of the paper's Table 3.

        They belong to complexities as the paper measured them: JPEG for F1, and the mix JB for IU. For the U-Net's F1
        the spread of the paper's own Tables 4 and 5 about the law gives an interval; for the others none is known.

        Args:
            network: ``"unet"``, ``"cumedvision"`` or ``"ucunet"``.
            metric: ``"f1"`` or ``"iu"`` (class-wise mean of intersection over union).

        >>> model = DegradationModel.published("unet", metric="f1")
        >>> model.slope, model.intercept
        (0.437, 0.0103)
        """
        if (network, metric) not in _PUBLISHED:
            raise ValueError(f"nothing is published for {(network, metric)}; known are {sorted(_PUBLISHED)}.")
        slope, intercept = _PUBLISHED[network, metric]
        settings: dict[str, Any] = {"measure": "jpeg", "quality": 25, "source": "Mishra, Chen, Hu: Table 1"}
        if metric == "iu":
            settings |= {"measure": "jb", "omega": _PUBLISHED_OMEGA[network]}
        return cls(
            slope,
            intercept,
            metric,
            network,
            settings,
            source="Mishra, Chen, Hu: Table 3",
            residual_deviation=_PUBLISHED_RESIDUAL.get((network, metric)),
            datasets=5,
            points=30,
        )

    @classmethod
    def fit(
        cls,
        points: Iterable[DegradationPoint],
        *,
        metric: str = "f1",
        network: str = "",
        settings: dict[str, Any] | None = None,
        source: str = "",
        curvature: float = 0.0,
    ) -> DegradationModel:
        """Fit the law by least squares, in the paper's two steps.

        First each data set's own loss per decade of weights, through the full-size network's score of 1; then the line
        of these losses against complexity. Data sets scatter about that line more than networks about their data set's,
        and the standard errors count both.

        Args:
            points: trained networks of at least two data sets of different complexity.
            metric: the score of the points.
            network: name of the network family.
            settings: of the complexities.
            source: where the points come from.
            curvature: c of h_c, held fixed.

        Raises:
            ValueError: if fewer than two complexities were given, or a data set has no narrowed network.
        """
        groups: dict[tuple[str, float], list[tuple[float, float]]] = {}
        for dataset, complexity, compression, score in points:
            if not all(map(math.isfinite, (complexity, compression, score))):
                raise ValueError(f"points must be finite, got {(dataset, complexity, compression, score)}.")
            pairs = groups.setdefault((dataset, complexity), [])
            if compression > 1:
                pairs.append((log_compression(compression, curvature), 1 - score))
        complexities = np.array([complexity for _, complexity in groups])
        if len(set(complexities)) < 2:
            raise ValueError(
                f"a fit needs data sets of at least two complexities, got {sorted(groups)}: train on another data set."
            )
        if bare := sorted(key for key, pairs in groups.items() if not pairs):
            raise ValueError(f"no narrowed network (compression above 1) among the points of {bare}.")
        decades, losses = (
            [np.array(column) for column in columns]
            for columns in zip(*(zip(*pairs, strict=True) for pairs in groups.values()), strict=True)
        )
        slopes = np.array([h @ loss / (h @ h) for h, loss in zip(decades, losses, strict=True)])
        residuals = np.concatenate([loss - s * h for h, loss, s in zip(decades, losses, slopes, strict=True)])
        degrees = len(residuals) - len(slopes)
        residual_variance = float(residuals @ residuals / degrees) if degrees > 0 else 0.0
        within_variances = residual_variance / np.array([h @ h for h in decades])

        design = np.stack([complexities, np.ones_like(complexities)], axis=1)
        solve = np.linalg.pinv(design)
        slope, intercept = solve @ slopes
        misses = slopes - design @ (slope, intercept)
        free = len(slopes) - 2
        scatter = float(misses @ misses / free) if free > 0 else 0.0
        between_variance = max(0.0, scatter - float(within_variances.mean()))
        covariance = solve @ np.diag(within_variances + between_variance) @ solve.T
        total = float(np.sum((slopes - slopes.mean()) ** 2))
        return cls(
            float(slope),
            float(intercept),
            metric,
            network,
            settings or {},
            source,
            curvature,
            covariance=tuple(tuple(map(float, row)) for row in covariance),  # type: ignore[arg-type]
            between_deviation=math.sqrt(between_variance) if free > 0 else None,
            residual_deviation=math.sqrt(residual_variance),
            r_squared=1 - float(misses @ misses) / total if free > 0 and total > 0 else None,
            datasets=len(slopes),
            points=len(residuals),
        )

    @property
    def standard_errors(self) -> tuple[float, float] | None:
        """Standard errors of slope and intercept, ``None`` where they are not known."""
        if self.covariance is None:
            return None
        return math.sqrt(self.covariance[0][0]), math.sqrt(self.covariance[1][1])

    def loss_per_decade(self, complexity: float) -> float:
        """Return the relative loss of score for each decade of weights, at a complexity.

        Raises:
            ValueError: if the complexity is negative or not finite.
        """
        if not (math.isfinite(complexity) and complexity >= 0):
            raise ValueError(f"complexity must be finite and not negative, got {complexity}.")
        return self.slope * complexity + self.intercept

    def predict(self, complexity: float, compression: float) -> float:
        """Return the predicted score relative to the full-size network's, within [0, 1].

        Args:
            complexity: of the data set, measured with this model's settings.
            compression: full weights / weights, at least 1.

        >>> round(DegradationModel.published("unet").predict(0.1518, compression=10), 4)
        0.9234
        """
        loss = self.loss_per_decade(complexity) * log_compression(compression, self.curvature)
        return min(1.0, max(0.0, 1 - loss))

    def predict_interval(self, complexity: float, compression: float, level: float = 0.9) -> Prediction:
        """Return the predicted score with the interval that a newly trained network falls into.

        The interval counts what is not known of slope and intercept, how data sets scatter about the law, and how
        networks scatter about their data set's: as far as the model knows each.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}.")
        score = self.predict(complexity, compression)
        if self.residual_deviation is None or compression == 1:
            known = compression == 1
            return Prediction(score, score if known else None, score if known else None, level)
        decades = log_compression(compression, self.curvature)
        point = np.array([complexity, 1.0])
        slope_variance = (self.between_deviation or 0.0) ** 2
        if self.covariance is not None:
            slope_variance += float(point @ np.array(self.covariance) @ point)
        deviation = math.sqrt(decades**2 * slope_variance + self.residual_deviation**2)
        free = self.datasets - 2 if self.between_deviation is not None else self.points
        quantile = float(stats.t.ppf((1 + level) / 2, max(1, free)))
        return Prediction(score, max(0.0, score - quantile * deviation), min(1.0, score + quantile * deviation), level)

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Refuse complexities that were measured in another way than those this model was fitted with.

        Raises:
            ValueError: naming each setting that differs, in the model and in ``settings``.
        """
        if not self.settings:
            return
        differing = {
            key: (self.settings.get(key), settings.get(key))
            for key in sorted({*self.settings, *settings})
            if self.settings.get(key) != settings.get(key)
        }
        if differing:
            listed = "; ".join(
                f"{key}: model {ours!r}, complexity {theirs!r}" for key, (ours, theirs) in differing.items()
            )
            raise ValueError(
                f"complexities under different settings cannot be compared ({listed}). Measure with the model's "
                "settings, fit a model to yours, or accept the error with model.assuming(complexity.settings)."
            )

    def assuming(self, settings: dict[str, Any]) -> DegradationModel:
        """Return this model as if it held for other settings: an assumption, which its ``source`` then names."""
        return (
            self
            if self.settings == settings
            else replace(
                self, settings=settings, source=f"{self.source} (assumed to hold for complexity under other settings)"
            )
        )

    def __str__(self) -> str:
        errors = self.standard_errors
        slope, intercept = (f"{value:.4g}" for value in (self.slope, self.intercept))
        if errors:
            slope, intercept = f"{slope} ± {errors[0]:.2g}", f"{intercept} ± {errors[1]:.2g}"
        return (
            f"degradation of {self.network or 'a network'} ({self.metric}): {slope} x complexity + {intercept} "
            f"lost per decade of weights; {self.source or 'no source stated'}"
        )
