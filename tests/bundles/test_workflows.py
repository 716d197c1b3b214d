"""The bundle, as MONAI's own checks run it, and as a user does."""

import base64
import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

import monai_ccnet
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.networks import build_network
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import open_trial, segment_examples

ROOT = monai_ccnet.bundle_root()
CONFIGS = ROOT / "configs"
PICTURES = {"ceiling.png", "overlays.png", "plan.png", "scales.png", "trade_off.png"}
PATCHES = {2: [32, 32], 3: [32, 32, 16]}


def _run(names, **overrides):
    overrides = overrides if "measure.yaml" in names else {"device": "$torch.device('cpu')", **overrides}
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in names], workflow_type="train", **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def _compress(dataset_dir, output_dir, quick, **overrides):
    settings = {"budget_bytes": 45_000, "patch_size": PATCHES[2], "dataset_dir": str(dataset_dir)}
    return _run(["compress.yaml"], **(settings | quick | {"output_dir": str(output_dir)} | overrides))


@pytest.fixture(scope="module")
def compressed(disks_2d, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("compressed")
    quick = {"max_epochs": 2, "epoch_length": 12, "batch_size": 4, "learning_rate": 0.01, "channels": [8, 12, 16]}
    _compress(disks_2d, output_dir, quick)
    return output_dir, quick


def test_compress_leaves_what_it_promises(compressed):
    output_dir, _ = compressed
    plan, profile = (
        CompressionPlan.load(output_dir / "plan.json"),
        ComplexityProfile.load(output_dir / "complexity.json"),
    )
    report = json.loads((output_dir / "report.json").read_text())
    assert profile.count == 4
    assert profile.dataset == "disks"
    assert report["sizes"]["file_bytes"] == os.path.getsize(output_dir / "model.pt") <= 45_000
    assert report["predicted"]["relative_score"] == plan.predicted.score
    assert report["budget"]["max_bytes"] == 45_000
    assert report["full_channels"] == [8, 12, 16] == list(plan.full_channels)
    assert report["predicted"]["assumption"] == plan.assumption is not None
    assert report["predicted"]["low"] is None  # for the law was measured on a larger network
    assert report["achieved"]["score"] == report["achieved"]["f1"] > 0.8
    build_network(plan.network_def).load_state_dict(torch.load(output_dir / "model.pt", weights_only=True))
    with open(output_dir / "metrics.csv") as file:
        metrics = {name: float(value) for name, value in csv.reader(file)}
    expected = {"f1", "iu", "auc", "accuracy", "specificity", "sensitivity", "jaccard"}
    assert set(metrics) == expected
    assert metrics == pytest.approx({name: report["achieved"][name] for name in expected}, abs=1e-4)
    with open(output_dir / "iu_raw.csv") as file:
        per_image = [[float(value) for value in row[1:]] for row in list(csv.reader(file))[1:]]
    foreground = np.array(per_image)[:, 1]
    assert len(per_image) == 4
    assert np.mean(2 * foreground / (1 + foreground)) == pytest.approx(metrics["f1"], abs=1e-3)
    assert foreground.mean() == pytest.approx(metrics["jaccard"], abs=1e-3)


def test_nothing_that_is_left_tells_where_it_was_made(compressed, disks_2d):
    output_dir, _ = compressed
    texts = [path for path in output_dir.iterdir() if path.suffix in (".json", ".csv", ".html")]
    assert len(texts) > 8
    for path in texts:
        for told in (str(disks_2d), str(output_dir), str(Path.home()) + "/", str(ROOT)):
            assert told not in path.read_text(), f"{path.name} tells {told}"
    assert "imagesTs/case_0.png" in (output_dir / "iu_raw.csv").read_text()


def test_compress_leaves_pictures(compressed):
    output_dir, _ = compressed
    assert {path.name for path in output_dir.glob("*.png")} == PICTURES
    assert all(imread(output_dir / name).std() > 0.05 for name in PICTURES)
    page = (output_dir / "report.html").read_text()
    assert all(base64.b64encode((output_dir / name).read_bytes()).decode() in page for name in PICTURES)


def test_examples_are_what_was_evaluated(compressed, disks_2d):
    output_dir, _ = compressed
    record = TrialRecord.load(output_dir / "record.json")
    recipe = {"dataset_dir": str(disks_2d), "patch_size": PATCHES[2], "device": "cpu"}
    workflow = open_trial(ROOT, output_dir, record.network_def, **recipe)
    workflow.initialize()
    segmented = segment_examples(workflow.parser, record.per_image["f1"], [3, 1])
    assert [each.name for each in segmented] == ["case_3.png", "case_1.png"]
    for each in segmented:
        assert each.image.shape == each.truth.shape == each.prediction.shape == (1, 72, 56)
        both = ((each.truth > 0) & (each.prediction > 0)).sum()
        assert 2 * both / ((each.truth > 0).sum() + (each.prediction > 0).sum()) == pytest.approx(each.f1, abs=1e-3)


def test_a_second_run_does_nothing_again(compressed, disks_2d):
    output_dir, quick = compressed
    before = {path.name: path.stat().st_mtime_ns for path in output_dir.glob("[!.]*")}
    _compress(disks_2d, output_dir, quick)
    after = {path.name: path.stat().st_mtime_ns for path in output_dir.glob("[!.]*")}
    rewritten = {"run.json", "plan.json", "report.json", "report.html", "trade_off.csv", *PICTURES}
    assert {n: t for n, t in after.items() if n not in rewritten} == {
        n: t for n, t in before.items() if n not in rewritten
    }


def test_another_run_does_not_overwrite_the_first(compressed, disks_2d):
    output_dir, quick = compressed
    before = {path.name: path.read_bytes() for path in output_dir.iterdir()}
    with pytest.raises(RuntimeError) as error:
        _compress(disks_2d, output_dir, quick, budget_bytes=38_000)
    causes = []
    cause = error.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert "choose another output_dir" in causes[-1]
    assert {path.name: path.read_bytes() for path in output_dir.iterdir()} == before


def test_planned_network_is_evaluated_to_the_same_scores(compressed, disks_2d):
    output_dir, _ = compressed
    scores = json.loads((output_dir / "report.json").read_text())["achieved"]
    workflow = _run(
        ["train.yaml", "evaluate.yaml", "planned.yaml"],
        dataset_dir=str(disks_2d),
        output_dir=str(output_dir),
        patch_size=PATCHES[2],
    )
    assert workflow.parser.get_parsed_content("evaluator").state.metrics["f1"] == pytest.approx(scores["f1"])


def test_a_handler_records_what_an_evaluation_found(compressed, disks_2d, tmp_path):
    output_dir, _ = compressed
    known = TrialRecord.load(output_dir / "record.json")
    given = {"path": str(tmp_path / "record.json"), "dataset": "disks", "network_def": "$@plan.network_def"}
    given |= {"weights_file": str(output_dir / "model.pt"), "input_shape": list(known.size.input_shape)}
    config = {"+handlers": [{"_target_": "monai_ccnet.handlers.RecordTrial", **given}]}
    (tmp_path / "recorded.json").write_text(json.dumps(config))
    _run(
        ["train.yaml", "evaluate.yaml", "planned.yaml", tmp_path / "recorded.json"],
        dataset_dir=str(disks_2d),
        output_dir=str(output_dir),
        patch_size=PATCHES[2],
    )
    record = TrialRecord.load(tmp_path / "record.json")
    assert (record.size, record.file_bytes) == (known.size, known.file_bytes)
    assert record.scores == pytest.approx(known.scores)
    assert record.per_image["f1"] == pytest.approx(known.per_image["f1"])
    assert record.constant_score == known.constant_score


def test_inference_writes_the_masks_that_were_scored(compressed, disks_2d, tmp_path):
    output_dir, _ = compressed
    _run(["inference.yaml"], dataset_dir=str(disks_2d), output_dir=str(output_dir), patch_size=PATCHES[2])
    masks = sorted((output_dir / "predictions").glob("*.png"))
    assert len(masks) == 4
    scores = []
    for path in masks:
        truth = np.asarray(Image.open(disks_2d / "labelsTs" / path.name.replace("_seg", ""))) > 0
        found = np.asarray(Image.open(path)) > 0
        assert found.shape == truth.shape
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    expected = json.loads((output_dir / "report.json").read_text())["achieved"]["f1"]
    assert np.mean(scores) == pytest.approx(expected, abs=1e-3)


def test_a_floor_in_three_dimensions_with_half_precision(disks_3d, tmp_path, quick):
    overrides = {
        "budget_bytes": None,
        "min_score": 0.97,
        "bits_per_weight": 16,
        "law": "paper",
        "patch_size": PATCHES[3],
    }
    _compress(disks_3d, tmp_path, quick, **overrides)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["predicted"]["relative_score"] >= 0.97
    assert report["achieved"]["f1"] > 0.5
    assert all(v.dtype == torch.float16 for v in torch.load(tmp_path / "model.pt").values() if v.is_floating_point())


def test_measure_alone(disks_2d, tmp_path):
    overrides = {"dataset_dir": str(disks_2d), "output_dir": str(tmp_path), "measure": "jb"}
    _run(["measure.yaml"], **overrides, measure_settings={"omega": 0.7}, scales=[1, 2])
    profile = ComplexityProfile.load(tmp_path / "complexity.json")
    assert profile.settings["omega"] == 0.7
    assert len((tmp_path / "complexity.csv").read_text().splitlines()) == 1 + profile.count
    for name in ("complexity.png", "scales.png"):
        assert imread(tmp_path / name).std() > 0.05


@pytest.mark.parametrize("names", [["train.yaml"], ["train.yaml", "evaluate.yaml"]])
def test_train_and_evaluate_have_the_properties_of_a_bundle(names, disks_2d, tmp_path, quick):
    overrides = {"dataset_dir": str(disks_2d), "output_dir": str(tmp_path), "patch_size": PATCHES[2], **quick}
    if "evaluate.yaml" in names:
        _run(["train.yaml"], **overrides)
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in names], workflow_type="train", **overrides)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    assert (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("name", ["CUMedVision", "UCUNet"])
def test_a_network_with_auxiliary_outputs_trains_and_is_evaluated(name, disks_2d, tmp_path, quick):
    overrides = {"dataset_dir": str(disks_2d), "output_dir": str(tmp_path), "patch_size": PATCHES[2], **quick}
    overrides["network_def#_target_"] = f"monai_ccnet.networks.{name}"
    trained = _run(["train.yaml"], **overrides).parser
    assert trained.get_parsed_content("deep_supervision").auxiliary_weight == pytest.approx(0.01)
    evaluated = _run(["train.yaml", "evaluate.yaml"], **overrides).parser
    ids = ((trained, "validate#evaluator"), (evaluated, "evaluator"))
    scores = [parser.get_parsed_content(name).state.metrics["f1"] for parser, name in ids]
    assert scores[1] > 0.8
    assert scores[0] > 0.8


def test_inference_has_the_properties_of_a_bundle(compressed, disks_2d):
    output_dir, _ = compressed
    overrides = {"dataset_dir": str(disks_2d), "output_dir": str(output_dir), "patch_size": PATCHES[2]}
    workflow = ConfigWorkflow(str(CONFIGS / "inference.yaml"), workflow_type="infer", **overrides)
    workflow.initialize()
    assert not workflow.check_properties()


def test_metadata_by_the_fields_that_the_schema_requires(tmp_path):
    tensor = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
    schema = {
        "required": [
            "schema",
            "version",
            "monai_version",
            "pytorch_version",
            "numpy_version",
            "task",
            "description",
            "required_packages_version",
            "authors",
            "copyright",
            "network_data_format",
        ],
        "properties": {
            "version": {"pattern": r"^\d+\.\d+\.\d+$"},
            "network_data_format": {
                "required": ["inputs", "outputs"],
                "additionalProperties": {"additionalProperties": {"required": tensor}},
            },
        },
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    verify_metadata(meta_file=str(CONFIGS / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    assert metadata["version"] == monai_ccnet.__version__
    assert metadata["version"] in metadata["changelog"]


def test_network_takes_and_gives_what_the_metadata_say(disks_2d):
    for name in ("train.yaml", "inference.yaml"):
        verify_net_in_out(
            "network_def",
            config_file=str(CONFIGS / name),
            meta_file=str(CONFIGS / "metadata.json"),
            device="cpu",
            channels=[4, 8, 16, 16, 16],
            dataset_dir=str(disks_2d),
            output_dir="/nonexistent",
        )


def test_checkpoint_exports_to_torchscript(compressed, disks_2d, tmp_path):
    output_dir, _ = compressed
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(output_dir / "model.pt"),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.yaml"),
        dataset_dir=str(disks_2d),
        output_dir=str(output_dir),
    )
    image = torch.randn(1, 1, 32, 32)
    network = build_network(CompressionPlan.load(output_dir / "plan.json").network_def).eval()
    network.load_state_dict(torch.load(output_dir / "model.pt", weights_only=True))
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), network(image))


def test_two_processes_train_together(disks_2d, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = str([str(CONFIGS / "train.yaml"), str(CONFIGS / "multi_gpu_train.yaml")])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    command += ["-m", "monai.bundle", "run", "--config_file", files, "--dataset_dir", str(disks_2d)]
    command += ["--output_dir", str(tmp_path), "--max_epochs", "1", "--epoch_length", "20", "--batch_size", "2"]
    command += ["--channels", "[4,8,8]", "--patch_size", "[32,32]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state)
    assert done.stdout.count("Iter: 20/20") <= 1
