"""From the records of trainings to the law of a network, made and shipped ones."""

from dataclasses import replace

import numpy as np
import pytest

from monai_ccnet.calibration import (
    OMEGAS,
    calibrate,
    calibrate_width,
    degradation_points,
    load_width_records,
    planned_scales,
    profiles_for,
    refit,
    refit_width,
    scale_gains,
)
from monai_ccnet.calibration.fit import RECORDS, WIDTH_RECORDS
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.degradation import CALIBRATED, DegradationModel, WidthLaw
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.training import load_records
from monai_ccnet.values import load_values, save_values

METRICS = ("f1", "iu")
SHIPPED = sorted(
    f"{path.parent.name}/{metric}" for metric in ("f1", "iu") for path in CALIBRATED.glob(f"*/{metric}.json")
)
LOSSES = {"calm": 0.01, "plain": 0.03, "busy": 0.06, "dense": 0.07}  # relative, a decade of weights


@pytest.fixture(scope="module")
def record():
    return load_records(RECORDS / "plain_unet.jsonl")[0]


@pytest.fixture(scope="module")
def records(record):
    """Trainings that lose what LOSSES says, at 1, 10 and 100 times fewer weights."""
    return [
        replace(
            record,
            dataset=dataset,
            multiplier=1 / 10**decades,
            size=replace(record.size, weights=1_000_000 // 10 ** (decades)),
            scores=record.scores | {"f1": 0.8 * (1 - loss * decades)},
            constant_score=0.1,
        )
        for dataset, loss in LOSSES.items()
        for decades in (0, 1, 2)
    ]


def profiles(measure, complexities):
    return [
        ComplexityProfile(dataset, {"measure": measure}, (1,), (complexity,), None, 1)
        for dataset, complexity in zip(LOSSES, complexities, strict=True)
    ]


def test_records_and_profiles_of_one_file_are_told_apart(record, tmp_path):
    profile = profiles("jpeg", [0.1, 0.2, 0.3, 0.4])[0]
    save_values(tmp_path / "both.jsonl", [record, profile, record])
    assert load_records(tmp_path / "both.jsonl") == [record, record]
    assert load_values(tmp_path / "both.jsonl", ComplexityProfile) == [profile]


def test_what_is_kept_of_the_trainings_names_no_place():
    for path in RECORDS.glob("*.jsonl"):
        assert set("/\\@").isdisjoint(path.read_text()), "a path, or an address"
        assert all(set(record.recipe).isdisjoint({"dataset_dir", "bundle_root"}) for record in load_records(path))


@pytest.mark.parametrize("shipped", SHIPPED)
def test_shipped_models_are_those_of_their_records(shipped):
    network, metric = shipped.split("/")
    model, again = DegradationModel.calibrated(network, metric), refit(network, metric)[0]
    assert again.settings == model.settings
    assert again.dataset_slopes == pytest.approx(model.dataset_slopes, rel=1e-9, abs=1e-12)
    assert again.left_out_errors == pytest.approx(model.left_out_errors, rel=1e-9)
    assert np.array(again.covariance) == pytest.approx(np.array(model.covariance), rel=1e-6)
    assert again.spatial_dims == model.spatial_dims == 2
    for name in ("slope", "intercept", "residual_deviation", "between_deviation", "r_squared", "points", "not_learned"):
        assert getattr(again, name) == pytest.approx(getattr(model, name), rel=1e-9), name


def test_a_law_tells_the_spatial_axes_of_its_networks(records):
    assert refit("cumedvision")[0].spatial_dims == 2
    near = profiles("near", [0.1, 0.35, 0.55, 0.75])
    assert calibrate(records, near)[0].spatial_dims == 2
    solid = replace(records[0], network_def=records[0].network_def | {"spatial_dims": 3})
    assert calibrate([solid, *records[1:]], near)[0].spatial_dims is None
    unknown = [replace(record, network_def={"_target_": "PlainUNet"}) for record in records]
    assert calibrate(unknown, near)[0].spatial_dims is None


def test_no_training_is_left_out_of_the_counts():
    for network in {shipped.split("/")[0] for shipped in SHIPPED}:
        records = load_records(RECORDS / f"{network}.jsonl")
        assert all(record.error is None for record in records)
        model = DegradationModel.calibrated(network)
        complexities = dict.fromkeys(model.dataset_slopes, 0.1)
        points = degradation_points(records, complexities)
        assert sum(not point.has_learned for point in points) == sum(not record.has_learned for record in records)


def test_the_measure_that_predicts_best_comes_first(records):
    exact = profiles("exact", [10 * loss for loss in LOSSES.values()])
    near = profiles("near", [0.1, 0.35, 0.55, 0.75])
    constant = profiles("constant", [0.2] * 4)
    models = calibrate(records, [*near, *constant, *exact])
    assert [model.settings["measure"] for model in models] == ["exact", "near"]
    assert (models[0].slope, models[0].intercept) == pytest.approx((0.1, 0.0))
    assert models[0].left_out_error == pytest.approx(0, abs=1e-9)


def test_a_law_by_which_complexity_helps_comes_last(records):
    reverse = profiles("reverse", [1 - 10 * loss for loss in LOSSES.values()])
    near = profiles("near", [0.1, 0.35, 0.55, 0.75])
    models = calibrate(records, [*reverse, *near])
    assert [model.settings["measure"] for model in models] == ["near", "reverse"]
    assert models[1].slope < 0
    assert models[1].left_out_error < models[0].left_out_error


def test_the_mix_of_image_and_label_is_searched_and_judged_on_data_sets_it_was_not_searched_on(records):
    jpeg, mix = np.array([0.2, 0.6, 0.3, 0.9]), 10 * np.array(list(LOSSES.values()))
    parts = [*profiles("jpeg", jpeg), *profiles("foreground", (mix - 0.3 * jpeg) / 0.7)]
    best, *others = calibrate(records, parts, omegas=OMEGAS)
    assert (best.settings["measure"], best.settings["omega"]) == ("jb", 0.3)
    assert (best.slope, best.intercept) == pytest.approx((0.1, 0.0))
    assert best.left_out_error == pytest.approx(0, abs=1e-6)
    assert [model.settings["measure"] for model in others] == ["foreground", "jpeg"]
    assert [profile.at(1) for profile in profiles_for(best, parts)] == pytest.approx(mix)
    assert profiles_for(others[1], parts) == parts[:4]

    rng = np.random.default_rng(5)
    noise = [*profiles("jpeg", rng.random(4)), *profiles("foreground", rng.random(4))]
    (mixed,) = (model for model in calibrate(records, noise, omegas=OMEGAS) if model.settings["measure"] == "jb")
    (searched,) = calibrate(records, profiles_for(mixed, noise))
    assert mixed.left_out_error > searched.left_out_error, "the best of 21 is not as good on data sets left out of it"

    alike = [*profiles("jpeg", jpeg), *profiles("foreground", [0.3] * 4)]
    assert {model.settings["measure"] for model in calibrate(records, alike, omegas=OMEGAS)} == {"jpeg", "jb"}

    three = [each for each in records if each.dataset != "dense"]
    assert all(model.settings["measure"] != "jb" for model in calibrate(three, parts, omegas=OMEGAS))


def test_refusals(records, record):
    with pytest.raises(ValueError, match="'busy' has no full-size network"):
        calibrate([r for r in records if (r.dataset, r.multiplier) != ("busy", 1)], profiles("m", [0.1, 0.2, 0.3, 0.4]))
    with pytest.raises(ValueError, match="'dense' has no profile"):
        calibrate(records, profiles("m", [0.1, 0.2, 0.3, 0.4])[:3])
    with pytest.raises(FileNotFoundError, match=r"vgg\.jsonl is missing: .* come with a checkout of the source"):
        refit("vgg")
    with pytest.raises(ValueError, match="profiles of all data sets are equal"):
        calibrate(records, profiles("m", [0.1] * 4))
    other = replace(record, network_def={"_target_": "UCUNet"})
    with pytest.raises(ValueError, match=r"belongs to one network.*UCUNet"):
        degradation_points([*records, other], {})


@pytest.mark.parametrize("metric", METRICS)
def test_the_shipped_law_in_width_is_that_of_its_records(metric):
    law, again = WidthLaw.calibrated("plain_unet", metric), refit_width("plain_unet", metric)[0]
    assert again.measure == law.measure
    assert again.dataset_losses.keys() == law.dataset_losses.keys()
    for name in ("exponent", "loss", "loss_deviation", "noise", "noise_spread", "points", "not_learned", "narrowest"):
        assert getattr(again, name) == pytest.approx(getattr(law, name), rel=1e-4), name
    assert (law.network, law.spatial_dims, law.stages) == ("PlainUNet", 2, 5)


def test_a_law_can_leave_out_the_data_set_that_it_is_judged_on():
    shipped, other = WidthLaw.calibrated("plain_unet"), refit_width("plain_unet", without=["busi"])[0]
    assert other.dataset_losses.keys() == shipped.dataset_losses.keys() - {"busi"}
    records = [record for record in load_width_records("plain_unet") if record.dataset in other.dataset_losses]
    planned = planned_scales("plain_unet")
    again = calibrate_width([record for record in records if record.scale == planned[record.dataset]])[0]
    assert (other.loss, other.points) == (pytest.approx(again.loss), again.points)


def test_records_of_a_law_in_width_name_no_place_and_are_at_planned_scales():
    for path in WIDTH_RECORDS.glob("*.jsonl"):
        assert set("\\@").isdisjoint(path.read_text()), "an address"
        assert all("dataset_dir" not in record.recipe for record in load_records(path))
    scales = planned_scales("plain_unet")
    assert scales["chase_db1"] == 1
    assert scales["melanoma"] == 8


def test_laws_of_several_networks_or_without_records_are_refused(records):
    with pytest.raises(FileNotFoundError, match="come with a checkout of the source"):
        refit_width("nothing")
    deeper = replace(records[0], network_def={**records[0].network_def, "channels": [2, 2]})
    with pytest.raises(ValueError, match="a law belongs to one network"):
        calibrate_width([*records, deeper])


def test_what_scales_gain_is_the_mean_over_data_sets_of_a_halving(record):
    family = NetworkFamily.of(record.network_def)
    made = [
        replace(record, dataset=name, network_def=family.at(family.channels, scale), scores={"f1": score})
        for name, gain in (("a", 0.02), ("b", 0.06))
        for scale, score in ((2, 0.5), (4, 0.5 * np.exp(gain)), (8, 0.5 * np.exp(2 * gain)))
    ]
    gains = scale_gains(made, {"a": 2, "b": 2})
    mean, deviation = gains["coarser"]
    assert mean == pytest.approx(0.08 / 3)  # and one made data set without a gain
    assert deviation > 0.04
    assert gains["finer"] == pytest.approx((0.0, 0.05 * 2**0.5))
    many = {f"{name}{number}": 2 for number in range(200) for name in "ab"}
    repeated = [replace(each, dataset=f"{each.dataset}{number}") for each in made for number in range(200)]
    assert scale_gains(repeated, many)["coarser"][1] == pytest.approx(0.02, rel=0.05)
