"""The search, as its verb runs it."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from monai_ccnet.__main__ import main
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.degradation import WidthLaw
from monai_ccnet.networks import build_network
from monai_ccnet.training import load_records

QUICK = ["--max_epochs", "3", "--epoch_length", "8", "--batch_size", "4", "--learning_rate", "0.01"]
FULL = ["--channels", "[16,24,32]", "--precision", "float32"]


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A law of networks as small as these."""
    path = tmp_path_factory.mktemp("law") / "width.json"
    WidthLaw(1.5, 4.0, 0.02, 0.02, 0.01, measure="first", network="PlainUNet", spatial_dims=2, narrowest=3.0).save(path)
    return str(path)


def search(data, folder, law, *words):
    given = ["--dataset_dir", str(data), "--output_dir", str(folder), "--law", law, *QUICK, *FULL]
    return main(["search", *given, "--max_cost", "3", "--tolerance", "0.2", *words])


@pytest.fixture(scope="module")
def found(disks_2d, law, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    assert search(disks_2d, folder, law) == 0
    return folder


def test_it_leaves_what_compress_leaves_and_what_was_decided(found, disks_2d):
    plan, decided = CompressionPlan.load(found / "plan.json"), json.loads((found / "search.json").read_text())
    assert list(plan.channels) == decided["chosen"]
    assert plan.scale == decided["scale"]
    assert plan.probability == decided["probability"]
    assert str(plan.constraint) == "at least 80.0% of the full-size network's score, with a probability of 0.9"
    assert "adapted to disks by" in plan.degradation.source
    names = {path.name for path in found.iterdir()}
    assert {"model.pt", "report.html", "report.json", "metrics.csv", "search.png", "search.csv", "run.json"} <= names
    page = (found / "report.html").read_text()
    assert "The search" in page
    assert all(words in page for words in ("held out", "of the multiply-adds of one training of the full-size network"))
    dearest = max(decided["trainings"], key=lambda row: row["cost"])
    assert f"takes about {dearest['seconds'] / dearest['cost']:,.0f} s" in page
    with open(found / "search.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["channels"] for row in rows] == [row["channels"] for row in decided["trainings"]]
    assert sum(row["is_chosen"] == "True" for row in rows) >= 1
    assert sum(float(row["cost"]) for row in rows) <= 3
    weights = torch.load(found / "model.pt", weights_only=True)
    build_network(plan.network_def).load_state_dict(weights)


def test_no_label_of_the_test_part_is_compared_before_the_end(found, disks_2d):
    searched = [record for record in load_records(found / "search") if record.error is None]
    assert searched
    for folder in (found / "search").iterdir():
        assert "imagesTr" in (folder / "f1_raw.csv").read_text()
        read = _names(folder, "training") | _names(folder, "test")
        assert len(read) == 2 * 4
        assert all(name.startswith(("imagesTr/", "labelsTr/")) for name in read)
    assert _names(found, "test") == {f"{what}sTs/case_{n}.png" for what in ("image", "label") for n in range(4)}
    assert "imagesTs" in (found / "f1_raw.csv").read_text()


def _names(folder, part):
    """Return the files that a run read, relative to the data set."""
    return {file["path"] for file in json.loads((folder / "data.json").read_text())[part]}


def test_the_last_network_is_trained_on_all_training_images(found):
    inner = [_names(folder, "training") for folder in (found / "search").iterdir()]
    assert _names(found, "training") == set().union(*inner)
    assert all(len(names) == 2 * 3 for names in inner), "one of four images is held out, each once"
    assert len(_names(found, "training")) == 2 * 4


def test_given_again_nothing_is_trained_again(found, disks_2d, law, capsys):
    before = {path: path.stat().st_mtime_ns for path in found.rglob("model.pt")}
    assert search(disks_2d, found, law) == 0
    assert {path: path.stat().st_mtime_ns for path in found.rglob("model.pt")} == before


def test_interrupted_it_goes_on_to_the_same_answer(found, disks_2d, law, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(found, again)
    for name in ("plan.json", "search.json", "record.json", "run.json", "model.pt"):
        (again / name).unlink()
    last = sorted((again / "search").iterdir(), key=lambda path: (path / "model.pt").stat().st_mtime_ns)[-1]
    shutil.rmtree(last)
    assert search(disks_2d, again, law) == 0
    one, other = (json.loads((folder / "search.json").read_text()) for folder in (found, again))
    assert (one["chosen"], one["scale"]) == (other["chosen"], other["scale"])
    assert [row["f1"] for row in one["trainings"]] == [row["f1"] for row in other["trainings"]]


def test_budgets_bind_every_network_that_is_tried(disks_2d, law, tmp_path):
    assert search(disks_2d, tmp_path, law, "--budget_bytes", "20000", "--max_cost", "0.2") == 0
    decided = json.loads((tmp_path / "search.json").read_text())
    assert all(row["file_bytes"] <= 20_000 for row in decided["trainings"])
    assert (tmp_path / "model.pt").stat().st_size <= 20_000


def test_another_tolerance_is_refused_before_anything_is_trained(found, disks_2d, law, capsys):
    before = {path: path.read_bytes() for path in found.glob("*.json")}
    count = len(list((found / "search").iterdir()))
    assert search(disks_2d, found, law, "--tolerance", "0.05") == 1
    assert "holds a search with another tolerance: choose another output_dir" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in found.glob("*.json")} == before
    assert len(list((found / "search").iterdir())) == count


def test_nothing_is_logged_to_a_file_that_is_closed(disks_2d, law, tmp_path, capfd):
    assert search(disks_2d, tmp_path, law, "--max_cost", "0.3", "--scale", "1", "--pictures", "False") == 0
    assert "Logging error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_cost", "0.0001"], "does not pay for one training"),
        (["--min_score", "0.95"], "leave a tolerance of 1 - min_score"),
        (["--confidence", "null"], "confidence of a search must lie in"),
        (["--tolerance", "1.2"], "tolerance of a search must lie in"),
        (["--allocation", "complexity"], "a search has one number for the width"),
        (["--budget_bytes", "2000"], "no width fits the budget"),
        (["--minimise", "time"], "minimise"),
        (["--law", "paper"], "a search begins with a law in width"),
        (["--confidence", "1.5"], "confidence"),
        (["--held_out_by", "subject"], "needs a `subject` in each training item"),
    ],
)
def test_refusals(words, message, disks_2d, law, tmp_path, capsys):
    assert search(disks_2d, tmp_path, law, *words) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("model.pt"))


def test_one_training_subject_cannot_be_searched(disks_2d, law, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(disks_2d, data)
    described = json.loads((data / "dataset.json").read_text())
    for item in described["training"]:
        item["subject"] = "only"
    (data / "dataset.json").write_text(json.dumps(described))
    assert search(data, tmp_path / "out", law) == 1
    assert "are of one subject, so that none can be held out to choose by" in capsys.readouterr().err
    assert not Path(tmp_path / "out" / "search").exists()
