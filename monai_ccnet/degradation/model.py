"""The law that predicts the score of a narrowed network from the complexity of its data set.

The law of Mishra, Chen and Hu (Eq. 3): narrowed from ``theta_0`` to ``theta`` weights, a network keeps the share

    score(theta) / score(theta_0) = 1 - (slope * C + intercept) * h_c(theta_0 / theta)

of its score on a data set of complexity ``C``, with ``h_0(x) = log10(x)`` as in the paper. Very small
networks lose more than this line predicts. A curvature ``c > 0``, shared by all data sets, accounts for that:
``h_c(x) = (x**c - 1) / (c * ln 10)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from monai_ccnet.degradation.fitting import fit_groups, grouped, posterior_loss
from monai_ccnet.degradation.law import METRICS, DegradationPoint, Prediction, check_settings, log_compression
from monai_ccnet.degradation.published import (
    FAMILIES,
    PUBLISHED,
    PUBLISHED_CLASSES,
    PUBLISHED_OMEGA,
    PUBLISHED_RESIDUAL,
    PUBLISHED_SETTINGS,
    PUBLISHED_WEIGHTS,
)
from monai_ccnet.files import shown
from monai_ccnet.values import Value, check_numbers

__all__ = ["CALIBRATED", "DegradationModel", "calibrated_file"]

_SAME_SIZE = 0.05  # relative difference of full-size networks that other channels in and out can cause
_LARGEST, _MOST_CURVED = 1e6, 10.0  # beyond which a law says nothing that could be calculated
CALIBRATED = Path(__file__).parent / "calibrated"  # <network>/<metric>.json


@dataclass(frozen=True)
class DegradationModel(Value):
    """The law of a network: the share of its score that it loses per decade of weights removed.

    Attributes:
        slope: lambda of the paper, the loss per decade of weights and unit of complexity.
        intercept: delta of the paper, the loss per decade of weights at complexity 0.
        metric: the score that it holds for, ``"f1"`` or ``"iu"``.
        network: name of the network family that it holds for.
        settings: settings of the complexity measure that it holds for; empty if it holds for any.
        source: origin of the numbers.
        curvature: curvature c of h_c; 0 is the paper's straight line.
        covariance: covariance of slope and intercept, 2 x 2; ``None`` if unknown.
        between_deviation: standard deviation of the data sets' own slopes about the law; ``None`` where not known.
        residual_deviation: standard deviation of relative scores about the law; ``None`` where not known.
        r_squared: share of the variance of the data sets' slopes that the law explains; ``None`` where not known.
        datasets: number of data sets behind the numbers.
        points: number of trained networks behind the numbers, full-size ones not counted.
        curvature_error: standard error of the curvature; ``None`` where it was not fitted.
        dataset_slopes: each data set's own loss per decade of weights.
        left_out_errors: leave-one-out error of each data set: the root mean square error of the relative scores that
            the law of all other data sets predicts for its networks.
        not_learned: number of networks that failed to learn, which are not among ``points``.
        max_compression: largest compression that was measured; beyond it the law is an extrapolation. ``None`` if
            unknown.
        full_weights: kernel weights of the full-size network that was measured; ``None`` if not known.
        spatial_dims: number of spatial axes of the networks that were measured, 2 or 3; ``None`` if unknown.
        scale: scale at which they worked; ``None`` if several.
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
    curvature_error: float | None = None
    dataset_slopes: dict[str, float] = field(default_factory=dict)
    left_out_errors: dict[str, float] = field(default_factory=dict)
    not_learned: int = 0
    max_compression: float | None = None
    full_weights: int | None = None
    spatial_dims: int | None = None
    scale: int | tuple[int, ...] | None = 1

    def __post_init__(self) -> None:
        if isinstance(self.scale, (list, tuple)):
            object.__setattr__(self, "scale", tuple(self.scale))
        for name in ("settings", "dataset_slopes", "left_out_errors"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if self.covariance is not None:
            object.__setattr__(self, "covariance", tuple(tuple(map(float, row)) for row in self.covariance))
        constants = (self.slope, self.intercept, self.curvature)
        if not all(map(math.isfinite, constants)):
            raise ValueError(
                f"slope, intercept and curvature must be finite, got {self.slope}, {self.intercept}, {self.curvature}."
            )
        if max(map(abs, constants)) > _LARGEST or abs(self.curvature) > _MOST_CURVED:
            raise ValueError(
                f"slope and intercept must lie within {_LARGEST:g} and the curvature within {_MOST_CURVED:g}, got "
                f"{shown(constants)}."
            )
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {shown(self.metric)}.")
        if self.spatial_dims not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {shown(self.spatial_dims)}.")
        deviations = {"between_deviation": self.between_deviation, "residual_deviation": self.residual_deviation}
        counts = {"datasets": self.datasets, "points": self.points, "not_learned": self.not_learned}
        check_numbers("a law", 0, curvature_error=self.curvature_error, **deviations, **counts, **self.left_out_errors)
        check_numbers("a law", 1, max_compression=self.max_compression, full_weights=self.full_weights)
        check_numbers("a law", -_LARGEST, r_squared=self.r_squared, **self.dataset_slopes)
        if self.covariance is not None and not _is_covariance(self.covariance):
            raise ValueError(f"covariance must be that of two numbers, 2 x 2, got {shown(self.covariance)}.")
        if max(self.between_deviation or 0, self.residual_deviation or 0) > _LARGEST:
            raise ValueError(f"deviations must lie below {_LARGEST:g}, got {shown(deviations)}.")

    @classmethod
    def from_constants(cls, slope: float, intercept: float, **fields: Any) -> DegradationModel:
        """Return the law with a known slope (lambda) and intercept (delta)."""
        return cls(slope, intercept, **fields)

    @classmethod
    def published(cls, network: str, metric: str = "f1") -> DegradationModel:
        """Return the constants of the paper's Table 3.

        They hold for complexities as the paper measured them: JPEG for F1, and the mix JB for IU. For the U-Net's F1
        the interval comes from the scatter of the paper's Tables 4 and 5 about the law; for the others it is unknown.

        Args:
            network: name of the network: ``"unet"``, ``"cumedvision"`` or ``"ucunet"``.
            metric: name of the score: ``"f1"`` or ``"iu"`` (class-wise mean of intersection over union).

        >>> model = DegradationModel.published("unet", metric="f1")
        >>> model.slope, model.intercept
        (0.437, 0.0103)
        """
        if (network, metric) not in PUBLISHED:
            raise ValueError(f"no law is published for {(network, metric)}: choose from {sorted(PUBLISHED)}.")
        slope, intercept = PUBLISHED[network, metric]
        settings: dict[str, Any] = dict(PUBLISHED_SETTINGS)
        if metric == "iu":
            settings |= {"measure": "jb", "omega": PUBLISHED_OMEGA[network]}
        return cls(
            slope,
            intercept,
            metric,
            network,
            settings,
            source="Mishra, Chen, Hu: Table 3",
            residual_deviation=PUBLISHED_RESIDUAL.get((network, metric)),
            datasets=5,
            points=30,
            max_compression=256.0,
            spatial_dims=2,
        )

    @classmethod
    def calibrated(cls, network: str, metric: str = "f1") -> DegradationModel:
        """Return this project's own law, fitted to its training runs.

        The records of these runs come with a checkout of the source, where :func:`~monai_ccnet.calibration.refit`
        repeats the fit. The law holds for complexity measured with its ``settings``, and for training by the bundle's
        ``train.yaml``.

        Args:
            network: name of the network family, such as ``"plain_unet"``.
            metric: name of the score, ``"f1"`` or ``"iu"``.

        Raises:
            ValueError: if there is no such law; the message lists those available.
        """
        return cls.load(calibrated_file(network, metric))

    @classmethod
    def named(cls, law: str, network_def: Mapping[str, Any], metric: str = "f1") -> DegradationModel:
        """Return the law that a setting names, for the network to be narrowed.

        A network that neither this project nor the paper has measured is assumed to degrade as the U-Net does.

        Args:
            law: name of the law, ``"calibrated"`` or ``"paper"``, or the path of the JSON file of a law.
            network_def: the network's config, or any mapping with its ``_target_``.
            metric: name of the score, ``"f1"`` or ``"iu"``; ignored for a file, which has its own.

        >>> DegradationModel.named("paper", {"_target_": "monai_ccnet.networks.UCUNet"}).slope
        0.241
        """
        target = str(network_def["_target_"]).rsplit(".", 1)[-1]
        names = FAMILIES.get(target, FAMILIES["PlainUNet"])
        if law == "calibrated":
            return cls.calibrated(names.calibrated, metric)
        return cls.published(names.published, metric) if law == "paper" else cls.load(law)

    @classmethod
    def fit(
        cls,
        points: Iterable[DegradationPoint],
        *,
        metric: str = "f1",
        network: str = "",
        settings: dict[str, Any] | None = None,
        source: str = "",
        curvature: float | None = 0.0,
    ) -> DegradationModel:
        """Fit the law by least squares, in the paper's two steps.

        Step 1 fits each data set's own loss per decade of weights, through the full-size network's score of 1. Step 2
        fits a line to these losses against complexity. The standard errors include the scatter of data sets about the
        line and that of networks about their data set's loss. Each data set is also left out in turn, and its scores
        are predicted.

        Args:
            points: trained networks of at least two data sets of different complexity.
            metric: name of the score of the points.
            network: name of the network family.
            settings: settings of the measure of the complexities.
            source: origin of the points.
            curvature: fixed curvature c of h_c; ``None`` fits it in step 1, shared by all data sets.

        Raises:
            ValueError: if fewer than two complexities were given, or a data set has no narrowed network that learned.
        """
        points = list(points)
        fit = fit_groups(grouped(points), curvature)
        left_out_errors = {}
        if len(fit.names) > 2:
            for name in fit.names:
                kept = [point for point in points if point.dataset != name]
                if len({point.complexity for point in kept}) < 2:
                    continue
                others = fit_groups(grouped(kept), curvature)
                law = cls(others.slope, others.intercept, curvature=others.curvature)
                left_out_errors[name] = law.error_on(point for point in points if point.dataset == name)
        return cls(
            fit.slope,
            fit.intercept,
            metric,
            network,
            settings or {},
            source,
            fit.curvature,
            covariance=fit.covariance,
            between_deviation=fit.between_deviation,
            residual_deviation=fit.residual_deviation,
            r_squared=fit.r_squared,
            datasets=len(fit.names),
            points=fit.points,
            curvature_error=fit.curvature_error,
            dataset_slopes=dict(zip(fit.names, map(float, fit.slopes), strict=True)),
            left_out_errors=left_out_errors,
            not_learned=sum(not point.has_learned for point in points),
            max_compression=max(point.compression for point in points if point.has_learned),
        )

    def adapt(self, points: Iterable[DegradationPoint]) -> DegradationModel:
        """Return this law adapted to one data set by a few networks trained on it.

        This law is the prior of the data set's loss per decade; the scores of its own networks are the evidence. The
        full-size network's score may be unknown, and scores need not be relative: their common factor cancels. One
        narrow network alone tells almost nothing; two of different widths determine the slope.

        Args:
            points: trained networks of one data set; their scores on any common scale.

        Raises:
            ValueError: if the points are of several data sets or complexities, none learned, or the law has no standard
                deviation between data sets.
        """
        points = [point for point in points if point.has_learned]
        if len({(point.dataset, point.complexity) for point in points}) != 1:
            raise ValueError("adapting needs at least one network that learned, all of one data set and complexity.")
        if self.residual_deviation is None or self.between_deviation is None:
            raise ValueError("this law lacks standard deviations of data sets and networks: fit one to records first.")
        complexity = points[0].complexity
        mean, variance = posterior_loss(
            [(log_compression(point.compression, self.curvature), point.score) for point in points],
            prior_mean=self.loss_per_decade(complexity),
            prior_variance=self._slope_variance(complexity),
            deviation=max(self.residual_deviation, 1e-6),
        )
        return replace(
            self,
            intercept=mean - self.slope * complexity,
            covariance=((0.0, 0.0), (0.0, variance)),
            between_deviation=0.0,
            source=f"{self.source}, adapted to {points[0].dataset} by {len(points)} of its own networks",
        )

    @property
    def standard_errors(self) -> tuple[float, float] | None:
        """Standard errors of slope and intercept, ``None`` where they are not known."""
        if self.covariance is None:
            return None
        return math.sqrt(self.covariance[0][0]), math.sqrt(self.covariance[1][1])

    @property
    def left_out_error(self) -> float | None:
        """Leave-one-out error: root mean square of ``left_out_errors``; ``None`` if they are unknown."""
        errors = list(self.left_out_errors.values())
        return math.sqrt(float(np.mean(np.square(errors)))) if errors else None

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
            complexity: complexity of the data set, measured with this law's settings.
            compression: full weights / weights, at least 1.

        >>> round(DegradationModel.published("unet").predict(0.1518, compression=10), 4)
        0.9234
        """
        loss = self.loss_per_decade(complexity) * log_compression(compression, self.curvature)
        return min(1.0, max(0.0, 1 - loss))

    def error_on(self, points: Iterable[DegradationPoint]) -> float:
        """Return the root mean square error of the relative scores that the law predicts for trained networks.

        Full-size networks and those that failed to learn are skipped. Unlike in :meth:`predict`, predictions are not
        clipped to [0, 1], so that networks better than the full-size one count fully.

        Raises:
            ValueError: if no network is left.
        """
        misses = [
            point.score
            - (1 - self.loss_per_decade(point.complexity) * log_compression(point.compression, self.curvature))
            for point in points
            if point.compression > 1 and point.has_learned
        ]
        if not misses:
            raise ValueError("an error needs at least one narrowed network (compression above 1) that learned.")
        return math.sqrt(float(np.mean(np.square(misses))))

    def predict_interval(self, complexity: float, compression: float, level: float = 0.9) -> Prediction:
        """Return the predicted score and the interval that holds the score of a newly trained network.

        The interval includes the uncertainty of slope and intercept, the scatter of data sets about the law, and the
        scatter of networks about their data set's law, as far as each is known.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}.")
        score = self.predict(complexity, compression)
        if self.residual_deviation is None or compression == 1:
            known = compression == 1
            return Prediction(score, score if known else None, score if known else None, level)
        deviation, free = self._scatter(complexity, compression)
        quantile = float(stats.t.ppf((1 + level) / 2, free))
        return Prediction(score, max(0.0, score - quantile * deviation), min(1.0, score + quantile * deviation), level)

    def probability(self, min_score: float, complexity: float, compression: float) -> float | None:
        """Return the probability that a newly trained network reaches a relative score; ``None`` if unknown."""
        if self.residual_deviation is None:
            return None
        deviation, free = self._scatter(complexity, compression)
        above = 1 - self.loss_per_decade(complexity) * log_compression(compression, self.curvature) - min_score
        return float(stats.t.cdf(above / max(deviation, 1e-9), free))

    def _scatter(self, complexity: float, compression: float) -> tuple[float, float]:
        """Return the standard deviation of a new network's relative score, and its degrees of freedom."""
        of_slope = log_compression(compression, self.curvature) ** 2 * self._slope_variance(complexity)
        of_network = (self.residual_deviation or 0.0) ** 2
        deviation = math.sqrt(of_slope + of_network)
        # Degrees of freedom of a sum of variances that were estimated each from its own (Welch, Satterthwaite).
        free = float(self.points)
        if self.between_deviation is not None and deviation > 0:
            parts = of_slope**2 / max(1, self.datasets - 2) + of_network**2 / max(1, self.points - self.datasets)
            free = deviation**4 / parts
        return deviation, max(1.0, free)

    def _slope_variance(self, complexity: float) -> float:
        """Return the variance of the loss per decade of a new data set about the law's, as far as it is known."""
        variance = (self.between_deviation or 0.0) ** 2
        if self.covariance is not None:
            point = np.array([complexity, 1.0])
            variance += float(point @ np.array(self.covariance) @ point)
        return variance

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raise an error for complexities that were measured with other settings than those of this law.

        Raises:
            ValueError: if a setting differs; the message names each one, with both values.
        """
        check_settings(self.settings, settings)

    def covered_compression(self, full_weights: int) -> float:
        """Return how far a full-size network can be compressed before its law becomes an extrapolation.

        The limits are the largest compression and the fewest weights that were measured: a small full-size network
        reaches sizes at which networks fail earlier.

        >>> model = DegradationModel.from_constants(0.4, 0.01, max_compression=256.0, full_weights=1_000_000)
        >>> model.covered_compression(1_000_000), model.covered_compression(100_000)
        (256.0, 25.6)
        """
        if self.max_compression is None:
            return math.inf
        share = 1.0 if self.full_weights is None else min(1.0, full_weights / self.full_weights)
        return max(1.0, self.max_compression * share)

    def assumption_for(self, network_def: Mapping[str, Any], spatial_dims: int, full_weights: int) -> str | None:
        """Return how a network differs from the measured one, ``None`` if it does not or this is unknown.

        Args:
            network_def: the network's config, or any mapping with its ``_target_``.
            spatial_dims: number of spatial axes, 2 or 3.
            full_weights: kernel weights of the full-size network; differences within 5 % are ignored, since they come
                from the data's channels.

        >>> law = DegradationModel.published("unet")
        >>> law.assumption_for({"_target_": "monai_ccnet.networks.PlainUNet"}, 2, 31_023_744)
        >>> print(law.assumption_for({"_target_": "SegResNet"}, 3, 4_700_000)[:55])
        Assumption: the law was measured on PlainUNet (2-D, 31,
        """
        measured = PUBLISHED_CLASSES.get(self.network, self.network)
        weights = self.full_weights or PUBLISHED_WEIGHTS.get(self.network)
        given = str(network_def["_target_"]).rsplit(".", 1)[-1]
        differs = (
            (measured and measured != given)
            or (self.spatial_dims is not None and self.spatial_dims != spatial_dims)
            or (weights is not None and abs(full_weights / weights - 1) > _SAME_SIZE)
        )
        if not differs:
            return None
        details = [f"{self.spatial_dims}-D"] if self.spatial_dims else []
        details += [f"{weights:,} weights at full size"] if weights else []
        return (
            f"Assumption: the law was measured on {measured or 'another network'} ({', '.join(details)}) and "
            f"also holds for {given} ({spatial_dims}-D, {full_weights:,} weights)."
        )

    def assuming(self, settings: dict[str, Any]) -> DegradationModel:
        """Return this law as if it held for other settings; its ``source`` then states this assumption."""
        return (
            self
            if self.settings == settings
            else replace(
                self, settings=settings, source=f"{self.source} (assumed to hold for complexity under other settings)"
            )
        )

    def __str__(self) -> str:
        errors = self.standard_errors
        slope, intercept, sign = f"{self.slope:.4g}", f"{abs(self.intercept):.4g}", "-" if self.intercept < 0 else "+"
        if errors:
            slope, intercept = f"{slope} ± {errors[0]:.2g}", f"{intercept} ± {errors[1]:.2g}"
        words = (
            f"law of {self.network or 'a network'} ({self.metric}): relative score lost per decade of weights "
            f"(10x fewer) = {slope} x complexity {sign} {intercept}"
        )
        if self.curvature or self.curvature_error is not None:
            error = "" if self.curvature_error is None else f" ± {self.curvature_error:.2g}"
            words += f", curvature {self.curvature:.3g}{error}"
        words += f"; {self.source or 'source unknown'}"
        if self.r_squared is not None:
            words += f"; R² {self.r_squared:.2f} over {self.datasets} data sets"
        if self.left_out_errors:
            listed = ", ".join(f"{name} {error:.3f}" for name, error in self.left_out_errors.items())
            words += f"; leave-one-out error of the relative score {self.left_out_error:.3f} ({listed})"
        if self.not_learned:
            words += f"; networks that failed to learn, not counted: {self.not_learned}"
        return words


def calibrated_file(network: str, metric: str, ending: str = "", kind: str = "law") -> Path:
    """Return the file of a law that the package ships.

    Args:
        network: name of the network family.
        metric: name of the score.
        ending: what follows the score in the names of the files of this kind of law.
        kind: what is said of it in an error.

    Raises:
        ValueError: if there is no such law; the message lists those available.
    """
    path = CALIBRATED / network / f"{metric}{ending}.json"
    if not path.is_file():
        names = [(each, file) for each in METRICS for file in CALIBRATED.glob(f"*/{each}{ending}.json")]
        known = sorted(f"{file.parent.name}/{each}" for each, file in names)
        raise ValueError(f"no {kind} is calibrated for {network}/{metric}: choose from {known}.")
    return path


def _is_covariance(rows: tuple) -> bool:
    """Tell whether numbers are the covariance of two: symmetric, and no sum of the two has a variance below 0."""
    matrix = np.array(rows, dtype=float) if [len(row) for row in rows] == [2, 2] else np.full((2, 2), np.nan)
    if not (np.isfinite(matrix).all() and np.abs(matrix).max() <= _LARGEST**2):
        return False
    tolerance = 1e-9 * np.abs(matrix).max()
    return bool(np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() >= -tolerance)
