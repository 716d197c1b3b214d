"""Fitting the law to trained networks by least squares, in the paper's two steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

from monai_ccnet.degradation.law import DegradationPoint, log_compression

__all__ = ["Fit", "fit_groups", "grouped", "posterior_loss"]

_CURVATURES = (-2.0, 3.0)  # range in which a curvature is searched


class Fit(NamedTuple):
    """Results of one least-squares fit."""

    names: list[str]
    slopes: np.ndarray
    slope: float
    intercept: float
    curvature: float
    curvature_error: float | None
    covariance: tuple[tuple[float, float], tuple[float, float]]
    between_deviation: float | None
    residual_deviation: float
    r_squared: float | None
    points: int


Groups = dict[tuple[str, float], list[tuple[float, float]]]


def grouped(points: Iterable[DegradationPoint]) -> Groups:
    """Return the compression and the loss of each narrowed network that learned, by data set and complexity."""
    groups: Groups = defaultdict(list)
    for point in points:
        numbers = (point.complexity, point.compression, point.score)
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"points must be finite, got {(point.dataset, *numbers)}.")
        pairs = groups[point.dataset, point.complexity]
        if point.compression > 1 and point.has_learned:
            pairs.append((point.compression, 1 - point.score))
    if len({complexity for _, complexity in groups}) < 2:
        raise ValueError(
            f"a fit needs data sets of at least two complexities, got {sorted(groups)}: train on another data set."
        )
    if bare := sorted(key for key, pairs in groups.items() if not pairs):
        raise ValueError(f"points of {bare} hold no narrowed network (compression above 1) that learned: train one.")
    return groups


def fit_groups(groups: Mapping[tuple[str, float], list[tuple[float, float]]], curvature: float | None) -> Fit:
    """Fit each data set's slope, a shared curvature if it is not given, and the line of the slopes."""
    complexities = np.array([complexity for _, complexity in groups])
    compressions = [np.array([compression for compression, _ in pairs]) for pairs in groups.values()]
    losses = [np.array([loss for _, loss in pairs]) for pairs in groups.values()]

    def decades_at(c: float) -> list[np.ndarray]:
        return [np.array([log_compression(x, c) for x in column]) for column in compressions]

    def slopes_at(decades: list[np.ndarray]) -> np.ndarray:
        return np.array([h @ loss / (h @ h) for h, loss in zip(decades, losses, strict=True)])

    def residuals_at(c: float) -> np.ndarray:
        decades = decades_at(c)
        parts = zip(decades, losses, slopes_at(decades), strict=True)
        return np.concatenate([loss - s * h for h, loss, s in parts])

    is_fitted = curvature is None
    if is_fitted:
        found = optimize.minimize_scalar(
            lambda c: float(residuals_at(c) @ residuals_at(c)), bounds=_CURVATURES, method="bounded"
        )
        curvature = float(found.x)
    assert curvature is not None
    decades = decades_at(curvature)
    slopes = slopes_at(decades)
    residuals = residuals_at(curvature)
    degrees = len(residuals) - len(slopes) - is_fitted
    residual_variance = float(residuals @ residuals / degrees) if degrees > 0 else 0.0

    # The covariance of the slopes (and of the curvature): of the linearised problem, one column a parameter.
    owner = np.repeat(np.arange(len(slopes)), [len(h) for h in decades])
    jacobian = np.concatenate(decades)[:, None] * (owner[:, None] == np.arange(len(slopes)))
    if is_fitted:
        step = 1e-5
        change = np.concatenate(decades_at(curvature + step)) - np.concatenate(decades_at(curvature - step))
        jacobian = np.column_stack([jacobian, slopes[owner] * change / (2 * step)])
    spread = residual_variance * np.linalg.pinv(jacobian.T @ jacobian)
    within = spread[: len(slopes), : len(slopes)]

    design = np.stack([complexities, np.ones_like(complexities)], axis=1)
    solve = np.linalg.pinv(design)
    slope, intercept = solve @ slopes
    misses = slopes - design @ (slope, intercept)
    free = len(slopes) - 2
    scatter = float(misses @ misses / free) if free > 0 else 0.0
    # Scatter about the line from errors within data sets alone; the error of the shared curvature adds none.
    expected = float(np.trace(within - design @ solve @ within) / free) if free > 0 else 0.0
    between_variance = max(0.0, scatter - expected)
    covariance = solve @ (within + between_variance * np.eye(len(slopes))) @ solve.T
    total = float(np.sum((slopes - slopes.mean()) ** 2))
    return Fit(
        names=[name for name, _ in groups],
        slopes=slopes,
        slope=float(slope),
        intercept=float(intercept),
        curvature=curvature,
        curvature_error=math.sqrt(spread[-1, -1]) if is_fitted else None,
        covariance=tuple(tuple(map(float, row)) for row in covariance),  # type: ignore[arg-type]
        between_deviation=math.sqrt(between_variance) if free > 0 else None,
        residual_deviation=math.sqrt(residual_variance),
        r_squared=1 - float(misses @ misses) / total if free > 0 and total > 0 else None,
        points=len(residuals),
    )


def posterior_loss(
    decades_and_scores: Sequence[tuple[float, float]], *, prior_mean: float, prior_variance: float, deviation: float
) -> tuple[float, float]:
    """Return mean and variance of a data set's loss per decade, given a few of its own networks (Bayes, on a grid).

    The score of the full-size network is unknown: for each loss per decade the best-fitting one is used.

    Args:
        decades_and_scores: decades of weights removed from each network, and its score.
        prior_mean: mean of the loss per decade, from the other data sets.
        prior_variance: variance of the loss per decade over data sets.
        deviation: standard deviation of a network's score about its data set's law, relative to the full-size score.

    Raises:
        ValueError: if no loss per decade explains the scores.
    """
    decades, scores = np.array(decades_and_scores).T
    losses = prior_mean + math.sqrt(prior_variance) * np.linspace(-8, 8, 4001)
    kept = 1 - losses[:, None] * decades
    full = np.maximum((kept @ scores) / np.maximum((kept**2).sum(axis=1), 1e-12), 1e-12)
    squares = ((scores - full[:, None] * kept) ** 2).sum(axis=1)
    log_posterior = -squares / (2 * (deviation * full) ** 2) - (losses - prior_mean) ** 2 / (2 * prior_variance)
    log_posterior[(kept <= 0).any(axis=1)] = -np.inf
    if not np.isfinite(log_posterior).any():
        raise ValueError(f"no loss per decade explains the scores {scores.tolist()}.")
    posterior = np.exp(log_posterior - log_posterior.max())
    posterior /= posterior.sum()
    mean = float(posterior @ losses)
    return mean, float(posterior @ (losses - mean) ** 2)
