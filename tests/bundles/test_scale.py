"""The working scale by the bundle's own configs: chosen, trained with, used, and never guessed from weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from monai.bundle import ckpt_export
from PIL import Image

import monai_ccnet
from monai_ccnet.__main__ import main
from monai_ccnet.complexity import LabelCeiling
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.ending import root_cause
from monai_ccnet.networks import build_network, file_bytes, load_weights
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import plan_trials, read_run, settings_left

CONFIGS = monai_ccnet.bundle_root() / "configs"
TINY = ["--max_epochs", "2", "--epoch_length", "4", "--channels", "[6,8]", "--learning_rate", "0.01", "--device", "cpu"]
JOB = [*TINY, "--budget_bytes", "15000", "--pictures", "False"]


def run(verb, data, output_dir, *words):
    return main([verb, "--dataset_dir", str(data), "--output_dir", str(output_dir), *words])


@pytest.fixture(scope="module")
def compressed(large_2d, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("compressed")
    assert run("compress", large_2d, output_dir, *JOB[:-1], "True") in (0, 3)
    return output_dir


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_it_is_chosen_stated_and_kept_everywhere(compressed):
    plan = CompressionPlan.load(compressed / "plan.json")
    ceiling = LabelCeiling.load(compressed / "ceiling.json")
    record = TrialRecord.load(compressed / "record.json")
    left, report = settings_left(compressed), json.loads((compressed / "report.json").read_text())
    assert plan.scale > 1
    assert plan.ceiling == ceiling
    assert left["scale"] == record.scale == report["scale"] == plan.scale
    assert left["network_def"] == record.network_def == plan.network_def
    assert left["patch_size"] == [160, 128]  # the whole image
    assert record.size.input_shape == plan.size.input_shape == (1, 1, 160, 128)  # the same at every scale
    assert plan.image_size.input_shape == (1, 1, 160, 128)
    page = (compressed / "report.html").read_text()
    assert "The scale at which the network works" in page
    assert f"1/{plan.scale} (this plan)" in page
    assert (compressed / "ceiling.png").stat().st_size > 10_000
    weights = torch.load(compressed / "model.pt", weights_only=True)
    assert not any(name.startswith("network.") for name in weights)
    assert (compressed / "model.pt").stat().st_size == file_bytes(plan.network_def)
    load_weights(build_network(plan.network_def["network"]), compressed / "model.pt")  # in either


def test_evaluation_and_inference_work_at_the_scale_of_the_run(compressed, large_2d, tmp_path):
    output_dir = copied(compressed, tmp_path)
    expected = TrialRecord.load(output_dir / "record.json").scores["f1"]
    (output_dir / "metrics.csv").unlink()
    assert run("evaluate", large_2d, output_dir) == 0
    assert f"{expected:.6f}"[:7] in (output_dir / "metrics.csv").read_text()
    assert run("infer", large_2d, output_dir) == 0
    f1 = []
    for index in range(4):
        answer, mask = (
            np.asarray(Image.open(path))
            for path in (
                output_dir / "predictions" / f"case_{index}_seg.png",
                large_2d / "labelsTs" / f"case_{index}.png",
            )
        )
        assert answer.shape == mask.shape
        f1.append(2 * (answer * mask).sum() / (answer.sum() + mask.sum()))
    assert np.mean(f1) == pytest.approx(expected, abs=1e-5)


def test_weights_alone_do_not_tell_the_scale_and_none_is_guessed(compressed, large_2d, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(compressed / "model.pt", alone)
    channels = json.dumps(list(CompressionPlan.load(compressed / "plan.json").channels))
    with pytest.raises(RuntimeError) as raised:  # an export does not begin with the checks of a run
        ckpt_export(
            "network_def",
            filepath=str(tmp_path / "model.ts"),
            ckpt_file=str(alone / "model.pt"),
            meta_file=str(CONFIGS / "metadata.json"),
            config_file=str(CONFIGS / "inference.yaml"),
            output_dir=str(alone),
        )
    assert "weights do not tell: give --scale" in str(root_cause(raised.value))
    for verb in ("evaluate", "infer"):
        assert run(verb, large_2d, alone, "--channels", channels) == 1
        assert "weights do not tell: give --scale" in capsys.readouterr().err
    scale = str(CompressionPlan.load(compressed / "plan.json").scale)
    words = ["--channels", channels, "--scale", scale]
    for verb in ("evaluate", "infer"):
        assert run(verb, large_2d, alone, *words) == 1
        assert "weights do not tell: give --activation" in capsys.readouterr().err
    words += ["--activation", "['LEAKYRELU',{'negative_slope':0.2}]"]
    assert run("infer", large_2d, alone, *words) == 0
    assert run("evaluate", large_2d, alone, *words) == 0
    expected = json.loads((compressed / "report.json").read_text())["achieved"]["f1"]
    assert f"{expected:.6f}"[:7] in (alone / "metrics.csv").read_text()
    for verb in ("evaluate", "infer"):
        assert run(verb, large_2d, copied(compressed, tmp_path / verb), "--activation", "RELU") == 1
        assert "leave --activation out" in capsys.readouterr().err


def test_another_scale_than_the_runs_is_refused_where_it_is_used(compressed, large_2d, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    other = "3"
    for verb in ("evaluate", "infer"):
        assert run(verb, large_2d, output_dir, "--scale", other) == 1
        assert "scale is 3" in capsys.readouterr().err
    (output_dir / "run.json").unlink()  # the plan alone
    (output_dir / "record.json").unlink()
    assert run("infer", large_2d, output_dir, "--scale", other) == 1
    assert "the network was trained at 1/" in capsys.readouterr().err
    assert run("infer", large_2d, output_dir) == 0


def test_weights_of_another_scale_are_refused_in_a_folder_of_a_run(compressed, large_2d, tmp_path, capsys):
    other = tmp_path / "other"
    channels = json.dumps(list(CompressionPlan.load(compressed / "plan.json").channels))
    assert run("train", large_2d, other, *TINY, "--channels", channels, "--scale", "1") in (0, 3)
    shutil.copy(compressed / "model.pt", other)
    for verb in ("evaluate", "infer"):
        assert run(verb, large_2d, other) == 1
        assert "not the file that" in capsys.readouterr().err


def test_it_is_given_as_a_number_or_one_for_each_axis(large_2d, tmp_path):
    assert run("compress", large_2d, tmp_path / "one", *JOB, "--scale", "1") in (0, 3)
    assert CompressionPlan.load(tmp_path / "one" / "plan.json").scale == 1
    assert read_run(tmp_path / "one")["settings"]["patch_size"] == [160, 128]
    assert run("compress", large_2d, tmp_path / "each", *JOB, "--scale", "[2,4]") in (0, 3)
    plan = CompressionPlan.load(tmp_path / "each" / "plan.json")
    assert plan.scale == (2, 4)
    assert run("infer", large_2d, tmp_path / "each") == 0


def test_another_scale_in_the_folder_is_another_network(compressed, large_2d, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    assert run("compress", large_2d, output_dir, *JOB, "--scale", "1") == 1
    scale = CompressionPlan.load(output_dir / "plan.json").scale
    assert f"holds a run with another scale ({scale}, asked for is 1)" in capsys.readouterr().err
    plan = CompressionPlan.load(output_dir / "plan.json")
    assert run("train", large_2d, tmp_path / "trained", *TINY) in (0, 3)
    assert run("train", large_2d, tmp_path / "trained", *TINY, "--scale", str(plan.scale)) in (0, 3)  # the same, said


def test_a_budget_on_arithmetic_takes_a_coarser_scale_on_request(large_2d, tmp_path, capsys):
    words = [*TINY, "--pictures", "False", "--budget_macs", "20000", "--smallest_structure", "500"]
    assert run("compress", large_2d, tmp_path / "auto", *words, "--scale", "1") == 1
    assert "no width fits the budget" in capsys.readouterr().err
    assert run("compress", large_2d, tmp_path / "any", *words, "--scale", "any") in (0, 3)
    plan = CompressionPlan.load(tmp_path / "any" / "plan.json")
    assert plan.size.macs <= 20_000
    assert plan.scale > 1


def test_the_papers_law_means_full_resolution(large_2d, tmp_path):
    words = ["--law", "paper", "--allocation", "complexity", "--measure", "jpeg"]
    assert run("compress", large_2d, tmp_path, *JOB, *words) in (0, 3)
    assert CompressionPlan.load(tmp_path / "plan.json").scale == 1


def test_the_smallest_structure_is_asked_for(large_2d, tmp_path):
    assert run("measure", large_2d, tmp_path, "--smallest_structure", "7") == 0
    ceiling = LabelCeiling.load(tmp_path / "ceiling.json")
    assert (ceiling.smallest_structure, ceiling.is_asked, ceiling.unit) == (7.0, True, "pixels")


def test_sweeps_work_at_a_scale_or_choose_one_for_each_set(large_2d, disks_2d, tmp_path):
    given = {"multipliers": [1, 0.5], "channels": [6, 8]}
    trials = plan_trials(monai_ccnet.bundle_root(), tmp_path, [large_2d, disks_2d], scale="auto", **given)
    scales = {trial.recipe["dataset_dir"]: trial.network_def.get("scale", 1) for trial in trials}
    assert scales[str(large_2d)] > scales[str(disks_2d)]
    assert {trial.network_def["network"]["channels"][0] for trial in trials if "network" in trial.network_def} == {3, 6}
    fixed = plan_trials(monai_ccnet.bundle_root(), tmp_path, [large_2d], scale=2, **given)
    plain = plan_trials(monai_ccnet.bundle_root(), tmp_path, [large_2d], **given)
    assert not {trial.output_dir for trial in fixed} & {trial.output_dir for trial in plain}
    assert "-at2-" in fixed[0].output_dir


def test_rivals_are_compared_at_one_scale(large_2d, tmp_path):
    methods = "['full size','taper','squeeze','L1 pruning','taper, int8']"
    words = ["--methods", methods, "--budgets_bytes", "[14000]", "--seeds", "[0]", "--pictures", "False"]
    recipe = "{'max_epochs': 1, 'epoch_length': 2, 'channels': [6, 8], 'batch_size': 2}"
    assert run("compare", large_2d, tmp_path, *words, "--training", recipe) == 0
    records = [TrialRecord.load(path) for path in tmp_path.rglob("record.json")]
    assert len(records) >= 4
    assert len({record.scale for record in records}) == 1
    assert records[0].scale > 1
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 6
