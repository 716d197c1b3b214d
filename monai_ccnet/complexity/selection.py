"""Ranking of complexity measures by how well they predict degradation (the paper's Fig. 2), by leave-one-out errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.values import Value

__all__ = ["MeasureFit", "rank_measures"]


@dataclass(frozen=True)
class MeasureFit(Value):
    """How well one measure's complexities explain how fast a network loses accuracy on each data set.

    Attributes:
        settings: settings of the measure.
        datasets: names of the data sets, in the order of the next three attributes.
        complexities: complexity of each data set by this measure.
        slopes: relative loss of score per decade of weights of each data set, measured by training.
        predicted: slope of each data set as predicted by the line through all the *other* data sets.
        slope: slope of the line through all data sets (lambda).
        intercept: intercept of that line (delta).
        leave_one_out_error: leave-one-out error: root mean square of ``slopes - predicted``.
        leave_one_out_r_squared: share of the variance of the slopes that ``predicted`` explains; 0 is no better than
            the mean of the other data sets, below 0 is worse.
        r_squared: share of the variance of the slopes that the line through all data sets explains.
        rank_correlation: Spearman's correlation of complexities and slopes; ``None`` if all complexities are equal.
    """

    settings: dict[str, Any]
    datasets: tuple[str, ...]
    complexities: tuple[float, ...]
    slopes: tuple[float, ...]
    predicted: tuple[float, ...]
    slope: float
    intercept: float
    leave_one_out_error: float
    leave_one_out_r_squared: float
    r_squared: float
    rank_correlation: float | None

    def __post_init__(self) -> None:
        for name in ("datasets", "complexities", "slopes", "predicted"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def measure(self) -> str:
        """The name of the measure."""
        return str(self.settings["measure"])

    def __str__(self) -> str:
        rank = "undefined" if self.rank_correlation is None else f"{self.rank_correlation:.2f}"
        return (
            f"{self.measure}: leave-one-out error {self.leave_one_out_error:.4f} "
            f"(R² {self.leave_one_out_r_squared:.2f}), R² {self.r_squared:.2f}, rank correlation {rank}, "
            f"{len(self.datasets)} data sets"
        )


def rank_measures(
    profiles: Iterable[ComplexityProfile], slopes: Mapping[str, float], *, scale: int = 1
) -> list[MeasureFit]:
    """Rank measures of complexity by how well they predict the degradation on a data set that they have not seen.

    The paper plots six measures against the loss of accuracy, each normalised to its own range, and chooses by eye
    (section 2.1, Fig. 2). Here each data set is left out in turn and its slope predicted by the line through the
    others, and the measure with the smallest error comes first. :func:`monai_ccnet.figures.draw_measures` draws the
    paper's figure of the result.

    Args:
        profiles: profiles of each measure on each data set; those with equal settings belong to one measure.
        slopes: relative loss of score per decade of weights of each data set, by its name.
        scale: scale at which complexities are compared.

    Returns:
        One fit per measure, the best first.

    Raises:
        ValueError: if a measure lacks a data set that has a slope, has one twice, or there are fewer than three.

    >>> datasets = {"a": 0.1, "b": 0.2, "c": 0.4, "d": 0.5}
    >>> profiles = [ComplexityProfile(name, {"measure": "jpeg"}, (1,), (x,), None, 1) for name, x in datasets.items()]
    >>> best, *_ = rank_measures(profiles, {name: 0.5 * x + 0.01 for name, x in datasets.items()})
    >>> round(best.slope, 6), round(best.intercept, 6), round(best.leave_one_out_error, 6)
    (0.5, 0.01, 0.0)
    """
    if len(slopes) < 3:
        raise ValueError(f"ranking needs the slopes of at least three data sets, got {sorted(slopes)}.")
    groups: dict[str, dict[str, ComplexityProfile]] = defaultdict(dict)
    for profile in profiles:
        group = groups[repr(sorted(profile.settings.items()))]
        if profile.dataset in group:
            raise ValueError(f"two profiles of {profile.dataset!r} have the settings {profile.settings}.")
        group[profile.dataset] = profile
    if not groups:
        raise ValueError("there is no profile to rank: measure the data sets with measure_dataset.")
    fits = []
    for group in groups.values():
        settings = next(iter(group.values())).settings
        if missing := sorted(set(slopes) - set(group)):
            raise ValueError(f"measure {settings['measure']!r} has no profile of {missing}, whose slopes were given.")
        fits.append(_fit(settings, {name: group[name].at(scale) for name in slopes}, slopes))
    return sorted(fits, key=lambda fit: fit.leave_one_out_error)


def _fit(settings: dict[str, Any], complexities: Mapping[str, float], slopes: Mapping[str, float]) -> MeasureFit:
    x, y = np.array(list(complexities.values())), np.array(list(slopes.values()))
    others = [np.delete(np.arange(len(x)), index) for index in range(len(x))]
    predicted = np.array([_line(x[kept], y[kept]) @ (x[index], 1) for index, kept in enumerate(others)])
    means = np.array([y[kept].mean() for kept in others])
    line = _line(x, y)
    return MeasureFit(
        settings=settings,
        datasets=tuple(slopes),
        complexities=tuple(map(float, x)),
        slopes=tuple(map(float, y)),
        predicted=tuple(map(float, predicted)),
        slope=float(line[0]),
        intercept=float(line[1]),
        leave_one_out_error=float(np.sqrt(np.mean((y - predicted) ** 2))),
        leave_one_out_r_squared=_explained(y - predicted, y - means),
        r_squared=_explained(y - np.vander(x, 2) @ line, y - y.mean()),
        rank_correlation=float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else None,
    )


def _line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return slope and intercept by least squares; a level line where all ``x`` are equal."""
    return np.polyfit(x, y, 1) if np.ptp(x) > 0 else np.array([0.0, y.mean()])


def _explained(misses: np.ndarray, about: np.ndarray) -> float:
    total = float(about @ about)
    return 1 - float(misses @ misses) / total if total > 0 else 0.0
