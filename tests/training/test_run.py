"""What a run in a folder asks for first, leaves for others, and forgets."""

import json
import shutil
from collections import namedtuple

import pytest
import torch

from monai_ccnet.training import check_patch, forget_run, settings_left
from monai_ccnet.training.run import check_space

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
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock")
    assert left == ["mine.txt", "mine.txt"]


RUN = {"format_version": 2, "network_def": {}, "data": {}, "recipe": {}, "settings": {}, "stages": {}}


def test_settings_are_left_by_a_run_alone(tmp_path):
    assert settings_left(tmp_path) == {}
    for left in ([], {}, {**RUN, "format_version": 1}, {**RUN, "stages": {"training": 1}}, {**RUN, "stages": []}):
        (tmp_path / "run.json").write_text(json.dumps(left))
        with pytest.raises(ValueError, match=r"run\.json is not what a run of this release left: .*--force True"):
            settings_left(tmp_path)
    for key in ("network_def", "data", "recipe", "settings"):
        (tmp_path / "run.json").write_text(json.dumps({**RUN, key: ["a" * 1000]}))
        with pytest.raises(ValueError, match=rf"run\.json holds \['a{{70,80}}\.\.\. as {key}: "):
            settings_left(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "settings": {"patch_size": [32, 32]}}))
    expected = {"network_def": None, "patch_size": [32, 32], "weights_format": "torch", "validate": None}
    assert settings_left(tmp_path) == expected | {"scale": 1}


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
        {"scale": "$4"},
        {"scale": 0},
        {"scale": "auto"},
        {"weights_format": "$__import__('pathlib').Path('touched').touch()"},
    ],
)
def test_nothing_that_a_run_left_is_evaluated(settings, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "settings": settings}))
    with pytest.raises(ValueError, match=r"run\.json: "):
        settings_left(tmp_path)
