"""Narrower plans files for nnU-Net."""

import copy
import json
import re

import pytest
import torch

from monai_ccnet.__main__ import main
from monai_ccnet.bundle import audit, narrow_nnunet
from monai_ccnet.bundle.nnunet import nnunet_network_def
from monai_ccnet.networks import build_network, network_size, save_weights
from monai_ccnet.networks.nnunet import PlannedByNNUNet, unet
from monai_ccnet.networks.size import disk_bytes

KWARGS = {
    "n_stages": 3,
    "features_per_stage": [32, 64, 128],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [1, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
PLACE = "dynamic_network_architectures.architectures.unet"
PLANS = {
    "dataset_name": "Dataset123_Balls",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "batch_size": 2,
            "patch_size": [8, 16, 16],
            "architecture": {
                "network_class_name": f"{PLACE}.PlainConvUNet",
                "arch_kwargs": KWARGS,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        },
        "3d_cascade": {"inherits_from": "3d_fullres", "batch_size": 4},
        "a circle": {"inherits_from": "a circle"},
    },
}


def kwargs(**changes):
    """Return the arguments of the architecture with some changed, or taken out by three dots."""
    return {"arch_kwargs": {name: value for name, value in {**KWARGS, **changes}.items() if value is not ...}}


DATASET = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "ball": 1, "cube": 2, "ignore": 3}}


@pytest.fixture
def plans_file(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(PLANS))
    return path


def test_the_new_file_differs_in_name_and_in_the_widths_of_the_asked_configuration_alone(plans_file):
    plan = narrow_nnunet(plans_file, budget_bytes=200_000)
    name = f"nnUNetPlans_ccnet_3d_fullres_{'-'.join(map(str, plan.channels))}"
    new = json.loads(plans_file.with_name(f"{name}.json").read_text())
    assert json.loads(plans_file.read_text()) == PLANS
    expected = copy.deepcopy(PLANS)
    expected["plans_name"] = name
    expected["configurations"]["3d_cascade"]["architecture"] = PLANS["configurations"]["3d_fullres"]["architecture"]
    expected["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = list(plan.channels)
    assert new == expected
    assert nnunet_network_def(new, "3d_cascade", DATASET) == nnunet_network_def(PLANS, "3d_cascade", DATASET)
    assert plan.size.input_shape == (2, 2, 8, 16, 16)
    assert plan.family.divisor == (2, 4, 4)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_counts_are_those_of_the_network_that_nnunet_builds(plans_file, tmp_path, kind):
    changed = copy.deepcopy(PLANS)
    architecture = changed["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = f"{PLACE}.{kind}"
    if kind == "ResidualEncoderUNet":
        architecture["arch_kwargs"]["n_blocks_per_stage"] = architecture["arch_kwargs"].pop("n_conv_per_stage")
    plans_file.write_text(json.dumps(changed))
    plan = narrow_nnunet(plans_file, budget_bytes=300_000)
    given = {**architecture["arch_kwargs"], "features_per_stage": list(plan.channels)}
    given |= {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    theirs = getattr(unet, kind)(input_channels=2, num_classes=3, **given)
    assert network_size(theirs).parameters == plan.size.parameters
    assert save_weights(theirs, tmp_path / "model.pt") == plan.size.file_bytes == disk_bytes(plan.network_def)
    assert plan.size.file_bytes <= 300_000
    ours = build_network(plan.network_def)
    assert isinstance(ours, PlannedByNNUNet)
    ours.load_state_dict(theirs.state_dict())
    images = torch.zeros(1, 2, 8, 16, 16)
    assert torch.equal(ours(images), theirs(images))
    assert ours(images).shape == (1, 3, 8, 16, 16)


def test_a_file_of_other_content_is_replaced_only_by_force(plans_file):
    other = plans_file.with_name("mine.json")
    other.write_text("{}")
    with pytest.raises(FileExistsError, match=r"mine\.json is there already and differs: give another --plans_name"):
        narrow_nnunet(plans_file, budget_bytes=200_000, name="mine")
    assert other.read_text() == "{}"
    for force in (True, False):  # the same content may be written again
        narrow_nnunet(plans_file, budget_bytes=200_000, name="mine", force=force)
    assert json.loads(other.read_text())["plans_name"] == "mine"
    with pytest.raises(ValueError, match="cannot be named 'dataset'"):
        narrow_nnunet(plans_file, budget_bytes=200_000, name="dataset", force=True)


def test_a_configuration_that_inherits_gets_widths_of_its_own(plans_file):
    plan = narrow_nnunet(plans_file, configuration="3d_cascade", budget_bytes=200_000, name="mine")
    new = json.loads(plans_file.with_name("mine.json").read_text())["configurations"]
    assert new["3d_fullres"] == PLANS["configurations"]["3d_fullres"]
    assert new["3d_cascade"]["architecture"]["arch_kwargs"]["features_per_stage"] == list(plan.channels)
    assert plan.size.input_shape[0] == 4


def test_the_verb_says_how_to_train_and_what_the_prediction_rests_on(plans_file, capsys):
    assert main(["nnunet", str(plans_file), "--budget_bytes", "200000", "--layerwise", "false"]) == 0
    printed = capsys.readouterr().out
    assert "nnUNetv2_train Dataset123_Balls 3d_fullres FOLD -p nnUNetPlans_ccnet_" in printed
    assert "was measured; the law is of PlainUNet" in printed
    assert main(["nnunet"]) == 1
    assert "name the plans file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({}, {"configuration": "2d"}, "configuration must be one of 3d_cascade, 3d_fullres, a circle"),
        ({"network_class_name": "nnunetv2.Other"}, {}, "networks that can be narrowed are PlainConvUNet"),
        ({"arch_kwargs": {**KWARGS, "conv_op": "os.system"}}, {}, "conv_op names 'os.system', which is no class of"),
        ({"arch_kwargs": {**KWARGS, "conv_op": "torch.nn.functional.conv3d"}}, {}, "which is no class of torch.nn"),
        (kwargs(strides=...), {}, "strides must be a list of 3 strides, each of 3 whole numbers from 1 on, got None"),
        (kwargs(strides=[[1, 1], [2, 2], [2, 2]]), {}, "strides must be a list of 3 strides, each of 3 whole"),
        (kwargs(features_per_stage=32), {}, "features_per_stage must be a list of at least 2 widths, got 32"),
        (kwargs(features_per_stage=[32, "64"]), {}, "features_per_stage must be a list"),
        (kwargs(n_stages=4), {}, "n_stages must be 3, as many as there are widths, got 4"),
        (kwargs(kernel_sizes=...), {}, "PlainConvUNet cannot be built from .* argument: 'kernel_sizes'"),
        (kwargs(kernel_sizes="three"), {}, "PlainConvUNet cannot be built from"),
        ({"arch_kwargs": None}, {}, "features_per_stage must be a list of at least 2 widths, got None"),
        (None, {}, "names no `architecture`: make it anew"),
        ({}, {"budget_bytes": 100}, "still needs"),
        ({}, {"name": "nnUNetPlans"}, "cannot be named 'nnUNetPlans'"),
        ({}, {"name": "dataset"}, r"cannot be named 'dataset': .*dataset\.json stays"),
        ({}, {"name": "sub/mine"}, "plans_name must be of letters, .* got 'sub/mine': give no folder"),
        ({}, {"name": "mine.json"}, "plans_name must be of letters, .* got 'mine.json'"),
        ({}, {"name": "a__b"}, "single _, got 'a__b'"),
        ({}, {"configuration": "a circle"}, "is missing or inherits from itself"),
    ],
)
def test_refusals(plans_file, change, given, message):
    changed = copy.deepcopy(PLANS)
    if change is None:
        del changed["configurations"]["3d_fullres"]["architecture"]
    else:
        changed["configurations"]["3d_fullres"]["architecture"].update(change)
    plans_file.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=message):
        narrow_nnunet(plans_file, **{"budget_bytes": 200_000, **given})
    assert [path.name for path in plans_file.parent.glob("nnUNetPlans_ccnet*")] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": "two"}, "batch_size must be a whole number from 1 on, got 'two': correct the plans file"),
        ({"patch_size": 16}, "patch_size must be a list of 2 or 3 lengths, got 16"),
        ({"inherits_from": ["2d"]}, r"configuration \['2d'\], from which another inherits, is missing"),
    ],
)
def test_a_damaged_configuration_is_refused_and_an_audit_says_why(plans_file, change, message):
    changed = copy.deepcopy(PLANS)
    changed["configurations"]["3d_fullres"] |= change
    changed["configurations"]["2d"] = 5
    with pytest.raises(ValueError, match=message):
        nnunet_network_def(changed, "3d_fullres", DATASET)
    plans_file.write_text(json.dumps(changed))
    of = {each["config"]: each.get("reason") for each in audit(plans_file)["configurations"]}
    assert re.search(message, of["3d_fullres"])
    assert of["2d"] == "configuration 2d must be a dictionary of settings, got 5"
    with pytest.raises(ValueError, match="labels must be names with their numbers or lists of them"):
        nnunet_network_def(PLANS, "3d_fullres", {**DATASET, "labels": {"background": 0, "ball": "one"}})


def test_regions_have_one_answer_each(plans_file):
    (plans_file.parent / "regions.json").write_text(
        json.dumps(
            {**DATASET, "labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
        )
    )
    plan = narrow_nnunet(plans_file, dataset=plans_file.parent / "regions.json", budget_bytes=200_000)
    assert plan.network_def["out_channels"] == 2


@pytest.mark.parametrize(
    "labels", [DATASET["labels"], {"background": 0, "whole": [1, 2], "core": [2]}], ids=["labels", "regions"]
)
def test_a_cascade_is_given_its_previous_answers_as_nnunet_counts_them(plans_file, labels):
    plans, dataset = copy.deepcopy(PLANS), {**DATASET, "labels": labels, "regions_class_order": [1, 2]}
    plans["configurations"]["3d_cascade"]["previous_stage"] = "3d_lowres"
    found = {name: nnunet_network_def(plans, name, dataset) for name in ("3d_fullres", "3d_cascade")}
    assert [network_def["in_channels"] for network_def, _ in found.values()] == [2, 4]
    assert [shape[1] for _, shape in found.values()] == [2, 4]
    handler = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")
    labelling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    manager = handler.PlansManager(plans)
    for name, (network_def, _) in found.items():
        assert labelling.determine_num_input_channels(manager, name, dataset) == network_def["in_channels"]
        assert manager.get_label_manager(dataset).num_segmentation_heads == network_def["out_channels"]


def test_an_audit_tells_of_each_configuration_and_its_commands_narrow_it(plans_file, capsys):
    changed = copy.deepcopy(PLANS)
    changed["configurations"]["2d"] = {"patch_size": [8, 8], "batch_size": 4}
    plans_file.write_text(json.dumps(changed))
    of = {each["config"]: each for each in audit(plans_file)["configurations"]}
    network_def, shape = nnunet_network_def(changed, "3d_cascade", DATASET)
    size = network_size(network_def, shape)
    assert (of["3d_cascade"]["parameters"], of["3d_cascade"]["macs"]) == (size.parameters, size.macs)
    assert of["3d_cascade"]["memory_bytes"] == size.state_bytes + size.activation_bytes
    assert of["3d_cascade"]["file_bytes"] == {str(bits): disk_bytes(network_def, bits) for bits in (32, 16, 8)}
    assert of["3d_cascade"]["input_shape"] == [4, 2, 8, 16, 16]
    assert "names no `architecture`" in of["2d"]["reason"]
    assert "inherits from itself" in of["a circle"]["reason"]
    for command, rung in zip(of["3d_fullres"]["commands"], of["3d_fullres"]["narrower"][::3], strict=True):
        assert command == f"monai-ccnet nnunet {plans_file} --configuration 3d_fullres --budget_bytes " + str(
            rung["file_bytes"]["32"]
        )
        assert main(command.split()[1:]) == 0
        assert f"channels {'-'.join(map(str, rung['channels']))} instead of 32-64-128" in capsys.readouterr().out


def test_an_audit_in_words_names_what_is_no_plans_file(plans_file, capsys):
    assert main(["audit", str(plans_file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("nnUNetPlans.json (3d_fullres): architecture is PlainConvUNet.\n")
    assert "For the patches of a step, 2 x 2 x 8 x 16 x 16: " in said
    assert "nnUNetPlans.json (a circle): It cannot be built here" not in said  # said as any bundle's reason is
    assert main(["audit", str(plans_file.with_name("dataset.json"))]) == 1
    assert "holds no `configurations`: give a plans file of nnU-Net" in capsys.readouterr().err
