"""What goes wrong ends in one clear line, and what was done before stays."""

import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, run
from PIL import Image

import monai_ccnet
from monai_ccnet.ending import root_cause

CONFIG = str(monai_ccnet.bundle_root() / "configs" / "compress.yaml")
TINY = {"max_epochs": 2, "epoch_length": 2, "batch_size": 2, "learning_rate": 0.01, "channels": [8, 12, 16], "scale": 1}


def overrides_of(dataset_dir, output_dir, **overrides):
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
    return {**TINY, **places, "budget_bytes": 45_000, "patch_size": [32, 32], "pictures": False, **overrides}


def compress(dataset_dir, output_dir, **overrides):
    """Run the bundle and return the error it ends by, ``None`` if it does not."""
    workflow = ConfigWorkflow(CONFIG, workflow_type="train", **overrides_of(dataset_dir, output_dir, **overrides))
    try:
        workflow.initialize()
        workflow.run()
    except Exception as error:
        return root_cause(error)
    workflow.finalize()
    return None


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def disks(disks_2d, tmp_path):
    """A copy, to be broken."""
    return shutil.copytree(disks_2d, tmp_path / "disks")


@pytest.fixture(scope="module")
def finished(disks_2d, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("finished")
    assert compress(disks_2d, output_dir) is None
    return output_dir


def _truncated_image(disks):
    path = disks / "imagesTs" / "case_2.png"
    path.write_bytes(path.read_bytes()[:1000])
    return rf"{path} cannot be read .*: replace it"


def _mask_of_another_size(disks):
    path = disks / "labelsTr" / "case_1.png"
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(path)
    return r"labelsTr/case_1\.png has the size 7 x 9 and its image .*case_1\.png 72 x 56.*resample"


def _undeclared_label(disks):
    path = disks / "labelsTr" / "case_3.png"
    Image.fromarray(np.asarray(Image.open(path)) * 2).save(path)
    return r"labelsTr/case_3\.png holds 2, and dataset\.json declares 0 to 1: correct it, add"


@pytest.mark.parametrize("broken", [_truncated_image, _mask_of_another_size, _undeclared_label])
def test_a_broken_file_is_named_before_anything_is_done(broken, disks, tmp_path):
    message = broken(disks)
    error = compress(disks, tmp_path / "output")
    with pytest.raises(ValueError, match=message):
        raise error
    assert "\n" not in str(error)
    assert contents(tmp_path / "output") == {}


def test_a_broken_file_leaves_an_earlier_run_as_it_is(finished, disks_2d, disks, tmp_path):
    output_dir = shutil.copytree(finished, tmp_path / "output")
    before = contents(output_dir)
    _truncated_image(disks)
    assert compress(disks, output_dir) is not None
    assert contents(output_dir) == before


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_done(disks_2d, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    error = compress(disks_2d, tmp_path / "file" / "output")
    with pytest.raises(NotADirectoryError, match=r"file/output cannot be written, .*: choose a folder"):
        raise error
    assert (tmp_path / "file").read_text() == "kept"

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("monai_ccnet.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"output cannot be written, Permission denied: choose a folder"):
        raise compress(disks_2d, tmp_path / "output")


def test_a_full_disk_is_said_and_when_there_is_space_the_run_goes_on(finished, disks_2d, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # enough for what JSON there is, not for a checkpoint
    try:
        error = compress(disks_2d, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(OSError, match=r"training_\S+ cannot be written, File too large: free some space"):
        raise error
    assert not (tmp_path / "model.pt").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".training")]
    assert compress(disks_2d, tmp_path) is None
    assert_same_results(tmp_path, finished)


def test_a_disk_without_space_is_said_and_when_there_is_some_the_run_goes_on(finished, disks_2d, tmp_path):
    def mount(options):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path], capture_output=True, check=False
        )

    if shutil.which("mount") is None or mount("size=80k").returncode != 0:
        pytest.skip("a file system of 80 kB cannot be mounted without the rights to")
    try:
        with pytest.raises(OSError, match=r"has [\d,]+ bytes free, and the checkpoints of this training need [\d,]+"):
            raise compress(disks_2d, tmp_path)
        assert not [path for path in tmp_path.iterdir() if "training" in path.name and path.suffix != ".json"]
        assert mount("remount,size=8m").returncode == 0
        assert compress(disks_2d, tmp_path) is None
        assert_same_results(tmp_path, finished)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"budget_bytes": 38_000}, r"holds a run with another network: choose another output_dir"),
        ({"measure": "edges"}, r"holds a run by .*'boundary'.* asked for is .*'edges'.*: choose another output_dir"),
        ({"scales": [1, 2, 4, 8, 16, 32]}, r"asked for is .* at \(1, 2, 4, 8, 16, 32\): choose another output_dir"),
        ({"seed": 1}, r"holds a run with another seed: choose another output_dir"),
    ],
)
def test_another_run_in_the_folder_is_refused_and_the_first_untouched(finished, disks_2d, overrides, message):
    before = contents(finished)
    with pytest.raises(ValueError, match=message):
        raise compress(disks_2d, finished, **overrides)
    assert contents(finished) == before


def test_a_folder_of_an_earlier_release_is_refused_by_name(finished, disks_2d, tmp_path):
    output_dir = shutil.copytree(finished, tmp_path / "output")
    (output_dir / "run.json").rename(output_dir / "trial.json")
    before = contents(output_dir)
    with pytest.raises(ValueError, match=r"holds a run of release 0\.1 \(trial\.json\).*choose another output_dir"):
        raise compress(disks_2d, output_dir)
    assert contents(output_dir) == before


def test_a_training_run_that_diverges_ends_with_that_and_leaves_no_weights(disks_2d, tmp_path):
    error = compress(disks_2d, tmp_path, learning_rate=1e30, training={"warmup_steps": 0})
    with pytest.raises(ValueError, match=r"training loss is \w+ in iteration \d+ \(epoch 1\): lower the learning rate"):
        raise error
    assert not (tmp_path / "model.pt").exists()
    assert not (tmp_path / "record.json").exists()


def test_the_command_line_fails_with_the_cause_as_its_last_line(disks, tmp_path):
    _undeclared_label(disks)
    given = overrides_of(disks, tmp_path / "output")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", CONFIG]
    command += [word for key, value in given.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("The cause: ValueError: the label ")
    assert "case_3.png holds 2" in last


def assert_same_results(folder, other):
    """Check that two runs came to the same end.

    Sums may be rounded another way in another process, and Adam makes as large a step of a rounded zero (the gradient
    of a bias before a normalisation) as of anything else: what both have learned is compared, not each weight.
    """
    for name in ("complexity.json", "plan.json", "trade_off.csv"):
        assert (folder / name).read_text() == (other / name).read_text()
    reports = [json.loads((each / "report.json").read_text()) for each in (folder, other)]
    assert reports[0].keys() == reports[1].keys()
    achieved = [report.pop("achieved") for report in reports]
    assert achieved[0] == pytest.approx(achieved[1], abs=0.05)
    for report in reports:
        del report["seconds"]
    assert reports[0] == reports[1]
    losses = [json.loads((each / "record.json").read_text())["losses"] for each in (folder, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)  # another order of patches is 8 % away and more
    states = [torch.load(each / "model.pt", weights_only=True) for each in (folder, other)]
    assert [(name, value.shape) for name, value in states[0].items()] == [(n, v.shape) for n, v in states[1].items()]


STAGES = ["complexity.json", "run.json", "training_*.pt", "model.pt", "metrics.csv", "record.json", "plan.json"]


def test_killed_at_every_stage_and_started_again_it_ends_as_if_it_had_not_been(finished, disks_2d, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai.bundle", "monai.engines", "monai.handlers", "monai_ccnet.calibration"])
    given = {"config_file": CONFIG, **overrides_of(disks_2d, tmp_path)}
    killed = []
    for stage in STAGES:
        process = context.Process(target=run, kwargs=given)
        process.start()
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(stage)) and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        assert list(tmp_path.glob(stage)), (stage, process.exitcode)
        process.kill()
        process.join()
        killed.append(process.exitcode)
    assert killed.count(-9) >= len(STAGES) - 2  # the last files come in quick succession
    assert compress(disks_2d, tmp_path) is None
    assert_same_results(tmp_path, finished)
    assert {path.name for path in tmp_path.iterdir()} >= {path.name for path in finished.iterdir()}
    assert not list(tmp_path.glob("training_*.pt"))
