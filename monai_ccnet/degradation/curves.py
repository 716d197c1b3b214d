"""Curves of score against width: one shape for a network, a plateau and a loss for each data set, by quadrature.

On data set ``i`` a training of a network of width ``w`` reaches

    S_i * (1 - A_i * (w / w_0) ** -p) + noise

with the plateau ``S_i`` that wide networks reach, the share ``A_i`` of it that is lost at the reference width ``w_0``,
and an exponent ``p`` that all data sets share. ``A_i`` varies from set to set by Student's t, and the noise of a
training, relative to the plateau, log-normally: a few sets lose much more than the others, or scatter much more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

__all__ = ["FREEDOM", "Curve", "CurveFit", "Grid", "fit_curves", "grid_of", "posterior", "relative_scores"]

FREEDOM = 4.0  # degrees of freedom of the losses of data sets about their mean
_LOSSES, _NOISES = 241, 9  # nodes of the quadrature
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(_NOISES)
# Means and standard deviations of weak normal priors, which keep a fit to few data sets within what is sensible: of the
# log of the exponent, the mean loss, what a standard deviation of complexity adds to it, and the logs of the losses'
# deviation, of the noise and of the spread of the noise's log.
_PRIORS = ((0.3, 0.7), (0.03, 0.2), (0.0, 0.1), (-3.0, 1.5), (-4.0, 1.5), (-0.7, 0.5))
_SLOPE = 2  # place of the complexity's
_IMPOSSIBLE = 1e9
_LEAST_KEPT = 0.02  # of the plateau, by a curve that is still taken for possible


class Curve(NamedTuple):
    """Trainings of one data set: their widths, scores, and the data set's complexity, 0 where none is used."""

    widths: np.ndarray
    scores: np.ndarray
    complexity: float = 0.0


class Grid(NamedTuple):
    """A distribution over losses at the reference width and over noise: nodes and the probability of each pair."""

    losses: np.ndarray
    noises: np.ndarray
    probabilities: np.ndarray  # (losses, noises), sum 1


class CurveFit(NamedTuple):
    """What was fitted to the curves of several data sets."""

    exponent: float
    loss: float
    loss_per_complexity: float
    loss_deviation: float
    loss_error: float
    noise: float
    noise_spread: float
    log_evidence: float
    losses: dict[str, float]  # of each data set, and the noise of each
    noises: dict[str, float]


def grid_of(loss: float, loss_deviation: float, noise: float, noise_spread: float, freedom: float = FREEDOM) -> Grid:
    """Return the distribution of the loss and noise of a data set of which nothing is known.

    Args:
        loss: centre of the losses at the reference width.
        loss_deviation: scale of their Student's t.
        noise: median standard deviation of a training about its curve, relative to the plateau.
        noise_spread: standard deviation of its logarithm.
        freedom: degrees of freedom of the losses.
    """
    # Nodes at equal steps of arcsinh: dense in the middle, and out to 60 deviations.
    steps = np.sinh(np.linspace(-math.asinh(60), math.asinh(60), _LOSSES))
    weights = stats.t.pdf(steps, freedom) * np.gradient(steps)
    losses = loss + loss_deviation * steps
    noises = noise * np.exp(noise_spread * _NODES)
    return Grid(losses, noises, np.outer(weights / weights.sum(), _NODE_WEIGHTS / _NODE_WEIGHTS.sum()))


def _log_likelihood(hardness: np.ndarray, scores: np.ndarray, losses: np.ndarray, noises: np.ndarray) -> np.ndarray:
    """Return the log likelihood of scores for each pair of loss and noise, ``(losses, noises)``.

    The plateau has a flat prior in its logarithm, and is integrated out.
    """
    kept = 1 - losses[:, None] * hardness
    squares = (kept**2).sum(axis=1)
    plateaus = np.maximum((kept @ scores) / np.maximum(squares, 1e-12), 1e-12)
    misses = ((scores / plateaus[:, None] - kept) ** 2).sum(axis=1)
    result = -0.5 * misses[:, None] / noises**2 - (len(scores) - 1) * np.log(noises) - 0.5 * np.log(squares)[:, None]
    result -= len(scores) * np.log(plateaus)[:, None]  # the noise is relative to the plateau
    result[(kept < _LEAST_KEPT).any(axis=1)] = -np.inf
    return result


def posterior(prior: Grid, hardness: np.ndarray, scores: np.ndarray) -> tuple[Grid, float]:
    """Return a data set's distribution once scores of its own networks are known, and the log evidence.

    Args:
        prior: distribution of a data set of which nothing is known.
        hardness: ``(w / w_0) ** -p`` of each network.
        scores: its score, on any common scale.

    Raises:
        ValueError: if no curve explains the scores.
    """
    with np.errstate(divide="ignore"):
        joint = _log_likelihood(hardness, scores, prior.losses, prior.noises) + np.log(prior.probabilities)
    most = float(joint.max())
    if not math.isfinite(most):
        raise ValueError(f"no curve explains the scores {np.round(scores, 4).tolist()}.")
    shares = np.exp(joint - most)  # by hand, since SciPy's logsumexp takes most of the time of a fit
    total = float(shares.sum())
    return prior._replace(probabilities=shares / total), most + math.log(total)


def fit_curves(curves: Mapping[str, Curve], reference: float, *, with_complexity: bool = False) -> CurveFit:
    """Fit the shape that data sets share and the distribution of what they do not, by the largest evidence.

    Args:
        curves: trainings of each data set that learned.
        reference: reference width.
        with_complexity: whether the centre of the losses is a line in the complexity, instead of one number.

    Raises:
        ValueError: if there are no two data sets, or none with networks of two widths.
    """
    if len(curves) < 2 or all(len(set(curve.widths)) < 2 for curve in curves.values()):
        raise ValueError("a law needs at least two data sets, and networks of two widths: train others too.")
    complexities = np.array([curve.complexity for curve in curves.values()])
    centre, unit = float(complexities.mean()), max(float(complexities.std()), 1e-12)
    logs = {name: np.log(curve.widths / reference) for name, curve in curves.items()}

    def posteriors(parameters: np.ndarray) -> Iterator[tuple[str, Grid, float]]:
        log_p, mean, slope, *log_deviations = parameters
        grid = grid_of(0.0, *np.exp(log_deviations))
        for name, curve in curves.items():
            shift = mean + slope * (curve.complexity - centre) / unit
            own, evidence = posterior(
                grid._replace(losses=grid.losses + shift), np.exp(-math.exp(log_p) * logs[name]), curve.scores
            )
            yield name, own, evidence

    def cost(parameters: np.ndarray) -> float:
        if np.abs(parameters).max() > 12:
            return _IMPOSSIBLE
        prior = sum(0.5 * ((x - at) / width) ** 2 for x, (at, width) in zip(parameters, _PRIORS, strict=True))
        try:
            return float(prior) - sum(evidence for *_, evidence in posteriors(parameters))
        except ValueError:
            return _IMPOSSIBLE

    used = [index for index in range(len(_PRIORS)) if with_complexity or index != _SLOPE]
    whole = np.array([at for at, _ in _PRIORS])

    def with_all(free: np.ndarray) -> np.ndarray:
        whole[used] = free
        return whole

    start = whole[used]
    simplex = np.vstack([start, start + np.diag([0.5 * _PRIORS[index][1] for index in used])])
    options = {"initial_simplex": simplex, "maxiter": 2000, "xatol": 1e-3, "fatol": 1e-3}
    found = optimize.minimize(lambda free: cost(with_all(free)), start, method="Nelder-Mead", options=options)
    log_p, mean, slope, *log_deviations = map(float, with_all(found.x))
    losses, noises, variances = {}, {}, []
    for name, own, _ in posteriors(whole):
        shares = own.probabilities.sum(axis=1)
        losses[name] = float(shares @ own.losses)
        variances.append(float(shares @ (own.losses - losses[name]) ** 2))
        noises[name] = math.sqrt(float(own.probabilities.sum(axis=0) @ own.noises**2))
    deviation, noise, spread = map(math.exp, log_deviations)
    return CurveFit(
        exponent=math.exp(log_p),
        loss=mean - slope * centre / unit,
        loss_per_complexity=slope / unit,
        loss_deviation=deviation,
        loss_error=math.sqrt((deviation**2 + float(np.mean(variances))) / len(curves)),
        noise=noise,
        noise_spread=spread,
        log_evidence=-float(found.fun),
        losses=losses,
        noises=noises,
    )


def relative_scores(grid: Grid, hardness: float, full_hardness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the score of one training relative to another of the full-size network, as a mixture of normals.

    Args:
        grid: distribution of the data set's loss and noise.
        hardness: ``(w / w_0) ** -p`` of the network.
        full_hardness: the same of the full-size network.

    Returns:
        Centres, standard deviations and probabilities of the normals, each ``(losses * noises,)``.
    """
    kept, full = 1 - grid.losses * hardness, np.maximum(1 - grid.losses * full_hardness, _LEAST_KEPT)
    centres = np.maximum(kept / full, 0.0)
    deviations = grid.noises[None] / full[:, None] * np.sqrt(1 + centres[:, None] ** 2)
    return np.repeat(centres, len(grid.noises)), deviations.ravel(), grid.probabilities.ravel()
