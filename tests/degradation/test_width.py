import math

import numpy as np
import pytest
from scipy import stats

from monai_ccnet.degradation import WIDTH_MEASURES, WidthLaw, WidthPoint
from monai_ccnet.degradation.curves import grid_of, posterior

WIDTHS = (4, 8, 16, 32, 64)
LAW = WidthLaw(1.5, 8.0, 0.05, 0.03, 0.02, noise_spread=0.3, network="PlainUNet", spatial_dims=2)


def made(rng, sets=12, seeds=2, exponent=1.5, loss=0.05, deviation=0.03, noise=0.01, plateau=None, slope=0.0):
    """Return points of data sets that follow a law with these numbers."""
    points = []
    for number in range(sets):
        complexity = number / sets
        own = loss + slope * complexity + deviation * rng.standard_normal()
        top = rng.uniform(0.5, 0.95) if plateau is None else plateau
        for width in WIDTHS:
            for _ in range(seeds):
                score = top * (1 - own * (width / 8) ** -exponent + noise * rng.standard_normal())
                points.append(WidthPoint(f"set {number}", width, score, complexity=complexity))
    return points


def test_a_fit_finds_the_law_that_made_the_scores():
    law = WidthLaw.fit(made(np.random.default_rng(0), sets=30))
    at_8 = law.loss * (8 / law.reference) ** -law.exponent
    assert law.exponent == pytest.approx(1.5, abs=0.2)
    assert at_8 == pytest.approx(0.05, abs=0.02)
    assert law.noise == pytest.approx(0.01, rel=0.3)
    assert law.points == 300
    assert law.narrowest == 4


def test_a_fit_finds_what_complexity_adds_where_it_does():
    rng = np.random.default_rng(1)
    points = made(rng, sets=30, deviation=0.01, slope=0.2)
    law, evidence = WidthLaw.with_evidence(points, settings={"measure": "boundary"})
    _, without = WidthLaw.with_evidence(points)
    at_8 = law.loss_per_complexity * (8 / law.reference) ** -law.exponent
    assert at_8 == pytest.approx(0.2, rel=0.25)
    assert evidence > without + 5
    assert law.predict(4, 64, complexity=1.0) < law.predict(4, 64, complexity=0.0)


def test_complexity_that_says_nothing_has_no_more_evidence():
    points = made(np.random.default_rng(2), sets=20)
    _, evidence = WidthLaw.with_evidence(points, settings={"measure": "boundary"})
    assert evidence < WidthLaw.with_evidence(points)[1] + 3


def test_the_unit_of_the_scores_does_not_matter():
    points = made(np.random.default_rng(3), sets=6)
    percent = [point._replace(score=100 * point.score) for point in points]
    one, other = WidthLaw.fit(points), WidthLaw.fit(percent)
    for name in ("exponent", "loss", "noise"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=0.02)


def test_the_posterior_is_that_of_a_million_draws():
    hardness, scores = np.array([2.0, 1.0, 0.3, 0.05]), np.array([0.62, 0.70, 0.76, 0.775])
    grid, _ = posterior(grid_of(0.05, 0.05, 0.01, 0.4), hardness, scores)
    mean = float(grid.probabilities.sum(axis=1) @ grid.losses)
    rng = np.random.default_rng(7)
    losses = 0.05 + 0.05 * rng.standard_t(4, 1_000_000)
    noises = 0.01 * np.exp(0.4 * rng.standard_normal(losses.size))
    plateaus = np.exp(rng.uniform(math.log(0.7), math.log(0.9), losses.size))
    kept = 1 - losses[:, None] * hardness
    logs = stats.norm.logpdf(scores, plateaus[:, None] * kept, (noises * plateaus)[:, None]).sum(axis=1)
    weights = np.exp(logs - logs.max())
    assert mean == pytest.approx(weights @ losses / weights.sum(), rel=0.03)


def test_nine_of_ten_new_trainings_lie_in_the_interval_and_floors_are_met_as_often_as_said():
    rng = np.random.default_rng(4)
    trials, inside, met, said = 600, 0, 0, 0.0
    for _ in range(trials):
        loss = 0.05 + 0.03 * rng.standard_t(4)
        noise = 0.02 * math.exp(0.3 * rng.standard_normal())
        width = rng.choice([6.0, 8.0, 16.0])
        full, narrow = (1 - loss * (w / 8) ** -1.5 + noise * rng.standard_normal() for w in (64.0, width))
        found = LAW.predict_interval(width, 64.0)
        inside += found.low <= narrow / full <= found.high
        met += narrow / full >= 0.93
        said += LAW.probability(0.93, width, 64.0)
    deviation = math.sqrt(trials * 0.9 * 0.1)
    assert abs(inside - 0.9 * trials) < 3 * deviation
    assert abs(met - said) < 3 * math.sqrt(trials * 0.25)


def test_the_narrower_the_less_and_the_less_sure():
    found = [LAW.predict_interval(width, 64) for width in WIDTHS]
    scores, lows = [each.score for each in found], [each.low for each in found]
    assert scores == sorted(scores)
    assert lows == sorted(lows)
    assert scores[-1] == pytest.approx(1.0, abs=1e-4)
    assert found[-1].low < 1 < found[-1].high, "another training of the same network scatters"
    sure = [LAW.probability(0.95, width, 64) for width in WIDTHS]
    assert sure == sorted(sure)
    assert [LAW.chance_of_failing(width) for width in WIDTHS] == sorted(
        (LAW.chance_of_failing(width) for width in WIDTHS), reverse=True
    )


def test_few_data_sets_make_a_law_less_sure():
    few = WidthLaw.from_dict({**LAW.to_dict(), "dataset_losses": {"a": 0.1, "b": 0.02}})
    many = WidthLaw.from_dict({**LAW.to_dict(), "dataset_losses": dict.fromkeys("abcdefghij", 0.05)})
    spans = [law.predict_interval(8, 64).high - law.predict_interval(8, 64).low for law in (few, many)]
    assert spans[0] > 1.5 * spans[1]


def test_own_narrow_trainings_move_the_prediction():
    own = [WidthPoint("mine", 4, 0.70), WidthPoint("mine", 16, 0.85)]
    adapted = LAW.adapt(own)
    assert LAW.predict(4, 64) > 0.86
    assert adapted.predict(4, 64) < 0.86
    assert adapted.predict(4, 64) == pytest.approx(0.70 / 0.85, abs=0.03)
    more = LAW.adapt([*own, WidthPoint("mine", 8, 0.81), WidthPoint("mine", 5, 0.745)])
    span = [each.predict_interval(8, 64).high - each.predict_interval(8, 64).low for each in (adapted, more)]
    assert span[1] < span[0]
    flat = LAW.adapt([WidthPoint("mine", 4, 0.85), WidthPoint("mine", 16, 0.85)])
    assert flat.predict(4, 64) > LAW.predict(4, 64)
    assert flat.source.endswith("adapted to mine by 2 of its own networks")


def test_adapting_is_the_same_in_percent_and_ignores_what_failed():
    own = [WidthPoint("mine", 4, 0.70), WidthPoint("mine", 16, 0.85)]
    percent = [point._replace(score=100 * point.score) for point in own]
    failed = [*own, WidthPoint("mine", 2, 0.01, has_learned=False)]
    expected = LAW.adapt(own).loss
    assert LAW.adapt(percent).loss == pytest.approx(expected)
    assert LAW.adapt(failed).loss == expected


def test_the_chance_of_failing_follows_the_trainings():
    rng = np.random.default_rng(5)
    points = made(rng, sets=6)
    failing = [*points, *[WidthPoint(f"set {number}", 1, 0.0, has_learned=number % 2 == 0) for number in range(6)]]
    assert WidthLaw.fit(failing).chance_of_failing(1) > 5 * WidthLaw.fit(points).chance_of_failing(1)
    assert WidthLaw.fit(failing).not_learned == 3


def test_a_law_round_trips_and_says_what_it_rests_on(tmp_path):
    law = WidthLaw.fit(made(np.random.default_rng(6), sets=3), network="PlainUNet", spatial_dims=2, source="made up")
    law.save(tmp_path / "law.json")
    assert WidthLaw.load(tmp_path / "law.json") == law
    assert "30 trainings on 3 data sets (set 0, set 1, set 2)" in str(law)
    assert law.assumption_for({"_target_": "PlainUNet"}, 2, 5) is None
    other = law.assumption_for({"_target_": "monai.networks.nets.SegResNet"}, 3, 1)
    assert other.startswith("Assumption: no SegResNet of 1 widths in 3-D was measured; the law is of PlainUNet")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WidthLaw.fit([]), "at least two data sets"),
        (lambda: WidthLaw.fit([WidthPoint("a", 4, 0.5), WidthPoint("b", 4, 0.5)]), "networks of two widths"),
        (lambda: WidthLaw.fit([WidthPoint("a", 0, 0.5)]), "widths above 0"),
        (lambda: WidthLaw.fit([WidthPoint("a", 4, math.nan)]), "finite scores"),
        (lambda: LAW.adapt([]), "at least one network that learned"),
        (lambda: LAW.adapt([WidthPoint("a", 4, 0.5), WidthPoint("b", 4, 0.5)]), "all of one data set"),
        (lambda: LAW.predict_interval(4, 64, level=1.0), "level must lie in"),
        (lambda: WidthLaw(0.0, 8, 0, 0.1, 0.1), "exponent of a law must be a number from"),
        (lambda: WidthLaw(1, 8, 0, 0.1, 0.1, measure="depth"), f"one of {', '.join(WIDTH_MEASURES)}"),
        (lambda: WidthLaw(1, 8, 0, 0.1, 0.1, metric="taste"), "metric must be one of"),
        (lambda: WidthLaw(1, 8, 0, 0.1, 0.1, spatial_dims=4), "2 or 3"),
        (lambda: WidthLaw(1, 8, 0, 0.1, 0.1, failing=(1.0,)), "two numbers"),
        (lambda: WidthLaw.calibrated("nothing"), "no law in width is calibrated"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
