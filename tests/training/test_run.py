"""What a run in a folder asks for first, leaves for others, and forgets."""

import gc
import json
import shutil
from collections import namedtuple

import pytest
import torch
from filelock import FileLock, Timeout

from monai_ccnet.training import check_patch, forget_run, settings_left
from monai_ccnet.training.run import _lock, check_space

Usage = namedtuple("Usage", ["total", "used", "free"])


def test_a_disk_too_full_for_two_checkpoints_is_said(tmp_path, monkeypatch):
    network = torch.nn.Linear(1000, 1000)  # 4 MB, and twice as much in Adam's moments
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 26_000_000))
    check_space(tmp_path, network)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 24_000_000))
    with pytest.raises(OSError, match=r"has 24,000,000 bytes free, and the checkpoints of this training need 25,0"):
        check_space(tmp_path, network)


def test_a_patch_has_one_length_for_each_axis():
    check_patch((32, 32), 2)
    with pytest.raises(ValueError, match=r"must hold 3 lengths for images of 3 axes, got \[32, 32\]"):
        check_patch([32, 32], 3)


def test_a_run_is_forgotten_with_its_checkpoints_and_nothing_else(tmp_path):
    for folder in (tmp_path, tmp_path / "trials" / "a"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("run.json", "model.pt", "training_checkpoint_3.pt", "mine.txt"):
            (folder / name).write_text("{}")
    forget_run(tmp_path, False)
    assert (tmp_path / "model.pt").exists()
    forget_run(tmp_path, True, ["model.pt"])
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["run.json", "run.json"]
    forget_run(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["mine.txt", "mine.txt"]


def test_settings_are_left_by_a_run_alone(tmp_path):
    assert settings_left(tmp_path) == {}
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json is not what a training run left"):
        settings_left(tmp_path)
    left = {"network_def": {"network_def": "$an expression"}, "settings": {"patch_size": [32, 32]}}
    (tmp_path / "run.json").write_text(json.dumps(left))
    assert settings_left(tmp_path) == {"network_def": None, "patch_size": [32, 32], "validate": None}


@pytest.mark.parametrize(
    "settings",
    [
        {"patch_size": "$__import__('pathlib').Path('touched').touch()"},
        {"patch_size": ["$1", 2]},
        {"overlap": "@seed"},
        {"spacing": [1, "$2"]},
        {"label_values": {"$0": 1}},
        {"label_values": {"0": "$1"}},
        {"patch_size": [0, 2]},
        {"overlap": 1},
    ],
)
def test_nothing_that_a_run_left_is_evaluated(settings, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(ValueError, match=r"run\.json: "):
        settings_left(tmp_path)


def test_a_lock_is_held_until_it_is_released(tmp_path):
    _lock(tmp_path).acquire(timeout=0)
    gc.collect()
    other = FileLock(tmp_path / ".lock", is_singleton=False)
    with pytest.raises(Timeout):
        other.acquire(timeout=0)
    _lock(tmp_path).release()
    with other.acquire(timeout=0):
        assert other.is_locked
