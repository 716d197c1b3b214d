"""What the configs call, as functions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from monai_ccnet.bundle import (
    check_calibration,
    check_profiles,
    constraints_from,
    default_confidence,
    measure_settings_for,
)
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import AccuracyFloor, ComputeBudget, DiskBudget, LatencyBudget, MemoryBudget
from monai_ccnet.degradation import DegradationModel, WidthLaw
from monai_ccnet.networks import NetworkFamily

SHAPE = (1, 1, 32, 32)


def test_constraints_by_their_settings():
    asked = constraints_from(
        list(SHAPE),
        budget_bytes=60_000,
        budget_memory_bytes=10**6,
        budget_macs=10**7,
        budget_latency_seconds=0.01,
        min_score=0.9,
        bits_per_weight=16,
        count="weights",
    )
    assert asked == [
        DiskBudget(60_000, 16, "weights"),
        MemoryBudget(10**6, SHAPE),
        ComputeBudget(10**7, SHAPE),
        LatencyBudget(0.01, SHAPE),
        AccuracyFloor(0.9),
    ]


def test_several_budgets_and_the_floor_that_nothing_asked_for():
    assert constraints_from(budget_bytes=[1000, 2000], default=None) == [DiskBudget(1000), DiskBudget(2000)]
    assert constraints_from(budget_bytes=[], default=None) == []
    assert constraints_from() == [AccuracyFloor(0.95)]
    assert constraints_from(default_confidence=0.9) == [AccuracyFloor(0.95, 0.9)]
    assert constraints_from(min_score=0.9, default_confidence=0.9) == [AccuracyFloor(0.9)], "a floor that was asked for"
    assert constraints_from(min_score=0.9, confidence=0.8) == [AccuracyFloor(0.9, 0.8)]
    assert constraints_from(budget_bytes=1000, default_confidence=0.9) == [DiskBudget(1000)]
    with pytest.raises(ValueError, match="says how surely a floor is kept: give min_score too"):
        constraints_from(budget_bytes=1000, confidence=0.9)


def test_a_data_set_is_measured_as_the_law_was_unless_asked_otherwise():
    law = DegradationModel.published("unet", metric="iu")
    assert measure_settings_for(law) == {"measure": "jb", "quality": 25, "omega": 0.7}
    assert measure_settings_for(law, "jb", {"omega": 0.5}) == {"measure": "jb", "quality": 25, "omega": 0.5}
    assert measure_settings_for(law, "edges") == {"measure": "edges"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset_dirs": 1}, r"at least two data sets, got \['disks'\]"),
        ({"multipliers": [0.5]}, "multiplier 1 must be among"),
        ({"measures": ["jpge"]}, "unknown measure 'jpge'"),
        ({"multipliers": [1.0, 1.0]}, "needs a narrower network beside the full-size one"),
        ({"measures": []}, "measures is empty"),
        ({"training": {"seed": 1}}, "give --seeds instead"),
        ({"training": {"recipe": "paper"}}, "give --recipe instead"),
        ({"metric": "dice"}, "metric must be 'f1' or 'iu', got 'dice'"),
    ],
)
def test_a_calibration_that_could_not_be_fitted_is_refused(changed, message, tmp_path):
    folders = []
    for value, name in enumerate(("disks", "balls"), start=50):
        (tmp_path / name).mkdir()
        listed = {"training": [], "test": []}
        for index, part in enumerate(listed):
            Image.new("L", (4, 4), value + index).save(tmp_path / name / f"{part}.png")
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / name / f"{part}_mask.png")
            listed[part] = [{"image": f"{part}.png", "label": f"{part}_mask.png"}]
        (tmp_path / name / "dataset.json").write_text(json.dumps({"name": name, "labels": ["a", "b"], **listed}))
        folders.append(tmp_path / name)
    given = {"dataset_dirs": folders, "multipliers": [1.0, 0.5], "measures": ["jpeg"], "metric": "f1"}
    check_calibration(**given)
    if changed.get("dataset_dirs") == 1:
        changed = {"dataset_dirs": folders[:1]}
    with pytest.raises(ValueError, match=message):
        check_calibration(**given | changed)


def test_sets_that_no_measure_tells_apart_are_not_trained_on():
    first = ComplexityProfile.published("drive")
    check_profiles([first, ComplexityProfile.published("melanoma")])
    with pytest.raises(ValueError, match="all data sets are equally complex by jpeg"):
        check_profiles([first, replace(first, dataset="other")])


def test_a_default_floor_is_kept_surely_where_the_law_can_tell():
    law = WidthLaw(1.5, 50.0, 0.03, 0.02, 0.01, network="PlainUNet", spatial_dims=2)
    unet = NetworkFamily.of({"_target_": "monai_ccnet.networks.PlainUNet"})
    other = NetworkFamily.of({"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2})
    assert default_confidence(unet, law) == 0.9
    assert default_confidence(unet, replace(law, noise=0.05)) is None, "another full-size one keeps it less often"
    assert default_confidence(other, law) is None
    assert default_confidence(unet, DegradationModel.published("unet")) is None
