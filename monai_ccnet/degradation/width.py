"""The law in width: what a network of some width reaches of the full-size network's score, and how sure that is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from monai_ccnet.degradation.curves import FREEDOM, Curve, Grid, fit_curves, grid_of, posterior, relative_scores
from monai_ccnet.degradation.law import METRICS, Prediction, check_settings
from monai_ccnet.degradation.model import calibrated_file
from monai_ccnet.files import shown
from monai_ccnet.values import Value, check_numbers

__all__ = ["UNKNOWN_GAIN", "WIDTH_MEASURES", "WIDTH_WORDS", "WidthLaw", "WidthPoint"]

# What may count as a network's width, in words; NetworkFamily.width calculates it.
WIDTH_WORDS = {
    "mean": "mean channels of the stages",
    "first": "channels of the first stage",
    "macs": "square root of the multiply-adds of a pixel",
    "weights": "square root of the kernel weights",
}
WIDTH_MEASURES = tuple(WIDTH_WORDS)
UNKNOWN_GAIN = (0.0, 0.05)  # of a scale beside the planned one, where no network was measured at both
_FAILING_PRIOR = ((-4.0, 1.5), (-1.0, 1.0))  # of the log odds at the reference width, and of their change per doubling


class WidthPoint(NamedTuple):
    """One trained network: its data set, width, score in any unit that the data set's networks share.

    A network that failed to learn tells nothing of the curve; it counts for the chance of failing. The complexity of
    the data set counts where a law uses it.
    """

    dataset: str
    width: float
    score: float
    has_learned: bool = True
    complexity: float = 0.0


@dataclass(frozen=True)
class WidthLaw(Value):
    """A network's score against its width: ``S * (1 - A * (width / reference) ** -exponent)``.

    The plateau S and the loss A are each data set's own. The law knows how A varies over data sets, and how single
    trainings scatter; its predictions are of one training relative to another one of the full-size network.

    Attributes:
        exponent: how fast the loss falls with width; the same for all data sets.
        reference: width at which losses are stated.
        loss: centre of the losses A of data sets.
        loss_deviation: scale of their Student's t.
        loss_error: standard error of the centre.
        noise: median standard deviation of a training about its data set's curve, relative to the plateau.
        noise_spread: standard deviation of its logarithm over data sets.
        measure: what counts as width, one of :data:`WIDTH_MEASURES`.
        metric: the score that it holds for, ``"f1"`` or ``"iu"``.
        network: name of the network's class.
        spatial_dims: number of spatial axes of the networks that were measured; ``None`` if unknown.
        stages: number of their widths; ``None`` if unknown.
        loss_per_complexity: what a unit of complexity adds to the centre; 0 where complexity is not used.
        settings: settings of the complexity measure; empty where complexity is not used.
        freedom: degrees of freedom of the losses.
        failing: log odds that a training fails to learn at the reference width, and what each doubling of it adds.
        dataset_losses: loss of each data set that was measured.
        dataset_noises: noise of each.
        points: number of trained networks behind the numbers.
        not_learned: number of those that failed to learn.
        narrowest: smallest width that was measured; below it the law is an extrapolation.
        coarser: log of the score at half the planned resolution over that at the planned one, by the same network:
            mean and standard deviation over data sets.
        finer: the same at twice the planned resolution.
        source: origin of the numbers.
    """

    exponent: float
    reference: float
    loss: float
    loss_deviation: float
    noise: float
    loss_error: float = 0.0
    noise_spread: float = 0.0
    measure: str = "mean"
    metric: str = "f1"
    network: str = ""
    spatial_dims: int | None = None
    stages: int | None = None
    loss_per_complexity: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    freedom: float = FREEDOM
    failing: tuple[float, float] = (_FAILING_PRIOR[0][0], _FAILING_PRIOR[1][0])
    dataset_losses: dict[str, float] = field(default_factory=dict)
    dataset_noises: dict[str, float] = field(default_factory=dict)
    points: int = 0
    not_learned: int = 0
    narrowest: float = 0.0
    coarser: tuple[float, float] = UNKNOWN_GAIN
    finer: tuple[float, float] = UNKNOWN_GAIN
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("failing", "coarser", "finer"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 2 or not all(map(math.isfinite, getattr(self, name))):
                raise ValueError(f"{name} must hold two numbers, got {shown(getattr(self, name))}.")
        for name in ("settings", "dataset_losses", "dataset_noises"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if self.measure not in WIDTH_MEASURES:
            raise ValueError(f"measure must be one of {', '.join(WIDTH_MEASURES)}, got {shown(self.measure)}.")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {shown(self.metric)}.")
        if self.spatial_dims not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {shown(self.spatial_dims)}.")
        above_0 = {"exponent": self.exponent, "reference": self.reference, "noise": self.noise}
        check_numbers("a law", 1e-9, **above_0, loss_deviation=self.loss_deviation, freedom=self.freedom)
        check_numbers("a law", 0, loss_error=self.loss_error, noise_spread=self.noise_spread, narrowest=self.narrowest)
        check_numbers("a law", 0, points=self.points, not_learned=self.not_learned, **self.dataset_noises)
        check_numbers("a law", -1e6, loss=self.loss, loss_per_complexity=self.loss_per_complexity)
        check_numbers("a law", -1e6, **self.dataset_losses)
        check_numbers("a law", 0, coarser_deviation=self.coarser[1], finer_deviation=self.finer[1])

    @classmethod
    def fit(cls, points: Iterable[WidthPoint], *, measure: str = "mean", **fields: Any) -> WidthLaw:
        """Fit the law to trained networks by the largest evidence; see :mod:`monai_ccnet.degradation.curves`.

        Args:
            points: networks of at least two data sets, of at least two widths.
            measure: what their widths are.
            fields: further fields of the law, such as ``metric``, ``network`` or ``source``; with ``settings`` the
                complexity of the points is used.

        Raises:
            ValueError: if there are too few.
        """
        return cls.with_evidence(points, measure=measure, **fields)[0]

    @classmethod
    def with_evidence(
        cls, points: Iterable[WidthPoint], *, measure: str = "mean", **fields: Any
    ) -> tuple[WidthLaw, float]:
        """Return what :meth:`fit` does, and the log evidence, by which laws of the same scores are compared."""
        points = list(points)
        learned = [point for point in points if point.has_learned]
        if not all(math.isfinite(each.width) and each.width > 0 and math.isfinite(each.score) for each in points):
            raise ValueError("points of a law need finite scores, and widths above 0.")
        groups: dict[str, list[WidthPoint]] = defaultdict(list)
        for point in learned:
            groups[point.dataset].append(point)
        curves = {name: _curve(group) for name, group in groups.items()}
        reference = float(np.median([point.width for point in learned])) if learned else 1.0
        fit = fit_curves(curves, reference, with_complexity=bool(fields.get("settings")))
        law = cls(
            fit.exponent,
            reference,
            fit.loss,
            fit.loss_deviation,
            fit.noise,
            fit.loss_error,
            fit.noise_spread,
            measure,
            loss_per_complexity=fit.loss_per_complexity,
            failing=_failing([math.log2(each.width / reference) for each in points], [p.has_learned for p in points]),
            dataset_losses=fit.losses,
            dataset_noises=fit.noises,
            points=len(points),
            not_learned=len(points) - len(learned),
            narrowest=min(point.width for point in learned),
            **fields,
        )
        return law, fit.log_evidence

    def adapt(self, points: Iterable[WidthPoint]) -> WidthLaw:
        """Return the law of one data set, of which a few networks were trained; the prior gives way to their scores.

        The full-size network's score may be unknown, and one network alone says nothing: two widths do.

        Args:
            points: trained networks of one data set; scores in any unit.

        Raises:
            ValueError: if the points are of several data sets, or none learned.
        """
        points = [point for point in points if point.has_learned]
        if len({point.dataset for point in points}) != 1:
            raise ValueError("adapting needs at least one network that learned, all of one data set.")
        curve = _curve(points)
        own, _ = posterior(self.grid(curve.complexity), self._hardness(curve.widths), curve.scores)
        shares = own.probabilities.sum(axis=1)
        mean = float(shares @ own.losses)
        of_noise = own.probabilities.sum(axis=0)
        log_noise = float(of_noise @ np.log(own.noises))
        return replace(
            self,
            loss=mean,
            loss_deviation=max(1e-6, math.sqrt(float(shares @ (own.losses - mean) ** 2))),
            loss_error=0.0,
            loss_per_complexity=0.0,
            settings={},
            freedom=30.0,  # a posterior, nearly normal
            noise=math.exp(log_noise),
            noise_spread=math.sqrt(max(0.0, float(of_noise @ (np.log(own.noises) - log_noise) ** 2))),
            source=f"{self.source or 'a law of unknown source'}, adapted to {points[0].dataset} by {len(points)} of "
            "its own networks",
        )

    def grid(self, complexity: float = 0.0) -> Grid:
        """Return the distribution of the loss and the noise of a data set."""
        centre = self.loss + self.loss_per_complexity * complexity
        known = len(self.dataset_losses)
        freedom = min(self.freedom, max(1.0, known - 1.0)) if known else self.freedom
        return grid_of(centre, math.hypot(self.loss_deviation, self.loss_error), self.noise, self.noise_spread, freedom)

    def predict(self, width: float, full_width: float, complexity: float = 0.0) -> float:
        """Return the median score of a network relative to the full-size one's."""
        return self.predict_interval(width, full_width, complexity).score

    def predict_interval(
        self, width: float, full_width: float, complexity: float = 0.0, level: float = 0.9
    ) -> Prediction:
        """Return the score of one training relative to another of the full-size network: median and interval.

        Args:
            width: width of the network, by :attr:`measure`.
            full_width: width of the full-size network.
            complexity: complexity of the data set, where the law uses it.
            level: probability of the interval, which has two sides and is not cut at 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}.")
        centres, deviations, shares = self._mixture(width, full_width, complexity)
        low, high = float((centres - 9 * deviations).min()), float((centres + 9 * deviations).max())

        def quantile(at: float) -> float:
            return float(
                optimize.brentq(lambda x: shares @ special.ndtr((x - centres) / deviations) - at, low, high, xtol=1e-6)
            )

        return Prediction(quantile(0.5), quantile((1 - level) / 2), quantile((1 + level) / 2), level)

    def probability(self, min_score: float, width: float, full_width: float, complexity: float = 0.0) -> float:
        """Return the probability that a training that learns reaches a score relative to the full-size network's."""
        centres, deviations, shares = self._mixture(width, full_width, complexity)
        return float(shares @ special.ndtr((centres - min_score) / deviations))

    @classmethod
    def calibrated(cls, network: str, metric: str = "f1") -> WidthLaw:
        """Return this project's own law, fitted to its trainings by the planned recipe.

        Args:
            network: name of the network family, such as ``"plain_unet"``.
            metric: name of the score, ``"f1"`` or ``"iu"``.

        Raises:
            ValueError: if there is no such law; the message lists those available.
        """
        return cls.load(calibrated_file(network, metric, "_width", "law in width"))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise an error for complexities that were measured with other settings than those of this law."""
        check_settings(self.settings, settings)

    def assuming(self, settings: Mapping[str, Any]) -> WidthLaw:
        """Return this law as if it held for other settings; one that uses no complexity holds for any."""
        return self if not self.settings else replace(self, settings=dict(settings))

    def assumption_for(self, network_def: Mapping[str, Any], spatial_dims: int, stages: int) -> str | None:
        """Return how a network differs from those that were measured, ``None`` if it does not or this is unknown.

        Args:
            network_def: the network's config, or any mapping with its ``_target_``.
            spatial_dims: number of spatial axes.
            stages: number of widths.
        """
        given = str(network_def["_target_"]).rsplit(".", 1)[-1], spatial_dims, stages
        measured = self.network or given[0], self.spatial_dims or spatial_dims, self.stages or stages
        if measured == given:
            return None
        ours, theirs = (f"{name} of {count} widths in {axes}-D" for name, axes, count in (measured, given))
        return f"Assumption: no {theirs} was measured; the law is of {ours}."

    def chance_of_failing(self, width: float) -> float:
        """Return the probability that a training of a network does not learn."""
        return float(special.expit(self.failing[0] + self.failing[1] * math.log2(width / self.reference)))

    def _mixture(self, width: float, full_width: float, complexity: float) -> tuple[np.ndarray, ...]:
        hardness = self._hardness(np.array([width, full_width]))
        return relative_scores(self.grid(complexity), *hardness)

    def _hardness(self, widths: np.ndarray) -> np.ndarray:
        return np.asarray((widths / self.reference) ** -self.exponent)

    def __str__(self) -> str:
        names = ", ".join(self.dataset_losses)
        dims = f"{self.spatial_dims}-D, " if self.spatial_dims else ""
        complexity = f" + {self.loss_per_complexity:.3g} x complexity" if self.settings else ""
        words = (
            f"law of {self.network or 'a network'} in width ({dims}{self.metric}): relative score lost = A x "
            f"({WIDTH_WORDS[self.measure]} / {self.reference:.3g}) ^ -{self.exponent:.2f}; A of a data set "
            f"{self.loss:.3f}{complexity}, give or take {self.loss_deviation:.3f}; a training scatters by "
            f"{self.noise:.3f}; {self.source or 'source unknown'}"
        )
        if names:
            words += f"; {self.points} trainings on {len(self.dataset_losses)} data sets ({names})"
        return words + (f"; {self.not_learned} failed to learn" if self.not_learned else "")


def _curve(points: Iterable[WidthPoint]) -> Curve:
    points = list(points)
    return Curve(
        np.array([point.width for point in points], float),
        np.array([point.score for point in points], float),
        points[0].complexity,
    )


def _failing(doublings: list[float], has_learned: list[bool]) -> tuple[float, float]:
    """Return log odds of failing at the reference width and their change per doubling, by logistic regression."""
    x, failed = np.array(doublings), ~np.array(has_learned)

    def cost(parameters: np.ndarray) -> float:
        odds = parameters[0] + parameters[1] * x
        prior = sum(0.5 * ((p - at) / width) ** 2 for p, (at, width) in zip(parameters, _FAILING_PRIOR, strict=True))
        return float(np.logaddexp(0, odds).sum() - odds[failed].sum() + prior)

    found = optimize.minimize(cost, [at for at, _ in _FAILING_PRIOR], method="BFGS").x
    return float(found[0]), float(found[1])
