"""The command: verbs, settings, help, and its last line."""

import json
import subprocess
import sys

import pytest

import monai_ccnet
from monai_ccnet.__main__ import VERBS, main, settings_of

TINY = ["--max_epochs", "1", "--epoch_length", "2", "--channels", "[8,12,16]", "--patch_size", "[32,32]"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_each_setting_with_default_and_meaning(verb, capsys):
    assert main([verb, "--help"]) == 0
    printed = capsys.readouterr().out
    settings = list(settings_of(verb))
    assert len(settings) > 3
    for name, default, meaning in settings:
        assert f"--{name}\n      {meaning} (default: {default})" in printed


def test_garbage_is_searched_for_again_once_monai_is_imported_but_not_in_it():
    code = """
import gc
from monai_ccnet.starting import import_monai
gc.disable()
import_monai()
print(gc.isenabled(), gc.get_freeze_count())
gc.enable()
import_monai()
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
kept = gc.get_freeze_count()
import_monai()
print(gc.get_freeze_count() == kept)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0", "True", "True", "True"]


def test_without_a_verb_it_lists_them(capsys):
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in VERBS)
    assert printed.strip().endswith(monai_ccnet.__version__)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compres"], "there is no 'compres': choose one of compress, search"),
        (["measure", "--scales"], "--scales needs a value"),
        (["measure", "--dataset_dir", "--scales", "[1]"], "--dataset_dir needs a value"),
        (["measure", "scales"], "'scales' is no setting: settings are given as --name value"),
        (["measure", "--scale", "[1]"], "measure.yaml knows no setting 'scale': did you mean 'scales'?"),
        (["measure", "--dataset_dir", "/nowhere"], "FileNotFoundError: /nowhere/dataset.json is missing: give the"),
    ],
)
def test_what_goes_wrong_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("monai-ccnet: ")
    assert message in printed
    assert printed.count("\n") == 1


def test_the_main_job_by_its_verb_then_evaluation_and_inference(disks_2d, tmp_path, capsys):
    places = ["--dataset_dir", str(disks_2d), "--output_dir", str(tmp_path)]
    given = [
        *places,
        "--budget_bytes",
        "45000",
        "--layerwise",
        "false",
        "--scale",
        "1",
        "--pictures=false",
        "--device",
        "cpu",
        *TINY,
    ]
    given += ["--network_def::act", "PRELU", "--loss#include_background", "False"]
    assert main(["compress", *given]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sizes"]["file_bytes"] <= 45_000
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["network_def"]["act"] == "PRELU"
    assert plan["allocation"] is None
    assert main(["evaluate", *places, "--patch_size", "[32,32]", "--device", "cpu"]) == 0
    assert main(["infer", *places, "--patch_size", "[32,32]", "--device", "cpu"]) == 0
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 4
