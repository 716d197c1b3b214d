"""The working scale: the rule that chooses it, plans at it, and what budgets do with it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_ccnet.complexity import ComplexityProfile, LabelCeiling, measure_ceiling
from monai_ccnet.constraints import (
    AccuracyFloor,
    CompressionPlan,
    ComputeBudget,
    DiskBudget,
    InfeasibleConstraintError,
    LatencyBudget,
    MemoryBudget,
    choose_scale,
    compress,
    compress_once,
    family_of,
    scales_needed,
    trade_off,
    working_scale,
)
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.networks import AtScale, NetworkFamily, build_network, network_size

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [16, 32, 64]}
PROFILE = ComplexityProfile.published("lymph_node")
LAW = DegradationModel.published("unet")


def ceiling(worst=(0.999, 0.99, 0.95), vanished=(0, 0, 0), structures=100, is_asked=False, size=(256, 256), **more):
    given = {
        "dataset": "made",
        "scales": (2, 4, 8),
        "count": 10,
        "size": size,
        "spacing": None,
        "dice": {"1": (1.0, 1.0, 1.0), "2": worst},
        "smallest_structure": 4.0,
        "is_asked": is_asked,
        "structures": structures,
        "vanished": vanished,
        "specks": 3,
        "vanished_specks": (0, 1, 3),
        "largest_lost": (0.0, 3.0, 3.0),
        "merged": (0, 0, 0),
        "skeleton": None,
    }
    return LabelCeiling(**given | more)


@pytest.mark.parametrize(
    ("known", "divisor", "expected", "reason"),
    [
        (ceiling(), 1, 4, r"keep 0\.9900 of their Dice, none of 100 structures .* \(at 1/8 they would keep 0\.9500\)"),
        (ceiling(worst=(0.98, 0.97, 0.9)), 1, 1, r"full resolution \(at 1/2 labels would keep 0\.9800"),
        (ceiling(worst=(0.999, 0.98, 0.999)), 1, 2, "16|at 1/4"),  # no further than the first that loses
        (ceiling(worst=(1.0, 1.0, 1.0)), 1, 8, "64 times fewer multiply-adds"),
        (ceiling(worst=(1.0, 1.0, 1.0)), 32, 4, "an axis of 256 pixels would have 32, and the network needs 64"),
        (ceiling(worst=(1.0, 1.0, 1.0), size=(256, 40)), 32, 1, "an axis of 40"),  # which is short enough
        (ceiling(worst=(1.0, 1.0, 1.0), size=(256, 64)), 32, 1, "an axis of 64 pixels would have 32"),
        (ceiling(vanished=(0, 2, 9)), 1, 4, "2 of 100 structures of 4 pixels and more vanish"),
        (ceiling(vanished=(0, 3, 9)), 1, 2, "3 of 100 structures of 4 pixels and more would vanish"),
        (ceiling(vanished=(0, 1, 9), is_asked=True), 1, 2, "1 of 100 structures"),
        (ceiling(dice={}, structures=0), 1, 1, "no label holds any foreground"),
        (ceiling(structures=0), 1, 4, "no structure is of 4 pixels and more"),
    ],
)
def test_the_rule_by_its_conditions(known, divisor, expected, reason):
    scale, words = choose_scale(known, divisor)
    assert scale == expected
    import re

    assert re.search(reason, words)


def test_a_network_that_takes_any_size_has_a_coarsest_stage_all_the_same():
    basic = NetworkFamily.of({"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2})
    assert (basic.divisor, basic.coarsest) == ((1, 1), (16, 16))
    keeps_all = ceiling(worst=(1.0, 1.0, 1.0), size=(128, 128))
    assert working_scale("auto", basic, keeps_all) == 4
    assert NetworkFamily.of(UNET).coarsest == (4, 4)


def test_lesions_of_three_pixels_among_large_ones():
    labels = []
    for index in range(6):
        label = np.zeros((1, 256, 256), int)
        label[0, 20:180, 30:170] = 1
        label[0, 200 + index : 203 + index, 200:203] = 1
        labels.append(label)
    silent, asked = measure_ceiling(labels), measure_ceiling(labels, smallest_structure=2)
    assert silent.worst(4) > 0.99
    lost = next(place for place, count in enumerate(asked.vanished) if count)
    scale, words = choose_scale(asked)
    assert asked.index(scale) < lost if scale != 1 else lost == 0
    assert "6 of 12 structures of 2 pixels and more would vanish" in words
    assert silent.index(choose_scale(silent)[0]) >= lost
    assert silent.vanished_specks[lost] == 6
    plan = compress(UNET, DiskBudget(60_000), scale="auto", ceiling=silent)
    assert "6 of 6 smaller ones do, the largest lost is of 3 pixels" in plan.scale_lines[0]


def test_a_scale_is_a_number_or_what_the_labels_allow():
    family, scaled = NetworkFamily.of(UNET), replace(NetworkFamily.of(UNET), scale=2)
    assert working_scale(4, family) == 4
    assert working_scale([2, 4], family) == (2, 4)
    assert working_scale("auto", family, ceiling()) == working_scale("any", family, ceiling()) == 4
    assert working_scale("any", family) == 1
    assert working_scale(1, scaled) == working_scale("auto", scaled) == working_scale(2, scaled) == 2
    fixed = {"_target_": "monai.networks.nets.UNETR", "in_channels": 1, "out_channels": 2, "img_size": 32}
    assert working_scale("auto", NetworkFamily.of(fixed), ceiling()) == 1
    for scale, message in (
        ("auto", "needs ceiling="),
        ("half", "'auto' or 'any', got 'half'"),
        (0, "whole number from 1"),
        ([2, 2, 2], "a scale for 2 axes"),
        (4, "says that it works at 1/2, and scale is 4"),
    ):
        with pytest.raises(ValueError, match=message):
            working_scale(scale, scaled if scale == 4 else family)
    lost = ceiling(worst=(1.0, 0.5, 0.0))
    assert working_scale(4, family, lost) == 4
    with pytest.raises(ValueError, match=r"at scale 8 a class keeps 0\.00 of its Dice.*'auto' takes 2\."):
        working_scale(8, family, lost)


def test_at_scale_1_plans_are_what_they_were():
    budget = DiskBudget(60_000)
    plain = compress(UNET, budget, complexity=PROFILE, degradation=LAW)
    told = compress(UNET, budget, complexity=PROFILE, degradation=LAW, scale=1, ceiling=ceiling())
    assert (told.channels, told.predicted, told.size, told.network_def) == (
        plain.channels,
        plain.predicted,
        plain.size,
        plain.network_def,
    )
    assert (plain.scale, plain.ceiling, plain.image_size, plain.scale_lines) == (1, None, None, [])
    default = {"_target_": "monai_ccnet.networks.PlainUNet"}  # the network that the law was measured on
    assert compress(default, budget, complexity=PROFILE, degradation=LAW).predicted.low is not None


def test_a_plan_at_a_scale_has_the_same_bytes_and_less_arithmetic_for_the_same_input():
    budget, shape = DiskBudget(60_000), (1, 1, 96, 96)
    plans = {scale: compress(UNET, budget, input_shape=shape, scale=scale) for scale in (1, 2, 4)}
    for scale, plan in plans.items():
        assert plan.scale == scale
        assert plan.channels == plans[1].channels
        assert plan.size.file_bytes == plans[1].size.file_bytes <= 60_000
        assert plan.size.macs * scale**2 == plans[1].size.macs
        assert plan.size.input_shape == shape
        assert plan.full_size == plans[1].full_size  # at full resolution
        assert plan.size == network_size(plan.network_def, shape)
        built = build_network(plan.network_def)
        assert isinstance(built, AtScale) == (scale > 1)
        assert built(torch.zeros(2, 1, 50, 70) if scale > 1 else torch.zeros(2, 1, 48, 64)).shape[1] == 1
    assert plans[4].assumption == plans[1].assumption, "a law in width holds at whichever scale is planned"
    assert CompressionPlan.from_dict(json.loads(json.dumps(plans[4].to_dict()))) == plans[4]


def test_a_prediction_at_a_scale_is_assumed_unless_the_law_was_measured_there():
    plan = compress(UNET, DiskBudget(60_000), complexity=PROFILE, degradation=LAW, layerwise=False, scale=4)
    plain = compress(UNET, DiskBudget(60_000), complexity=PROFILE, degradation=LAW, layerwise=False)
    assert (plan.predicted.low, plan.predicted.high) == (None, None)
    assert plan.predicted.score == plain.predicted.score
    assert "measured at full resolution, and is taken to hold at 1/4" in plan.assumption
    default = {"_target_": "monai_ccnet.networks.PlainUNet"}  # the network that the law was measured on
    for scale, measured in ((4, 4), (1, 4), (4, None), (2, 4)):
        law = replace(LAW, scale=measured)
        given = {"complexity": PROFILE, "degradation": law, "layerwise": False, "scale": scale}
        plan = compress(default, DiskBudget(60_000), **given)
        assert (plan.predicted.low is not None) == (plan.assumption is None) == (scale == measured)
        assert DegradationModel.from_dict(json.loads(json.dumps(law.to_dict()))) == law
    assert "measured at 1/4, and is taken to hold at 1/2" in plan.assumption


def test_stages_share_by_the_complexity_at_their_own_resolution():
    assert compress(UNET, DiskBudget(60_000), complexity=PROFILE, degradation=LAW, scale=4).stage_scales == (4, 8, 16)
    with pytest.raises(ValueError, match="measure the data set with scale 32 too"):
        compress(UNET, DiskBudget(60_000), complexity=PROFILE, degradation=LAW, scale=8)
    family = NetworkFamily.of(UNET)
    assert scales_needed(family, 1) == [1, 2, 4]
    assert scales_needed(family, 8) == [8, 16, 32]
    assert scales_needed(family, "any", ceiling()) == [4, 8, 16, 32]
    assert scales_needed(family, (2, 4)) == [4, 8, 16]


@pytest.mark.parametrize("kind", [ComputeBudget, MemoryBudget, LatencyBudget])
def test_a_budget_that_no_width_meets_names_the_coarser_scale_or_takes_it(kind, monkeypatch):
    shape, family = (1, 1, 128, 128), NetworkFamily.of(UNET)
    monkeypatch.setattr(LatencyBudget, "needed", lambda self, network: network_size(network, shape).macs / 1e9)
    needed = {scale: kind(1, shape).needed(family.at(family.smallest, scale)) for scale in (1, 2, 4)}
    budget = kind((needed[1] + needed[2]) / 2 if kind is LatencyBudget else int(needed[1] + needed[2]) // 2, shape)
    with pytest.raises(
        InfeasibleConstraintError, match=r"no width fits the budget.* 1/2 of the resolution: scale 2, or"
    ):
        compress(UNET, budget)
    with pytest.raises(
        InfeasibleConstraintError, match=r"1/2 of the resolution, where labels keep 0\.9990 of their Dice"
    ):
        compress(UNET, budget, ceiling=ceiling(worst=(0.999, 0.9, 0.9)))
    if kind is LatencyBudget:
        return
    plan = compress(UNET, budget, scale="any", ceiling=ceiling(worst=(0.97, 0.9, 0.9)))
    assert plan.scale == 2
    assert budget.needed(plan.network_def) <= budget.limit
    assert (
        "labels keep 0.9700 of their Dice there. By themselves they would choose: works at full resolution"
        in plan.scale_lines[0]
    )
    with pytest.raises(InfeasibleConstraintError) as raised:
        compress(UNET, DiskBudget(1000), scale="any", ceiling=ceiling())
    assert "resolution" not in str(raised.value)  # no file gets smaller by a scale


def test_a_network_that_cannot_be_narrowed_is_planned_for_a_scale_alone():
    own = {"_target_": "monai.networks.nets.VNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    with pytest.raises(ValueError, match="not known where"):
        compress(own, DiskBudget(10**9))
    plan = compress(own, DiskBudget(10**9), scale=2)
    assert (plan.channels, plan.multipliers, plan.scale, plan.compression) == ((), (), 2, 1.0)
    assert plan.network_def["network"] == own
    assert plan.size.macs * 4 == plan.full_size.macs
    assert CompressionPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert "as it is, since its widths are not known" in str(plan)
    with pytest.raises(InfeasibleConstraintError, match="no width fits"):
        compress(own, DiskBudget(1000), scale=2)


def test_an_image_of_the_median_size_is_stated_beside():
    plan = compress(UNET, DiskBudget(60_000), scale=2, image_shape=(1, 1, 250, 256))
    assert plan.image_size.input_shape == (1, 1, 250, 256)
    padded = compress(UNET, DiskBudget(60_000), image_shape=(1, 1, 250, 255)).image_size
    assert padded.input_shape == (1, 1, 252, 256)  # what full resolution needs
    assert "For an image of the median size, 250 x 256" in str(plan)


def test_an_input_that_the_full_size_network_has_to_pad_is_planned_for():
    plan = compress(UNET, DiskBudget(60_000), scale=2, input_shape=(1, 1, 18, 302))
    assert plan.size.input_shape == plan.full_size.input_shape == (1, 1, 18, 302)
    padded = network_size(UNET, (1, 1, 20, 304))
    assert plan.full_size.macs == padded.macs
    with pytest.raises(ValueError, match="must be divisible by 4"):
        compress(UNET, DiskBudget(60_000), scale=1, input_shape=(1, 1, 18, 302))


def test_a_trade_off_and_a_kept_plan_have_the_scale(tmp_path):
    plan = compress(UNET, AccuracyFloor(0.9), complexity=PROFILE, degradation=LAW, scale=2)
    plans = trade_off(plan.family, complexity=PROFILE, degradation=LAW, scale=2)
    assert {each.scale for each in plans} == {2}
    given = {"complexity": PROFILE, "degradation": LAW, "scale": "auto", "ceiling": ceiling()}
    first = compress_once(tmp_path / "plan.json", UNET, DiskBudget(60_000), **given)
    assert first.scale == 4
    stamp = (tmp_path / "plan.json").stat().st_mtime_ns
    assert compress_once(tmp_path / "plan.json", UNET, DiskBudget(60_000), **given) == first
    assert (tmp_path / "plan.json").stat().st_mtime_ns == stamp
    assert compress_once(tmp_path / "plan.json", UNET, DiskBudget(60_000), **given | {"scale": 2}).scale == 2


def test_families_of_what_is_given():
    family = NetworkFamily.of(UNET)
    assert family_of(family) is family
    assert family_of(UNET) == family
    assert family_of(family.at(family.channels, 2)).scale == 2


def test_a_plan_says_one_scale():
    plan = compress(UNET, DiskBudget(60_000), scale=2)
    content = plan.to_dict()
    for place, value in (
        ("network_def", {**plan.network_def, "scale": 4}),
        ("network_def", plan.network_def["network"]),
    ):
        with pytest.raises(ValueError, match="the plan's network works at 1/"):
            CompressionPlan.from_dict({**content, place: value})


def test_a_network_of_one_size_has_no_sizes_for_an_image():
    fixed = {"_target_": "monai.networks.nets.UNETR", "in_channels": 1, "out_channels": 2, "img_size": 32}
    plan = compress(fixed, DiskBudget(10**9), image_shape=(1, 1, 48, 48, 48))
    assert plan.image_size is None
