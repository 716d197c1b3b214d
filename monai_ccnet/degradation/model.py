"""How much accuracy a network loses as it narrows, per unit of image complexity: pure mathematics.

The law of Mishra, Chen and Hu (Eq. 3): narrowed from ``theta_0`` to ``theta`` weights, a network keeps the share

    score(theta) / score(theta_0) = 1 - (slope * C + intercept) * h_c(theta_0 / theta)

of its score on a data set of complexity ``C``, with ``h_0(x) = log10(x)`` as in the paper. Small networks fall off a
cliff that a line cannot follow; a curvature ``c > 0``, shared by all data sets, bends it:
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
from monai_ccnet.degradation.law import DegradationPoint, Prediction, log_compression
from monai_ccnet.degradation.published import (
    FAMILIES,
    PUBLISHED,
    PUBLISHED_CLASSES,
    PUBLISHED_OMEGA,
    PUBLISHED_RESIDUAL,
    PUBLISHED_WEIGHTS,
)
from monai_ccnet.values import Value

__all__ = ["CALIBRATED", "DegradationModel"]

_SAME_SIZE = 0.05  # of full-size networks whose data have other channels
CALIBRATED = Path(__file__).parent / "calibrated"  # <network>/<metric>.json


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
        curvature_error: standard error of the curvature; ``None`` where it was not fitted.
        dataset_slopes: each data set's own loss per decade of weights.
        left_out_errors: of each data set, the root mean square error of the relative scores that the law of all the
            other data sets predicts for its networks.
        not_learned: number of networks that did not learn, which are not among ``points``.
        max_compression: the largest that was measured; beyond it the law is an extrapolation. ``None`` if not known.
        full_weights: kernel weights of the full-size network that was measured; ``None`` if not known.
        spatial_dims: 2 or 3, of the networks that were measured; ``None`` if not known.
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

    def __post_init__(self) -> None:
        for name in ("settings", "dataset_slopes", "left_out_errors"):
            object.__setattr__(self, name, dict(getattr(self, name)))
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
        if (network, metric) not in PUBLISHED:
            raise ValueError(f"nothing is published for {(network, metric)}; known are {sorted(PUBLISHED)}.")
        slope, intercept = PUBLISHED[network, metric]
        settings: dict[str, Any] = {"measure": "jpeg", "quality": 25, "source": "Mishra, Chen, Hu: Table 1"}
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
        """Return this project's own measurement, fitted to trainings.

        Their records come with a checkout of the source, where :func:`~monai_ccnet.calibration.refit` fits them again.

        It holds for complexity as its ``settings`` say, and for training as the bundle's ``train.yaml`` does it.

        Args:
            network: such as ``"plain_unet"``.
            metric: ``"f1"`` or ``"iu"``.

        Raises:
            ValueError: if there is none, with those that there are.
        """
        path = CALIBRATED / network / f"{metric}.json"
        if not path.is_file():
            known = sorted("/".join(file.with_suffix("").parts[-2:]) for file in CALIBRATED.glob("*/*.json"))
            raise ValueError(f"nothing is calibrated for {network}/{metric}; there are {known}.")
        return cls.load(path)

    @classmethod
    def named(cls, law: str, network_def: Mapping[str, Any], metric: str = "f1") -> DegradationModel:
        """Return the law that a setting names, of the network that is to be narrowed.

        A network that neither this project nor the paper has measured is assumed to degrade as the U-Net does.

        Args:
            law: ``"calibrated"``, ``"paper"``, or the file of a model.
            network_def: the network's config, or any mapping with its ``_target_``.
            metric: ``"f1"`` or ``"iu"``; a file has its own.

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

        First each data set's own loss per decade of weights, through the full-size network's score of 1; then the line
        of these losses against complexity. Data sets scatter about that line more than networks about their data set's,
        and the standard errors count both. Each data set is also left out in turn, and its scores predicted.

        Args:
            points: trained networks of at least two data sets of different complexity.
            metric: the score of the points.
            network: name of the network family.
            settings: of the complexities.
            source: where the points come from.
            curvature: c of h_c, held fixed; ``None`` fits it, shared by all data sets, in the first step.

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
        """Return this model for one data set, knowing a few networks trained on it.

        What is known of all data sets is the prior of this one's loss per decade; the scores of its own networks, with
        the full-size network's unknown, are the evidence. They need not be relative: their common factor cancels. One
        narrow network alone says next to nothing, two of different width bound the slope, more bound it better.

        Args:
            points: trained networks of one data set; their scores on any common scale.

        Raises:
            ValueError: if points are of several data sets or complexities, none learned, or the model knows no
                deviation between data sets.
        """
        points = [point for point in points if point.has_learned]
        if len({(point.dataset, point.complexity) for point in points}) != 1:
            raise ValueError("adapting needs at least one network that learned, all of one data set and complexity.")
        if self.residual_deviation is None or self.between_deviation is None:
            raise ValueError("this model does not know how data sets and networks scatter: fit one on records first.")
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
        """Root mean square of ``left_out_errors`` over the data sets, ``None`` where they are not known."""
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
            complexity: of the data set, measured with this model's settings.
            compression: full weights / weights, at least 1.

        >>> round(DegradationModel.published("unet").predict(0.1518, compression=10), 4)
        0.9234
        """
        loss = self.loss_per_decade(complexity) * log_compression(compression, self.curvature)
        return min(1.0, max(0.0, 1 - loss))

    def error_on(self, points: Iterable[DegradationPoint]) -> float:
        """Return the root mean square error of the relative scores that the law predicts for trained networks.

        Full-size networks and those that did not learn are passed over. Predictions are not cut off at 1 and 0, as
        :meth:`predict` does, so that a network that does better than the full-size one counts as it is.

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
        of_slope = log_compression(compression, self.curvature) ** 2 * self._slope_variance(complexity)
        of_network = self.residual_deviation**2
        deviation = math.sqrt(of_slope + of_network)
        # Degrees of freedom of a sum of variances that were estimated each from its own (Welch, Satterthwaite).
        free = float(self.points)
        if self.between_deviation is not None and deviation > 0:
            parts = of_slope**2 / max(1, self.datasets - 2) + of_network**2 / max(1, self.points - self.datasets)
            free = deviation**4 / parts
        quantile = float(stats.t.ppf((1 + level) / 2, max(1.0, free)))
        return Prediction(score, max(0.0, score - quantile * deviation), min(1.0, score + quantile * deviation), level)

    def _slope_variance(self, complexity: float) -> float:
        """Return the variance of the loss per decade of a new data set about the law's, as far as it is known."""
        variance = (self.between_deviation or 0.0) ** 2
        if self.covariance is not None:
            point = np.array([complexity, 1.0])
            variance += float(point @ np.array(self.covariance) @ point)
        return variance

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

    def covered_compression(self, full_weights: int) -> float:
        """Return how far a full-size network can be compressed before its law becomes an extrapolation.

        That is as far as was measured, and no further than to the fewest weights that were measured: a network that is
        small to begin with is near the sizes at which networks fail.

        >>> model = DegradationModel.from_constants(0.4, 0.01, max_compression=256.0, full_weights=1_000_000)
        >>> model.covered_compression(1_000_000), model.covered_compression(100_000)
        (256.0, 25.6)
        """
        if self.max_compression is None:
            return math.inf
        share = 1.0 if self.full_weights is None else min(1.0, full_weights / self.full_weights)
        return max(1.0, self.max_compression * share)

    def assumption_for(self, network_def: Mapping[str, Any], spatial_dims: int, full_weights: int) -> str | None:
        """Say how a network differs from the one that was measured, ``None`` where it does not or that is not known.

        Args:
            network_def: the network's config, or any mapping with its ``_target_``.
            spatial_dims: 2 or 3.
            full_weights: kernel weights of the full-size network; within 5 % they count as equal, since channels in
                and out belong to the data.

        >>> law = DegradationModel.published("unet")
        >>> law.assumption_for({"_target_": "monai_ccnet.networks.PlainUNet"}, 2, 31_023_744)
        >>> print(law.assumption_for({"_target_": "SegResNet"}, 3, 4_700_000)[:52])
        Assumed: the law was measured on PlainUNet (2-D, 31,
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
            f"Assumed: the law was measured on {measured or 'another network'} ({', '.join(details)}), this is {given} "
            f"({spatial_dims}-D, {full_weights:,})."
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
        slope, intercept, sign = f"{self.slope:.4g}", f"{abs(self.intercept):.4g}", "-" if self.intercept < 0 else "+"
        if errors:
            slope, intercept = f"{slope} ± {errors[0]:.2g}", f"{intercept} ± {errors[1]:.2g}"
        words = (
            f"law of {self.network or 'a network'} ({self.metric}): {slope} x complexity {sign} {intercept} "
            f"lost per decade of weights"
        )
        if self.curvature or self.curvature_error is not None:
            error = "" if self.curvature_error is None else f" ± {self.curvature_error:.2g}"
            words += f", curvature {self.curvature:.3g}{error}"
        words += f"; {self.source or 'no source stated'}"
        if self.r_squared is not None:
            words += f"; R² {self.r_squared:.2f} over {self.datasets} data sets"
        if self.left_out_errors:
            listed = ", ".join(f"{name} {error:.3f}" for name, error in self.left_out_errors.items())
            words += f"; leave-one-data-set-out error of the relative score {self.left_out_error:.3f} ({listed})"
        if self.not_learned:
            words += f"; {self.not_learned} networks failed to learn and are not counted"
        return words
