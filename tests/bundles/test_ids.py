"""Ids and values that no config knows are refused before anything runs; those that one knows are obeyed."""

import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow

import monai_ccnet
from monai_ccnet.__main__ import main
from monai_ccnet.ending import root_cause

CONFIGS = monai_ccnet.bundle_root() / "configs"
TINY = {"max_epochs": 1, "epoch_length": 2, "batch_size": 2, "channels": [8, 12, 16], "patch_size": [32, 32]}
COMPRESS = TINY | {"budget_bytes": 45_000, "pictures": False, "scale": 1}


def begin(names, dataset_dir, output_dir, *resolved, **overrides):
    """Initialize a workflow, resolve some ids and return it, or raise the cause of what stopped it."""
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in names], workflow_type="train", **places | overrides)
    try:
        workflow.initialize()
        for name in resolved:
            workflow.parser.get_parsed_content(name)
    except RuntimeError as error:
        raise root_cause(error) from None
    return workflow


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"budget_byte": 1000}, "compress.yaml knows no setting 'budget_byte': did you mean 'budget_bytes'"),
        ({"minscore": 0.5}, "knows no setting 'minscore': did you mean 'min_score'"),
        ({"max_epoch": 7}, "knows no setting 'max_epoch': did you mean 'max_epochs'"),
        ({"scal": [1]}, "knows no setting 'scal': did you mean 'scale'"),
        ({"scale": 0}, "scale must be a whole number from 1, a list of one for each axis, 'auto' or 'any', got 0"),
        ({"scale": "half"}, "got 'half'"),
        ({"scale": [2, 2, 2]}, "a scale for 2 axes has one number or 2"),
        ({"tolerence": 0.1}, "knows no setting 'tolerence'"),
        ({"training": {"max_epoch": 3}}, "train.yaml knows no setting 'max_epoch': did you mean 'max_epochs'"),
        ({"training": {"max_epochs": "3"}}, "max_epochs must be a whole number from 1, got '3'"),
        ({"training": {"epoch_length": 0}}, "epoch_length must be a whole number from 1, got 0"),
        ({"layerwise": "false"}, "layerwise must be True or False, got 'false'"),
        ({"min_score": True}, "min_score must be a number above 0 and at most 1 or None, got True"),
        ({"budget_bytes": True}, "budget_bytes must be a whole number from 1 or None, got True"),
        ({"seed": 0.5}, "seed must be a whole number from 0, got 0.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, got nan"),
        ({"channels": 8}, "channels must be a list of at least one whole number from 1, got 8"),
        (
            {"measure_settings": {"spacin": "pixels"}},
            "measure 'boundary' knows no setting 'spacin': did you mean 'spacing'",
        ),
        ({"allocation": "tapper"}, "taper"),
    ],
)
def test_what_compress_does_not_know_is_refused(overrides, message, disks_2d, tmp_path):
    with pytest.raises(ValueError, match=message):
        begin(["compress.yaml"], disks_2d, tmp_path / "output", "plan", **COMPRESS | overrides)
    assert not (tmp_path / "output" / "run.json").exists()
    assert not (tmp_path / "output" / "plan.json").exists()


@pytest.mark.parametrize("path", ["a#b", "a::b"])
def test_a_path_that_monai_would_change_is_refused_in_words_and_taken_by_the_command(path, disks_2d, tmp_path):
    with pytest.raises(ValueError, match=r"output_dir is '.*a::b': MONAI reads '#' and '::'.*monai-ccnet, which takes"):
        begin(["measure.yaml"], disks_2d, tmp_path / path, scales=[1])
    assert (
        main(["measure", "--dataset_dir", str(disks_2d), "--output_dir", str(tmp_path / path), "--scales", "[1]"]) == 0
    )
    assert (tmp_path / path / "complexity.json").is_file()
    assert [each.name for each in tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("words", [["--output_dir", "a#b"], ["--output_dir=a#b"]])
def test_a_path_that_the_command_line_cuts_off_is_refused(words, disks_2d, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/site-packages/monai/bundle/__main__.py", "run", *words])
    with pytest.raises(ValueError, match=r"output_dir is 'a#b': MONAI reads '#' and '::'"):
        begin(["compress.yaml"], disks_2d, tmp_path / "a", **COMPRESS)  # what the command line makes of it
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("names", [["train.yaml"], ["train.yaml", "evaluate.yaml"]])
def test_what_train_does_not_know_is_refused(names, disks_2d, tmp_path):
    with pytest.raises(ValueError, match="knows no setting 'budget_bytes'"):
        begin(names, disks_2d, tmp_path, **TINY, budget_bytes=1000)
    with pytest.raises(ValueError, match="knows no setting 'train#preprocesing': did you mean 'train#preprocessing'"):
        begin(names, disks_2d, tmp_path, **TINY, **{"train#preprocesing": None})


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("measure.yaml", {"measur": "jpeg"}, "did you mean 'measure'"),
        ("inference.yaml", {"patchsize": [32, 32]}, "did you mean 'patch_size'"),
        ("compare.yaml", {"budget_bytes": [1000]}, "did you mean 'budgets_bytes'"),
        ("calibrate.yaml", {"multiplier": [1.0]}, "did you mean 'multipliers'"),
    ],
)
def test_what_the_others_do_not_know_is_refused(name, overrides, message, tmp_path):
    workflow = ConfigWorkflow(str(CONFIGS / name), workflow_type="train", output_dir=str(tmp_path), **overrides)
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    assert message in str(root_cause(raised.value))


def test_a_recipe_of_misspelt_ids_is_refused_before_any_training(disks_2d, tmp_path):
    with pytest.raises(ValueError, match=r"train\.yaml knows no setting 'max_epoch': did you mean 'max_epochs'"):
        begin(["compare.yaml"], disks_2d, tmp_path, training={"max_epoch": 3})
    assert not list(tmp_path.rglob("model.pt"))


def test_a_name_of_digits_arrives_as_text(disks_2d, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(str(CONFIGS / "measure.yaml"), dataset_dir=str(disks_2d), output_dir=2026)
    workflow.initialize()
    parser = workflow.parser
    assert parser.get_parsed_content("output_dir") == "2026"


def test_compress_obeys_every_id_of_the_training(disks_2d, tmp_path):
    given = {"precision": "bfloat16", "num_workers": 0, "cache_rate": 0.5, "warmup_steps": 1, "device": "cpu"}
    given |= {"training": {"lambda_dice": 0.5, "loss#include_background": False}}
    parser = begin(["compress.yaml"], disks_2d, tmp_path, **COMPRESS, **given).parser
    network = parser.get_parsed_content("network")
    kinds = []
    network.head.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    network(torch.zeros(1, 1, 32, 32))
    assert kinds == [torch.bfloat16]
    assert parser.get_parsed_content("lr_scheduler").warmup_steps == 1
    assert parser.get_parsed_content("train#dataset").cache_num == 2
    loss = parser.get_parsed_content("loss")
    assert (loss.lambda_dice, loss.dice.include_background) == (0.5, False)
    assert parser.get_parsed_content("train#trainer").state.max_epochs == 1


def test_the_parts_may_be_named_and_are_then_the_same(disks_2d, tmp_path):
    alone = begin(["compress.yaml"], disks_2d, tmp_path, **COMPRESS, **{"network_def::act": "PRELU"}).parser
    parts = ["train.yaml", "evaluate.yaml", "overlay/compress.yaml", "tracked.yaml", "compress.yaml"]
    named = begin(parts, disks_2d, tmp_path, **COMPRESS, **{"network_def::act": "PRELU"}).parser
    with pytest.raises(ValueError, match="knows no setting 'planning#layerwis': did you mean 'planning#layerwise'"):
        begin(parts, disks_2d, tmp_path, **COMPRESS, **{"planning::layerwis": True})
    configs = [{key: value for key, value in parser.get().items() if key != "_meta_"} for parser in (alone, named)]
    assert configs[0] == configs[1]
    assert alone.get_parsed_content("plan").network_def["act"] == "PRELU"


OVER = {"network_def": {"_target_": "UNet"}, "run": [], "theirs": 1, "initialize": []}


def their_config(tmp_path, **more):
    import json

    path = tmp_path / "train.json"
    path.write_text(json.dumps({"imports": [], "bundle_root": str(tmp_path), "dataset_dir": ".", **OVER, **more}))
    return [str(path), str(CONFIGS / "overlay" / "compress.yaml")]


def test_over_another_bundle_ids_of_either_are_known_and_others_refused(tmp_path):
    files = their_config(tmp_path)
    for given in ({"budget_byte": 1000}, {"their": 2}, {"unheard_of": 3}):
        (name,) = given
        with pytest.raises(RuntimeError) as raised:  # started as by MONAI's command, the files are known
            create_workflow(config_file=files, **given)
        assert f"overlay/compress.yaml knows no setting {name!r}" in str(root_cause(raised.value))
    workflow = ConfigWorkflow(files, workflow_type="train", budget_byte=1000)
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    assert "did you mean 'budget_bytes'" in str(root_cause(raised.value))


def test_a_network_of_ones_own_is_given_as_a_whole_and_narrowed_by_its_entry(disks_2d, tmp_path):
    own = {"_target_": "monai.networks.nets.RegUNet", "spatial_dims": 2, "in_channels": 1}
    own |= {"num_channel_initial": 8, "depth": 2, "out_channels": 2}
    given = {**COMPRESS, "network_def": own, "budget_bytes": 80_000}
    with pytest.raises(ValueError, match=r"not known where 'monai\.networks\.nets\.\S*RegUNet' holds its widths"):
        begin(["compress.yaml"], disks_2d, tmp_path, "plan", **given)
    entry = {"argument": "num_channel_initial", "scales": [1, 2, 4], "least": 2}
    plan = begin(["compress.yaml"], disks_2d, tmp_path, "plan", **given, widths=entry).parser.get_parsed_content("plan")
    assert 2 <= plan.network_def["num_channel_initial"] < 8
    assert plan.size.file_bytes <= 80_000
    assert plan.predicted.low is None


@pytest.mark.parametrize("patch_size", [[32, 48], [32, 32]])
def test_patches_make_batches_also_where_they_are_not_square(patch_size, disks_2d, tmp_path):
    parser = begin(["train.yaml"], disks_2d, tmp_path, **TINY | {"patch_size": patch_size, "batch_size": 8}).parser
    for batch in parser.get_parsed_content("train#dataloader"):
        assert batch["image"].shape == (8, 1, *patch_size)
