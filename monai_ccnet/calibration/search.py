"""Search for the smallest network that is good enough on one's own images: what to train next, and when it is enough.

A network is good enough if it keeps all but a tolerated share of the score that any wider one would reach, at any
scale. First a cheap network climbs from the coarsest scale to finer ones while it gains. At the scale that won, a
ladder of widths is climbed in the order in which trainings decide most for their cost: the law in width is the prior,
the scores on held-out images update it, and it ends when some rung is good enough with the confidence that was asked
for, or the cost is spent. Nothing here trains: :func:`next_step` is a function of the trainings so far.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from monai_ccnet.degradation import WidthLaw
from monai_ccnet.degradation.curves import Grid, posterior
from monai_ccnet.scales import Scale, halvings, resolution_words

__all__ = ["Rung", "Search", "Step", "Training", "next_step"]

_IMAGES = 30  # of a test part on which the law's noise was measured; fewer held-out images scatter more
_PRICE = 13.0  # in logs of the size, of as many multiply-adds as one training of the full-size network takes
_LEAST_HOPE = 0.2  # probability that a finer scale gains, at which it is still tried
_SHARE_OF_WIDEST = 0.17  # of the most cost, that one training of the wide network may take
_LEAST_VALUE = 0.01  # in logs of the size, of the time that any training takes
_MOST_TRAININGS = 16  # in all: at coarse scales they cost next to no arithmetic, but time
_NO_ANSWER = 2.0  # in logs of the size, what it is worth to have an answer at all
_PSEUDO = 5  # trainings that what is known of the others counts for, where one rung fails to learn
_LEAST_SPREAD = 0.5  # of the log of the noise: other images may scatter much more than those of the law
_OWN = 0.25  # share of a training's variance about the curve that its next seed has too
_ANY_LEVEL = 10.0  # standard deviation of the log of a score of which nothing is known
_OUTCOMES, _OUTCOME_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


class Rung(NamedTuple):
    """A network that may be chosen.

    ``width`` is by the law's measure, ``size`` what is to be small, ``cost`` that of one training as a share of one of
    the full-size network.
    """

    channels: tuple[int, ...]
    scale: Scale
    width: float
    size: float
    file_bytes: int
    macs: float
    cost: float


class Training(NamedTuple):
    """What one training of a rung reached on the held-out images."""

    rung: Rung
    seed: int
    score: float
    has_learned: bool = True


class Step(NamedTuple):
    """What to train next, with which seeds; nothing at the end, and ``chosen`` is then the answer, if there is one.

    ``probability`` is that of being good enough, and ``reason`` says why this step was taken. Where no rung is sure
    enough, the answer is the one that scored best on the held-out images.
    """

    train: tuple[tuple[Rung, int], ...]
    chosen: Rung | None
    probability: float
    reason: str


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        rungs: the networks at each scale, from the coarsest to the finest, and from the narrowest to the widest.
        planned: the scale that the labels plan, about which the law knows what other scales gain.
        climber: width of the network that climbs the scales; at each it is the widest rung that is no wider.
        law: the law in width: the prior.
        full_width: width of the full-size network.
        tolerance: share of the score that may be lost.
        confidence: probability with which no more is lost.
        most_cost: most that may be spent, as a share of one training of the full-size network.
        images: number of held-out images.
        most_seeds: most trainings of one rung.
    """

    rungs: Mapping[Scale, Sequence[Rung]]
    planned: Scale
    climber: float
    law: WidthLaw
    full_width: float
    tolerance: float
    confidence: float
    most_cost: float
    images: int
    most_seeds: int = 4

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < 1 and 0 < self.confidence < 1 and self.most_cost > 0):
            raise ValueError(
                "tolerance and confidence must lie in (0, 1) and the most cost above 0, got "
                f"{self.tolerance}, {self.confidence}, {self.most_cost}."
            )

    def climbing(self, scale: Scale, climber: float) -> Rung | None:
        """Return the rung that climbs at a scale."""
        return max((r for r in self.rungs[scale] if r.width <= climber), key=lambda r: r.width, default=None)

    def noise(self, grid: Grid) -> float:
        """Return the standard deviation of a training's score on the held-out images, relative to the score."""
        return math.sqrt(float(grid.probabilities.sum(axis=0) @ grid.noises**2))

    def noise_after(self, trainings: Sequence[Training]) -> float:
        """Return the noise that is known once some networks were trained."""
        return self.noise(_posterior(self, trainings))

    @functools.cached_property
    def prior(self) -> Grid:
        """Loss and noise before any training: on fewer images than the law's a score scatters more."""
        grid = replace(self.law, noise_spread=max(self.law.noise_spread, _LEAST_SPREAD)).grid()
        return grid._replace(noises=grid.noises * math.sqrt(max(1.0, _IMAGES / self.images)))

    def hardness(self, width: float) -> float:
        """Return how hard a width is, 1 at the law's reference."""
        return float((width / self.law.reference) ** -self.law.exponent)


class _Levels(NamedTuple):
    """What is known of the log of the climber's score at each scale: a normal distribution."""

    scales: tuple[Scale, ...]
    mean: np.ndarray
    covariance: np.ndarray

    def gain(self, scale: Scale, over: Scale) -> tuple[float, float]:
        """Return what a scale gains over another, and the standard error."""
        here, there = self.scales.index(scale), self.scales.index(over)
        of = self.covariance
        variance = of[here, here] + of[there, there] - 2 * of[here, there]
        return float(self.mean[here] - self.mean[there]), math.sqrt(max(float(variance), 0.0))


class _Known(NamedTuple):
    """What the trainings so far say: the loss and noise, the level of each scale, and the best of those tried."""

    climber: float
    best: Scale
    grid: Grid
    noise: float
    levels: _Levels
    tried: tuple[Scale, ...]


def next_step(search: Search, trainings: Sequence[Training]) -> Step:
    """Return what to train next, or the answer.

    Args:
        search: what is searched.
        trainings: what was trained so far, in any order.
    """
    spent = sum(training.rung.cost for training in trainings)
    wider = {rung.width for rungs in search.rungs.values() for rung in rungs if rung.width > search.climber}
    for climber in (search.climber, *sorted(wider)):
        best, wanted, reason = _climb(search, trainings, climber, search.most_cost - spent)
        if wanted:
            return Step(wanted, None, 0.0, reason)
        if best is not None:
            return _choose(search, trainings, _known(search, trainings, climber), search.most_cost - spent)
    return Step((), None, 0.0, "no network learned at any scale")


def _climb(
    search: Search, trainings: Sequence[Training], climber: float, left: float
) -> tuple[Scale | None, tuple[tuple[Rung, int], ...], str]:
    """Return the best scale for one network; or what has to be trained to know it, and why."""
    noise = search.noise(search.prior)
    levels, best = _levels(search, trainings, climber, noise), None
    for scale in search.rungs:
        rung = search.climbing(scale, climber)
        if rung is None:
            continue
        runs = _runs(trainings, rung)
        where = f"{_words(rung)} at {resolution_words(scale)}"
        if not runs:
            if rung.cost > left or (best is not None and _hope(search, levels, scale, best) < _LEAST_HOPE):
                break
            which = "a first scale" if best is None else "the next finer scale"
            return None, ((rung, 0),), f"{where}: {which}"
        if not _learned(runs):
            if len(runs) < min(2, search.most_seeds) and rung.cost <= left:
                return None, ((rung, len(runs)),), f"{where} failed to learn: again"
            continue
        if best is None:
            best = scale
            continue
        before = _runs(trainings, search.climbing(best, climber))
        gain, error = levels.gain(scale, best)
        if abs(gain) < error:
            again = [(each[0].rung, len(each)) for each in (runs, before) if len(each) < min(2, search.most_seeds)]
            if again and sum(rung.cost for rung, _ in again) <= left:
                over = resolution_words(best)
                return None, tuple(again), f"{where} gains {gain:+.1%} over {over}, too close to tell: again"
        best = scale if gain > 0 else best
    return best, (), ""


def _hope(search: Search, levels: _Levels, scale: Scale, best: Scale) -> float:
    """Return the probability that a scale gains at least half the tolerance over the best so far."""
    gain, error = levels.gain(scale, best)
    return float(special.ndtr((gain - search.tolerance / 2) / max(error, 1e-9)))


def _levels(search: Search, trainings: Sequence[Training], climber: float, noise: float) -> _Levels:
    """Return what the law and the climber's trainings say of each scale.

    From the planned scale outward, each halving of the resolution moves the level by a normal step of the law's.
    """
    scales = tuple(search.rungs)
    steps = np.array([halvings(scale) - halvings(search.planned) for scale in scales])
    means, deviations = np.transpose([search.law.coarser if step > 0 else search.law.finer for step in steps])
    shared = np.minimum.outer(np.abs(steps), np.abs(steps)) * (np.sign(steps)[:, None] == np.sign(steps))
    mean, covariance = means * np.abs(steps), shared * np.outer(deviations, deviations) + _ANY_LEVEL**2
    runs = [_learned(_runs(trainings, search.climbing(scale, climber))) for scale in scales]
    seen = [index for index, each in enumerate(runs) if each]
    if seen:
        missed = np.array([np.log([run.score for run in runs[index]]).mean() for index in seen]) - mean[seen]
        scatter = np.diag([noise**2 / len(runs[index]) for index in seen])
        weights = np.linalg.solve(covariance[np.ix_(seen, seen)] + scatter, covariance[seen])
        mean, covariance = mean + missed @ weights, covariance - covariance[:, seen] @ weights
    return _Levels(scales, mean, covariance)


def _known(search: Search, trainings: Sequence[Training], climber: float) -> _Known:
    """Return what the trainings say once the climber learned at some scale."""
    grid = _posterior(search, trainings)
    noise = search.noise(grid)
    levels = _levels(search, trainings, climber, noise)
    tried = tuple(s for s in search.rungs if _learned(_runs(trainings, search.climbing(s, climber))))
    best = max(tried, key=lambda scale: levels.mean[levels.scales.index(scale)])
    return _Known(climber, best, grid, noise, levels, tried)


def _posterior(search: Search, trainings: Sequence[Training]) -> Grid:
    """Return loss and noise given the trainings at all scales, each with a plateau of its own."""
    grid = search.prior
    for scale in search.rungs:
        own = [each for each in trainings if each.rung.scale == scale and each.has_learned]
        if own:
            hardness = np.array([search.hardness(each.rung.width) for each in own])
            grid, _ = posterior(grid, hardness, np.array([each.score for each in own]))
    return grid


def _choose(search: Search, trainings: Sequence[Training], known: _Known, left: float) -> Step:
    """Return the training that decides most for its cost, or the answer if none is worth it."""
    for scale in _close(search, known):
        affordable = [rung for rung in search.rungs[scale] if rung.cost <= _SHARE_OF_WIDEST * search.most_cost]
        widest = max(affordable, key=lambda rung: rung.width, default=None)
        if widest is not None and not _runs(trainings, widest) and widest.cost <= left:
            where = f"{_words(widest)} at {resolution_words(scale)}"
            return Step(((widest, 0),), None, 0.0, f"{where}: what a wide network reaches")
    sure = _sure(search, trainings, known)
    answer = _answer(search, sure)
    now = _price(search, trainings, known, sure)
    values = [
        (now - _expected(search, trainings, known, rung) - _PRICE * rung.cost - _LEAST_VALUE, rung)
        for rung in _candidates(search, trainings, known)
        if len(_runs(trainings, rung)) < search.most_seeds and rung.cost <= left
    ]
    value, rung = max(values, key=lambda each: each[0], default=(0.0, None))
    is_worth_it = value > 0 or answer is None  # without an answer all may be spent that was allowed
    if rung is not None and is_worth_it and len(trainings) < _MOST_TRAININGS:
        seed = len(_runs(trainings, rung))
        where = f"{_words(rung)} at {resolution_words(rung.scale)}"
        return Step(((rung, seed),), None, 0.0, f"{where}{' again' if seed else ''}: decides most")
    if answer is not None:
        return Step((), answer, sure[answer], "sure enough")
    chosen = _best(search, trainings, known, sure)
    spent = left < max(rung.cost for rung in sure)
    reason = "the cost is spent" if spent else f"after {len(trainings)} trainings"
    return Step((), chosen, sure[chosen], reason)


def _sure(search: Search, trainings: Sequence[Training], known: _Known) -> dict[Rung, float]:
    """Return the probability that each rung that was trained, and learned, is good enough."""
    is_repeated = any(training.seed for training in trainings)
    found = {}
    for rung in dict.fromkeys(training.rung for training in _learned(trainings)):
        if rung.scale in known.tried:
            widths = {training.rung.width for training in _learned(trainings) if training.rung.scale == rung.scale}
            sure = _good_enough(search, trainings, known, rung) * _learning(search, trainings, rung)
            if len(widths) < 2 or not is_repeated:  # how much is lost, or scatters, is the prior's word alone
                sure = min(sure, 0.99 * search.confidence)
            found[rung] = sure
    return found


def _learning(search: Search, trainings: Sequence[Training], rung: Rung) -> float:
    """Return the probability that a training of a rung learns: by the law, by all trainings, and by its own."""
    runs, failed = _runs(trainings, rung), len(trainings) - len(_learned(trainings))
    failing = (_PSEUDO * search.law.chance_of_failing(rung.width) + failed) / (_PSEUDO + len(trainings))
    return (_PSEUDO * (1 - failing) + len(_learned(runs))) / (_PSEUDO + len(runs))


def _good_enough(search: Search, trainings: Sequence[Training], known: _Known, rung: Rung) -> float:
    """Return the probability that a rung keeps all but the tolerance of what any wider one reaches at any scale."""
    shares = known.grid.probabilities.sum(axis=1)
    full = 1 - known.grid.losses * search.hardness(search.full_width)
    kept = np.maximum(1 - known.grid.losses * search.hardness(rung.width), 1e-6) / np.maximum(full, 1e-6)
    _, own, own_error = _log_score(search, trainings, known, rung)
    room = np.log(kept / (1 - search.tolerance)) + own
    good = special.ndtr(room / max(own_error, 1e-9))
    for scale in known.tried:
        if scale != rung.scale:
            gain, error = known.levels.gain(scale, rung.scale)
            good *= special.ndtr((room - gain) / max(math.hypot(error, own_error), 1e-9))
    return float(shares @ good)


def _log_score(search: Search, trainings: Sequence[Training], known: _Known, rung: Rung) -> tuple[float, float, float]:
    """Return the log of a rung's score by the curve, what its own trainings add to it, and the error of that."""

    def lost(width: float) -> float:
        return float(
            known.grid.probabilities.sum(axis=1)
            @ np.log(np.maximum(1 - known.grid.losses * search.hardness(width), 1e-6))
        )

    reference = search.climbing(rung.scale, known.climber)
    level = known.levels.mean[known.levels.scales.index(rung.scale)]
    by_curve = float(level) + lost(rung.width) - lost(reference.width if reference else rung.width)
    own = [math.log(run.score) for run in _learned(_runs(trainings, rung))]
    left = _OWN * (1 - _OWN) / (1 - _OWN + _OWN * len(own))  # of the variance of a training
    share = 1 - left / _OWN
    return by_curve, share * (float(np.mean(own)) - by_curve if own else 0.0), known.noise * math.sqrt(left)


def _answer(search: Search, sure: Mapping[Rung, float]) -> Rung | None:
    """Return the smallest rung that is sure enough, ``None`` if there is none."""
    return min((rung for rung, each in sure.items() if each >= search.confidence), key=_by_size, default=None)


def _expected(search: Search, trainings: Sequence[Training], known: _Known, rung: Rung) -> float:
    """Return the mean log size of the answer once a rung is trained once more, over what it may reach."""
    seed, expected = len(_runs(trainings, rung)), 0.0
    mean, deviation = _predicted(search, trainings, known, rung)
    for outcome, weight in zip(_OUTCOMES, _OUTCOME_WEIGHTS / _OUTCOME_WEIGHTS.sum(), strict=True):
        more = [*trainings, Training(rung, seed, max(mean + deviation * outcome, 0.05 * mean))]
        later = _known(search, more, known.climber)
        expected += weight * _price(search, more, later, _sure(search, more, later))
    return float(expected)


def _price(search: Search, trainings: Sequence[Training], known: _Known, sure: Mapping[Rung, float]) -> float:
    """Return the log size of the answer, and what its score costs: the tolerance is worth as much as a factor of e.

    Without an answer it is the size of the largest network and more, the less sure the more.
    """
    answer = _answer(search, sure)
    chosen = answer or _best(search, trainings, known, sure)
    lost = -sum(_log_score(search, trainings, known, chosen)[:2]) / search.tolerance
    if answer:
        return math.log(answer.size) + lost
    largest = max(rung.size for rungs in search.rungs.values() for rung in rungs)
    return math.log(largest) + _NO_ANSWER * (1 - sure[chosen] / search.confidence) + lost


def _best(search: Search, trainings: Sequence[Training], known: _Known, among: Iterable[Rung]) -> Rung:
    """Return the rung whose score is expected to be the best."""
    return max(among, key=lambda rung: sum(_log_score(search, trainings, known, rung)[:2]))


def _predicted(search: Search, trainings: Sequence[Training], known: _Known, rung: Rung) -> tuple[float, float]:
    """Return mean and standard deviation of what a training will reach at a scale that was tried."""
    own = [each for each in trainings if each.rung.scale == rung.scale and each.has_learned]
    kept = 1 - known.grid.losses[:, None] * np.array([search.hardness(each.rung.width) for each in own])
    plateaus = (kept @ np.array([each.score for each in own])) / np.maximum((kept**2).sum(axis=1), 1e-6)
    reached, shares = (
        plateaus * (1 - known.grid.losses * search.hardness(rung.width)),
        known.grid.probabilities.sum(axis=1),
    )
    mean = float(shares @ reached)
    return mean, math.sqrt(float(shares @ (reached - mean) ** 2) + (known.noise * mean) ** 2)


def _close(search: Search, known: _Known) -> list[Scale]:
    """Return the best scale and those that are close to it."""
    gains = {scale: known.levels.gain(scale, known.best) for scale in known.tried}
    return [scale for scale, (gain, error) in gains.items() if gain >= -max(error, search.tolerance / 2)]


def _candidates(search: Search, trainings: Sequence[Training], known: _Known) -> list[Rung]:
    """Return what may be trained: all rungs at the best scale, the wide ones close to it, and those trained before.

    How much narrow ones lose at a scale that does not win tells little of one that does.
    """
    trained, close = {training.rung for training in trainings}, _close(search, known)

    def is_wanted(rung: Rung) -> bool:
        is_wide = rung.width > known.climber
        return rung.scale == known.best or rung in trained or (is_wide and rung.scale in close)

    return [rung for scale in known.tried for rung in search.rungs[scale] if is_wanted(rung)]


def _runs(trainings: Sequence[Training], rung: Rung | None) -> list[Training]:
    return [training for training in trainings if training.rung == rung]


def _learned(runs: Sequence[Training]) -> list[Training]:
    return [run for run in runs if run.has_learned]


def _by_size(rung: Rung) -> tuple[float, float]:
    return rung.size, rung.macs


def _words(rung: Rung) -> str:
    return "-".join(map(str, rung.channels))
