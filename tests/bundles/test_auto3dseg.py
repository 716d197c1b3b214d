"""Narrower copies of algorithms of Auto3DSeg, written in the shape of its templates."""

import json

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.networks.nets import SegResNetDS, SwinUNETR

from monai_ccnet.__main__ import main
from monai_ccnet.bundle import audit, audit_words, narrow_auto3dseg, store
from monai_ccnet.bundle.auto3dseg import algorithm_network_def
from monai_ccnet.networks import build_network, network_size, save_weights
from monai_ccnet.networks.size import disk_bytes

SEGRESNET = {
    "bundle_root": "work/segresnet_0",
    "ckpt_path": "$@bundle_root + '/model'",
    "roi_size": [32, 32, 16],
    "auto_scale_filters": False,
    "anisotropic_scales": True,
    "resample_resolution": [1.0, 1.0, 2.0],
    "input_channels": 2,
    "output_classes": 3,
    "batch_size": "@num_images_per_batch",
    "num_images_per_batch": 2,
    "num_crops_per_image": 2,
    "network": {
        "_target_": "SegResNetDS",
        "init_filters": 8,
        "blocks_down": [1, 1, 1],
        "norm": "INSTANCE_NVFUSER",
        "in_channels": "@input_channels",
        "out_channels": "@output_classes",
        "dsdepth": 2,
    },
    "finetune": {"enabled": False, "ckpt_name": "$@bundle_root + '/model/model.pt'"},
}
SWINUNETR = {
    "bundle_root": "work/swinunetr_0",
    "roi_size": [64, 64, 64],
    "num_patches_per_iter": 3,
    "input_channels": 1,
    "output_classes": 2,
    "use_pretrain": True,
    "pretrained_path": "$@bundle_root + '/pretrained_model/f48.pt'",
}
SWIN = {
    "_target_": "SwinUNETR",
    "feature_size": 24,
    "in_channels": "@input_channels",
    "out_channels": "@output_classes",
    "spatial_dims": 3,
}
LOADS = {"transforms_train": {"_target_": "Compose", "transforms": ["$a_name_that_nobody_knows"]}}


@pytest.fixture
def algorithm(tmp_path):
    """Return a function that writes the folder of an algorithm."""

    def write(name, **configs):
        folder = tmp_path / "work" / name
        for part in ("configs", "scripts", "model"):
            (folder / part).mkdir(parents=True)
        for file, content in configs.items():
            (folder / "configs" / f"{file}.yaml").write_text(yaml.safe_dump(content))
        (folder / "scripts" / "train.py").write_text("print('trains')\n")
        (folder / "model" / "model.pt").write_text("weights")
        (folder / "algo_object.pkl").write_text("never loaded")
        return folder

    return write


def read(folder, name="hyper_parameters"):
    return yaml.safe_load((folder / "configs" / f"{name}.yaml").read_text())


def test_a_copy_differs_in_its_width_and_place_alone(algorithm):
    folder = algorithm("segresnet_0", hyper_parameters=SEGRESNET)
    plan = narrow_auto3dseg(folder, budget_bytes=40_000)
    (width,) = plan.channels
    copy = folder.with_name(f"segresnet_0_ccnet_{width}")
    expected = {**SEGRESNET, "bundle_root": str(copy), "network": {**SEGRESNET["network"], "init_filters": width}}
    assert read(copy) == expected
    assert read(folder) == SEGRESNET
    assert sorted(path.name for path in copy.iterdir()) == ["configs", "scripts"]
    assert plan.size.input_shape == (4, 2, 32, 32, 16)


def test_counts_and_bytes_are_those_of_the_network_that_the_scripts_build(algorithm, tmp_path):
    folder = algorithm("segresnet_0", hyper_parameters=SEGRESNET)
    plan = narrow_auto3dseg(folder, budget_bytes=40_000)
    theirs = SegResNetDS(
        3, plan.channels[0], 2, 3, norm="INSTANCE", blocks_down=[1, 1, 1], dsdepth=2, resolution=[1, 1, 2]
    )
    assert network_size(theirs).parameters == plan.size.parameters
    build_network(plan.network_def).load_state_dict(theirs.state_dict())
    assert save_weights(theirs, tmp_path / "model.pt") == plan.size.file_bytes <= 40_000
    wider = {**plan.network_def, "init_filters": plan.channels[0] + 1}
    assert disk_bytes(wider) > 40_000


def test_a_network_of_slices_takes_all_slices_of_a_patch(algorithm):
    network = {**SEGRESNET["network"], "spatial_dims": 2, "norm": "BATCH"}
    folder = algorithm("segresnet2d_0", hyper_parameters={**SEGRESNET, "network": network})
    network_def, shape = algorithm_network_def(folder)
    assert shape == (4 * 16, 2, 32, 32)
    assert "resolution" not in network_def
    memory = network_size(network_def, shape)
    plan = narrow_auto3dseg(folder, budget_memory_bytes=(memory.state_bytes + memory.activation_bytes) // 2)
    assert plan.size.state_bytes + plan.size.activation_bytes <= (memory.state_bytes + memory.activation_bytes) // 2


def test_a_transformer_is_narrowed_by_12_and_starts_without_weights_of_another_width(algorithm, capsys):
    folder = algorithm("swinunetr_0", hyper_parameters=SWINUNETR, network={"network": SWIN}, transforms_train=LOADS)
    macs = network_size(algorithm_network_def(folder)[0], (3, 1, 64, 64, 64)).macs
    plan = narrow_auto3dseg(folder / "configs" / "hyper_parameters.yaml", budget_macs=macs - 1)
    copy = folder.with_name("swinunetr_0_ccnet_12")
    assert read(copy, "network") == {"network": {**SWIN, "feature_size": 12}}
    assert read(copy) == {**SWINUNETR, "bundle_root": str(copy), "use_pretrain": False}
    assert read(copy, "transforms_train") == LOADS
    said = capsys.readouterr().out
    assert "Switched off: use_pretrain. Weights trained at feature_size 24 do not fit" in said
    assert network_size(SwinUNETR(1, 2, feature_size=12)).parameters == plan.size.parameters
    narrow_auto3dseg(folder, budget_macs=macs)
    assert read(folder.with_name("swinunetr_0_ccnet_24"))["use_pretrain"] is True
    assert "Switched off" not in capsys.readouterr().out


def test_settings_that_would_choose_another_width_are_switched_off(algorithm, capsys):
    given = {**SEGRESNET, "auto_scale_filters": True, "finetune": {"enabled": True, "ckpt_name": "old.pt"}}
    folder = algorithm("segresnet_0", hyper_parameters=given)
    plan = narrow_auto3dseg(folder, budget_bytes=40_000)
    new = read(folder.with_name(f"segresnet_0_ccnet_{plan.channels[0]}"))
    assert (new["auto_scale_filters"], new["finetune"]["enabled"]) == (False, False)
    said = capsys.readouterr().out
    assert "Switched off: auto_scale_filters, which would take another width" in said
    assert "Switched off: finetune#enabled." in said


def test_autorunner_finds_the_copy_untrained(algorithm):
    folder = algorithm("segresnet_0", hyper_parameters=SEGRESNET)
    filled = {"hyper_parameters.yaml": {"bundle_root": "work/segresnet_0", "network#init_filters": 8, "fold": 0}}
    state = {"output_path": "work/segresnet_0", "best_metric": 0.9, "fill_records": filled, "name": "segresnet"}
    entry = {"_target_": "segresnet.scripts.algo.SegresnetAlgo", "_state_": state, "template_path": "t"}
    (folder / "algo_object.json").write_text(json.dumps({**entry, "best_metric": 0.9}))
    plan = narrow_auto3dseg(folder, budget_bytes=40_000)
    copy = folder.with_name(f"segresnet_0_ccnet_{plan.channels[0]}")
    filled = {"bundle_root": str(copy), "network#init_filters": plan.channels[0], "fold": 0}
    state |= {"output_path": str(copy), "best_metric": None, "fill_records": {"hyper_parameters.yaml": filled}}
    assert json.loads((copy / "algo_object.json").read_text()) == {**entry, "_state_": state}
    trained = {**entry, "_state_": {**state, "best_metric": 0.8}, "best_metric": 0.8}
    (copy / "algo_object.json").write_text(json.dumps(trained))
    narrow_auto3dseg(folder, budget_bytes=40_000, force=True)
    assert json.loads((copy / "algo_object.json").read_text()) == trained
    deeper = {**SEGRESNET, "network": {**SEGRESNET["network"], "dsdepth": 1}}
    (copy / "configs" / "hyper_parameters.yaml").write_text(
        yaml.safe_dump({**read(copy), "network": deeper["network"]})
    )
    narrow_auto3dseg(folder, budget_bytes=40_000, force=True)  # what was trained is of another network
    assert json.loads((copy / "algo_object.json").read_text()) == {**entry, "_state_": state}


def test_the_verb_prints_the_next_command_and_writes_over_nothing(algorithm, capsys):
    folder = algorithm("segresnet_0", hyper_parameters=SEGRESNET)
    given = ["auto3dseg", str(folder), "--budget_bytes", "40000"]
    assert main(given) == 0
    copy = next(folder.parent.glob("segresnet_0_ccnet_*"))
    command = f"python {copy}/scripts/train.py run --config_file \"['{copy}/configs/hyper_parameters.yaml']\""
    assert capsys.readouterr().out.splitlines()[-1] == command
    (copy / "model").mkdir()
    (copy / "scripts" / "train.py").write_text("changed")
    assert main(given) == 1
    assert "is there already: --force true replaces" in capsys.readouterr().err
    assert (copy / "scripts" / "train.py").read_text() == "changed"
    assert main([*given, "--force", "true"]) == 0
    assert (copy / "scripts" / "train.py").read_text() == "print('trains')\n"
    assert (copy / "model").is_dir()
    assert main(["auto3dseg"]) == 1
    assert "name the algorithm's folder" in capsys.readouterr().err


DINTS = {"training_network": {"network": {"_target_": "DiNTS", "node_a": "$torch.load('scripts/arch_code.pth')"}}}
UNFILLED = {**SEGRESNET, "input_channels": None, "output_classes": None}


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"hyper_parameters": {}, "network": DINTS}, "is DiNTS, whose cells .* channel_mul 0.5"),
        ({"hyper_parameters": UNFILLED}, "in_channels and out_channels of the network in .* are not filled in"),
        ({"hyper_parameters": {**SEGRESNET, "roi_size": None}}, "roi_size must hold a length for each axis, got None"),
        ({"hyper_parameters": {}}, "holds a network with _target_: give a folder"),
        ({"network": {"network": SWIN}}, "has no configs/hyper_parameters.yaml"),
        ({"hyper_parameters": SEGRESNET, "more": {"network#init_filters": 6}}, "in more than one place"),
        ({"hyper_parameters": SEGRESNET, "budget": 100}, "still needs"),
    ],
)
def test_refusals(algorithm, configs, message):
    folder = algorithm("it_0", **{name: value for name, value in configs.items() if name != "budget"})
    with pytest.raises(ValueError, match=message):
        narrow_auto3dseg(folder, budget_bytes=configs.get("budget", 40_000))
    assert [path.name for path in folder.parent.iterdir()] == ["it_0"]


def test_an_audit_of_an_algorithm_and_the_command_that_it_gives(algorithm, capsys):
    folder = algorithm("segresnet_0", hyper_parameters=SEGRESNET)
    found = audit(folder)
    network_def, shape = algorithm_network_def(folder)
    assert (found["parameters"], found["macs"]) == (
        network_size(network_def).parameters,
        network_size(network_def, shape).macs,
    )
    last = found["narrower"][-1]
    assert last["channels"] != found["full_channels"]
    assert found["commands"][-1] == f"monai-ccnet auto3dseg {folder} --budget_bytes {last['file_bytes']['32']}"
    assert main(found["commands"][-1].split()[1:]) == 0
    assert folder.with_name(f"segresnet_0_ccnet_{last['channels'][0]}").is_dir()
    assert "For the patches of a step, 4 x 2 x 32 x 32 x 16: " in "\n".join(audit_words(found))
    swin = audit(algorithm("swinunetr_0", hyper_parameters=SWINUNETR, network={"network": SWIN}))
    assert [each["channels"] for each in swin["narrower"]] == [[12], [24]]
    assert len(swin["commands"]) == 1  # full size is no narrowing
    dints = audit(algorithm("dints_0", hyper_parameters={}, network=DINTS))
    assert audit_words(dints)[-1].startswith("dints_0 (configs): it is DiNTS, whose cells")
    assert audit_words(dints)[-1].endswith("narrow segresnet or swinunetr instead.")


def test_a_trained_algorithm_is_stored_at_8_bits(algorithm, tmp_path):
    folder = algorithm("segresnet_0", hyper_parameters={**SEGRESNET, "roi_size": [8, 8, 8]})
    network = build_network(algorithm_network_def(folder)[0])
    torch.save({"state_dict": network.state_dict(), "config": {"fold": 0}, "epoch": 3}, folder / "model" / "model.pt")
    found = store(folder, tmp_path / "out", weights=folder / "model" / "model.pt")
    assert found["bytes_after"] == disk_bytes(network, 8)


def test_the_copy_is_read_by_monai_as_the_plan_says(algorithm):
    folder = algorithm("swinunetr_0", hyper_parameters=SWINUNETR, network={"network": SWIN})
    plan = narrow_auto3dseg(folder, budget_bytes=30_000_000)
    parser = ConfigParser()
    parser.read_config([str(path) for path in sorted((folder.parent / "swinunetr_0_ccnet_12" / "configs").iterdir())])
    assert network_size(parser.get_parsed_content("network")).parameters == plan.size.parameters
