import math
from dataclasses import replace

import numpy as np
import pytest

from monai_ccnet.calibration.search import Rung, Search, Training, next_step
from monai_ccnet.degradation import WidthLaw

LAW = WidthLaw(
    1.5,
    8.0,
    0.04,
    0.03,
    0.015,
    noise_spread=0.3,
    measure="first",
    narrowest=4,
    coarser=(0.0, 0.03),
    finer=(-0.02, 0.04),
)
WIDTHS = (4, 6, 8, 11, 16, 23, 32)
FULL = 64.0


def rungs_at(scale):
    """Return rungs whose cost is that of the paper's U-Net: 1 for 64 filters at scale 1."""
    return [
        Rung(
            (width,),
            scale,
            float(width),
            1000.0 * width**2,
            1000 * width**2,
            width**2 / scale**2,
            width**2 / (FULL * scale) ** 2,
        )
        for width in WIDTHS
    ]


def search_of(scales=(4, 2, 1), **changed):
    given = {"planned": scales[len(scales) // 2], "climber": 6.0, "law": LAW, "full_width": FULL, "images": 30}
    given |= {"tolerance": 0.02, "confidence": 0.9, "most_cost": 0.1}
    return Search({scale: rungs_at(scale) for scale in scales}, **{**given, **changed})


class Images:
    """A made data set: plateaus of its scales, its loss and its noise."""

    def __init__(self, rng, plateaus, loss=0.04, noise=0.015):
        self.rng, self.plateaus, self.loss, self.noise = rng, plateaus, loss, noise

    def mean(self, rung):
        return self.plateaus[rung.scale] * (1 - self.loss * (rung.width / 8) ** -1.5)

    def train(self, rung, seed):
        score = self.mean(rung) * (1 + self.noise * self.rng.standard_normal())
        return Training(rung, seed, score)

    def is_good(self, search, rung):
        best = max(self.plateaus.values()) * (1 - self.loss * (FULL / 8) ** -1.5)
        return self.mean(rung) >= (1 - search.tolerance) * best


def searched(search, train):
    """Return the answer of a search and its trainings."""
    trainings = []
    while (step := next_step(search, trainings)).train:
        assert len(trainings) < 40
        trainings += [train(rung, seed) for rung, seed in step.train]
    return step, trainings


def cost(trainings):
    return sum(training.rung.cost for training in trainings)


def test_nine_of_ten_claims_are_true_and_the_choice_is_small_and_cheap():
    rng, search = np.random.default_rng(0), search_of()
    claims, sizes, costs = [], [], []
    for _ in range(40):
        plateaus = {4: rng.uniform(0.6, 0.9)}
        plateaus[2] = plateaus[4] * rng.uniform(0.9, 1.1)
        plateaus[1] = plateaus[2] * rng.uniform(0.9, 1.05)
        loss = 0.04 + 0.03 * rng.standard_t(4)
        images = Images(rng, plateaus, loss, 0.015 * math.exp(0.3 * rng.standard_normal()))
        step, trainings = searched(search, images.train)
        costs.append(cost(trainings))
        if step.probability >= search.confidence:
            claims.append(images.is_good(search, step.chosen))
            sizes.append(step.chosen.width)
    assert len(claims) >= 20
    assert sum(claims) >= 0.9 * len(claims) - 3 * math.sqrt(0.09 * len(claims))
    assert np.median(sizes) <= 23
    assert np.median(costs) <= 0.05
    assert max(costs) <= search.most_cost


def test_it_is_a_function_of_the_trainings_in_any_order():
    images = Images(np.random.default_rng(1), {4: 0.7, 2: 0.8, 1: 0.79})
    search = search_of()
    step, trainings = searched(search, images.train)
    again = next_step(search, trainings[::-1])
    assert (again.chosen, again.reason) == (step.chosen, step.reason)
    assert again.probability == pytest.approx(step.probability)
    for done in range(len(trainings)):
        following = next_step(search, trainings[:done]).train
        assert following[0] == (trainings[done].rung, trainings[done].seed)


def test_the_scale_that_gains_wins_and_finer_ones_are_left_alone():
    images = Images(np.random.default_rng(2), {8: 0.6, 4: 0.8, 2: 0.74, 1: 0.7}, noise=0.002)
    step, trainings = searched(search_of((8, 4, 2, 1)), images.train)
    assert step.chosen.scale == 4
    assert {training.rung.scale for training in trainings} == {8, 4, 2}


def test_a_set_that_loses_with_width_gets_a_wider_network():
    rng = np.random.default_rng(3)
    flat, steep = (Images(rng, {2: 0.8}, loss=loss, noise=0.004) for loss in (0.0, 0.12))
    chosen = [searched(search_of((2,)), images.train)[0].chosen.width for images in (flat, steep)]
    assert chosen[0] <= 8
    assert chosen[1] >= 23


def test_a_tighter_tolerance_and_more_confidence_are_never_smaller_without_noise():
    images = Images(np.random.default_rng(4), {2: 0.8}, loss=0.06, noise=1e-6)
    by_tolerance = [
        searched(search_of((2,), tolerance=each), images.train)[0].chosen.width for each in (0.1, 0.05, 0.02, 0.01)
    ]
    assert by_tolerance == sorted(by_tolerance)


def test_with_arithmetic_to_save_the_coarser_of_two_good_scales_wins():
    def by_macs(scale):
        return [rung._replace(size=rung.macs) for rung in rungs_at(scale)]

    images = Images(np.random.default_rng(5), {4: 0.805, 2: 0.81}, loss=0.03, noise=0.001)
    search = replace(search_of((4, 2), tolerance=0.05), rungs={scale: by_macs(scale) for scale in (4, 2)})
    assert searched(search, images.train)[0].chosen.scale == 4


def test_what_fails_to_learn_is_tried_again_and_the_climb_goes_on():
    images = Images(np.random.default_rng(6), {4: 0.7, 2: 0.8, 1: 0.79})

    def train(rung, seed):
        made = images.train(rung, seed)
        return made._replace(has_learned=rung.scale != 4)

    step, trainings = searched(search_of(), train)
    assert step.chosen.scale == 2
    assert [training.seed for training in trainings if training.rung.scale == 4] == [0, 1]


def test_where_the_narrow_fail_everywhere_a_wider_one_climbs():
    images = Images(np.random.default_rng(7), {4: 0.7, 2: 0.8})

    def train(rung, seed):
        return images.train(rung, seed)._replace(has_learned=rung.width > 11)

    step, _ = searched(search_of((4, 2)), train)
    assert step.chosen.width > 11


def test_where_nothing_learns_there_is_no_answer():
    step, trainings = searched(search_of((2,)), lambda rung, seed: Training(rung, seed, 0.01, has_learned=False))
    assert step.chosen is None
    assert step.reason == "no network learned at any scale"
    assert cost(trainings) <= 0.1


def test_the_cost_is_kept_and_what_is_not_sure_says_so():
    images = Images(np.random.default_rng(8), {2: 0.8, 1: 0.8}, loss=0.1, noise=0.05)
    step, trainings = searched(search_of((2, 1), most_cost=0.02, confidence=0.99), images.train)
    assert cost(trainings) <= 0.02
    assert step.chosen is not None
    assert step.probability < 0.99


def test_fewer_images_make_it_less_sure():
    images = Images(np.random.default_rng(9), {2: 0.8}, loss=0.02, noise=0.003)
    trainings = [images.train(rung, 0) for rung in rungs_at(2) if rung.width in (6, 8, 16)]
    few, many = (
        next_step(search_of((2,), images=count, most_cost=cost(trainings)), trainings).probability for count in (3, 30)
    )
    assert few < many


def test_one_width_alone_is_never_sure_enough():
    images = Images(np.random.default_rng(10), {2: 0.8}, loss=0.0, noise=0.001)
    search = search_of((2,), most_cost=0.9 * rungs_at(2)[0].cost + rungs_at(2)[1].cost)
    step, trainings = searched(search, images.train)
    assert len({training.rung for training in trainings}) == 1
    assert step.probability < search.confidence


def test_where_others_failed_one_training_that_learned_is_not_trusted():
    search = search_of((2,), most_cost=1.0)
    rungs = rungs_at(2)
    learned = [Training(rung, 0, 0.8) for rung in rungs[4:6]]
    failed = [Training(rung, seed, 0.01, has_learned=False) for rung in rungs[:4] for seed in range(4)]
    fields = {"most_cost": cost([*learned, *failed])}
    trusted = next_step(search_of((2,), **{**fields, "most_cost": cost(learned)}), learned).probability
    assert next_step(search_of((2,), **fields), [*learned, *failed]).probability < 0.8 * trusted
    assert search.most_cost == 1.0


@pytest.mark.parametrize("changed", [{"tolerance": 0.0}, {"confidence": 1.0}, {"most_cost": 0.0}])
def test_refusals(changed):
    with pytest.raises(ValueError, match="tolerance and confidence must lie in"):
        search_of(**changed)


def test_what_the_law_knows_of_scales_outweighs_a_little_noise():
    rungs = [rungs_at(scale)[1] for scale in (4, 2)]
    trainings = [Training(rung, seed, score) for rung, score in zip(rungs, (0.81, 0.8), strict=True) for seed in (0, 1)]
    spent = {"planned": 2, "most_cost": cost(trainings)}
    laws = [replace(LAW, coarser=(mean, 0.005)) for mean in (-0.1, 0.0)]
    chosen = [next_step(search_of((4, 2), law=law, **spent), trainings).chosen.scale for law in laws]
    assert chosen == [2, 4]


def test_a_wide_network_at_the_best_scale_is_always_among_those_trained():
    images = Images(np.random.default_rng(11), {4: 0.7, 2: 0.8, 1: 0.7}, noise=0.004)
    _, trainings = searched(search_of(), images.train)
    assert max(training.rung.width for training in trainings if training.rung.scale == 2) >= 16


def test_a_claim_rests_on_the_widths_at_its_own_scale():
    search = search_of(scales=(2, 1))
    narrow, wide = rungs_at(1)[1], rungs_at(1)[-1]
    found = [Training(rungs_at(2)[1], seed, 0.802) for seed in (0, 1)]
    found += [Training(narrow, seed, 0.80) for seed in (0, 1)]
    found += [Training(wide, seed, 0.86) for seed in (0, 1)]
    step = next_step(replace(search, most_cost=cost(found)), found)
    assert step.chosen == wide
    assert step.probability > search.confidence
