"""Sweeps: every trial once, whatever happens."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigWorkflow
from PIL import Image

import monai_ccnet
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.files import file_digest
from monai_ccnet.training import load_records, plan_trials, run_sweep, run_trial

ROOT = monai_ccnet.bundle_root()
QUICK = {
    "max_epochs": 3,
    "epoch_length": 4,
    "batch_size": 2,
    "learning_rate": 0.01,
    "channels": [8, 12, 16],
    "patch_size": [32, 32],
}


def plan(dataset, folder, **overrides):
    given = {"multipliers": (0.5, 1.0), **QUICK, **overrides}
    return plan_trials(ROOT, folder, [dataset], **given)


def test_the_plan_names_every_trial_by_what_it_depends_on(disks_2d, tmp_path):
    trials = plan(disks_2d, tmp_path, seeds=(0, 1))
    assert [(trial.multiplier, trial.recipe["seed"]) for trial in trials] == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    assert trials[0].network_def["channels"] == [4, 6, 8]
    folders = {trial.output_dir for trial in trials}
    assert len(folders) == 4
    assert Path(trials[0].output_dir).name.startswith("disks-PlainUNet-0.5-seed0-")
    assert folders == {trial.output_dir for trial in plan(disks_2d, tmp_path, seeds=(0, 1))}
    assert folders.isdisjoint(trial.output_dir for trial in plan(disks_2d, tmp_path, seeds=(0, 1), learning_rate=0.02))


def test_a_sweep_records_each_trial_once_and_a_failure_stops_no_other(disks_2d, tmp_path):
    trials = plan(disks_2d, tmp_path)
    broken = trials[0]._replace(
        output_dir=str(tmp_path / "broken"), recipe={**trials[0].recipe, "patch_size": [30, 30]}
    )
    narrow, full, failed = run_sweep([*trials, broken])
    assert full.has_learned
    assert full.multiplier == 1.0
    assert full.scores["f1"] > full.constant_score > 0
    assert full.pooled["f1"] == pytest.approx(full.scores["f1"], abs=0.1)
    assert len(full.per_image["f1"]) == 4
    assert sum(full.per_image["f1"]) / 4 == pytest.approx(full.scores["f1"])
    assert sum(full.per_image["jaccard"]) / 4 == pytest.approx(full.scores["jaccard"], abs=1e-6)
    assert len(full.losses) == 3
    assert full.losses[-1] < full.losses[0]
    assert full.recipe["max_epochs"] == 3
    assert narrow.size.weights < full.size.weights
    assert "be divisible by" in failed.error
    assert not failed.has_learned

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.pt")}
    assert len(before) == 2
    assert run_sweep(trials) == [narrow, full]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.pt")} == before
    assert {record.multiplier for record in load_records(tmp_path) if record.error is None} == {0.5, 1.0}

    newer = Path(trials[0].output_dir) / "record.json"
    newer.write_text(newer.read_text().replace('"weights"', '"weights_of_another_version"'))
    content, left = newer.read_text(), json.loads((newer.parent / "run.json").read_text())
    left["stages"]["evaluation"]["outputs"]["record.json"] = file_digest(newer)
    (newer.parent / "run.json").write_text(json.dumps(left))
    (unread, _) = run_sweep(trials)
    assert "written by another version" in unread.error
    assert newer.read_text() == content

    newer.write_text("{}")  # damaged: the network is evaluated again, and not trained
    again, _ = run_sweep(trials)
    assert (again.scores, again.losses) == (narrow.scores, narrow.losses)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.pt")} == before


SWEEP = """
import sys
from monai_ccnet.training import run_sweep, plan_trials
import monai_ccnet
run_sweep(plan_trials(monai_ccnet.bundle_root(), sys.argv[2], [sys.argv[1]], multipliers=(0.5, 1.0), **{quick}))
"""


def _wait_for(condition, process, seconds=120):
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing happened in time")


def test_a_killed_sweep_goes_on_where_it_was_and_ends_as_if_it_had_not_been(disks_2d, tmp_path):
    long = {**QUICK, "max_epochs": 6}
    trials = plan(disks_2d, tmp_path / "killed", **long)
    first, second = (Path(trial.output_dir) for trial in trials)
    command = [sys.executable, "-c", SWEEP.format(quick=long), str(disks_2d), str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _wait_for(lambda: len(list(second.glob("training_*.pt"))) > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (first / "record.json").exists()
    assert not (second / "record.json").exists()
    done = {path.name: path.stat().st_mtime_ns for path in first.glob("[!.]*")}
    checkpoint = torch.load(max(second.glob("training_*.pt"), key=os.path.getmtime), weights_only=True)
    assert 1 <= checkpoint["trainer"]["iteration"] // 4 < 6

    records = run_sweep(trials)
    assert {path.name: path.stat().st_mtime_ns for path in first.glob("[!.]*")} == done
    assert not list(second.glob("training_*.pt"))
    assert len(records[1].losses) == 6

    uninterrupted = run_sweep(plan(disks_2d, tmp_path / "whole", **long))
    # Another process may round sums another way, and Adam makes steps of rounded zeros: what is learned is compared.
    assert records[1].losses == pytest.approx(uninterrupted[1].losses, rel=0.01)
    assert records[1].scores["f1"] == pytest.approx(uninterrupted[1].scores["f1"], abs=0.05)


def test_two_processes_on_one_folder_share_the_trials(disks_2d, tmp_path):
    trials = plan(disks_2d, tmp_path)
    command = [sys.executable, "-c", SWEEP.format(quick=QUICK), str(disks_2d), str(tmp_path)]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _wait_for(lambda: (Path(trials[0].output_dir) / "run.json").exists(), other)
    records = run_sweep(trials)
    assert other.wait() == 0
    assert [json.loads((Path(t.output_dir) / "record.json").read_text())["seconds"] for t in trials] == [
        record.seconds for record in records
    ]


def test_another_recipe_in_the_folder_is_refused(disks_2d, tmp_path):
    trial = plan(disks_2d, tmp_path)[0]
    recipe = {**trial.recipe, "max_epochs": 1, "epoch_length": 1}
    run_trial(ROOT, tmp_path / "trial", trial.network_def, **recipe)
    with pytest.raises(ValueError, match="another learning_rate"):
        run_trial(ROOT, tmp_path / "trial", trial.network_def, **{**recipe, "learning_rate": 0.5})


def test_calibrate_sweeps_measures_and_fits(disks_2d, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(disks_2d, other)
    described = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(described | {"name": "noisy disks"}))
    rng = np.random.default_rng(0)
    for path in (other / "imagesTr").iterdir():
        image = np.asarray(Image.open(path))
        Image.fromarray((image + rng.normal(0, 40, image.shape)).clip(0, 255).astype(np.uint8)).save(path)
    output_dir = tmp_path / "output"
    workflow = ConfigWorkflow(
        str(ROOT / "configs" / "calibrate.yaml"),
        workflow_type="train",
        dataset_dirs=[str(disks_2d), str(other)],
        output_dir=str(output_dir),
        multipliers=[0.5, 1.0],
        measures=["jpeg", "edges", "label_detail"],
        training={**QUICK, "precision": "bfloat16"},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    model = DegradationModel.load(output_dir / "degradation.json")
    assert model.network == "PlainUNet"
    assert model.settings["measure"] in ("jpeg", "edges")
    assert set(model.dataset_slopes) == {"disks", "noisy disks"}
    assert len(load_records(output_dir / "trials")) == 4
    pictures = {"degradation.png", "profiles.png", "overlays-disks.png", "overlays-noisy-disks-e582.png"}
    assert {path.name for path in output_dir.glob("*.png")} == pictures
    assert all(imread(output_dir / name).std() > 0.05 for name in pictures)
