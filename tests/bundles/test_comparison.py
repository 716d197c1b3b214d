"""The comparison: every method at every budget, once."""

import csv
import json
import shutil

import numpy as np
import pytest
from matplotlib.image import imread
from monai.bundle import ConfigWorkflow
from PIL import Image

import monai_ccnet
from monai_ccnet.comparison import METHODS, compare, compare_table
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import DiskBudget
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.ending import root_cause
from monai_ccnet.files import write_table

BUDGET = 45_000


def _compare(dataset_dir, output_dir, quick, **overrides):
    workflow = ConfigWorkflow(
        config_file=str(monai_ccnet.bundle_root() / "configs" / "compare.yaml"),
        workflow_type="train",
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        training={**quick, "patch_size": [32, 32]},
        **{"budgets_bytes": [BUDGET], "seeds": [0, 1], **overrides},
    )
    workflow.initialize()
    workflow.run()
    return workflow


def test_each_method_is_trained_and_tabulated_once(disks_2d, tmp_path, quick):
    methods = ["full size", "quarter width", "uniform", "layer-wise", "taper", "squeeze", "taper, int8"]
    methods += ["Taylor pruning", "importance estimation, int8", "neuron merging"]
    _compare(disks_2d, tmp_path, quick, methods=methods)
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["method"] for row in rows] == methods
    by_method = {row["method"]: row for row in rows}
    assert all(by_method[name]["file_bytes"] <= BUDGET for name in methods[2:])
    assert by_method["taper, int8"]["weights"] > 1.2 * by_method["taper"]["weights"]
    assert all(by_method[name]["file_bytes"] > 0.9 * BUDGET for name in ("Taylor pruning", "neuron merging"))
    assert by_method["importance estimation, int8"]["weights"] > 1.2 * by_method["Taylor pruning"]["weights"]
    assert by_method["Taylor pruning"]["training_seconds"] > by_method["full size"]["training_seconds"]
    assert by_method["quarter width"]["weights"] < by_method["full size"]["weights"]
    for row in rows:
        assert row["seeds"] == 2
        assert 0 <= row["f1"] <= 1
        assert row["f1_deviation"] >= 0
        assert row["training_seconds"] > 0
    assert by_method["uniform"]["predicted_f1"] < by_method["full size"]["f1"]
    assert by_method["full size"]["predicted_f1"] is None
    assert 0 < by_method["uniform"]["predicted_iu"] < by_method["full size"]["iu"]
    assert all(row["latency_seconds"] > 0 for row in rows)
    with open(tmp_path / "comparison.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == methods
    assert (tmp_path / "comparison.md").read_text().count("\n") == len(rows) + 2
    for what in ("file_bytes", "macs"):
        assert imread(tmp_path / f"comparison_{what}.png").std() > 0.01

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(trained) == 14
    _compare(disks_2d, tmp_path, quick, methods=methods)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")} == trained


def test_with_fewer_filters_than_planned_the_floor_is_missed(disks_2d, tmp_path, quick):
    methods = ["full size", "uniform", "uniform, one filter fewer", "uniform, two filters fewer"]
    methods += [name.replace("uniform", "layer-wise") for name in methods[1:]]
    apart = ["L1 pruning", "squeeze", "taper, int8"]  # which can be made for a budget alone
    _compare(
        disks_2d, tmp_path, quick, methods=methods + apart, budgets_bytes=[], floors=[0.95], law="paper", seeds=[0]
    )
    rows = {row["method"]: row for row in json.loads((tmp_path / "comparison.json").read_text())}
    assert list(rows) == methods
    for kind in ("uniform", "layer-wise"):
        planned, *fewer = (rows[kind + which] for which in ("", ", one filter fewer", ", two filters fewer"))
        floor = 0.95 * rows["full size"]["f1"]
        assert planned["predicted_f1"] >= floor > fewer[0]["predicted_f1"] > fewer[1]["predicted_f1"]
        assert planned["weights"] > fewer[0]["weights"] > fewer[1]["weights"]
        assert planned["constraint"] == "at least 95.0% of the full-size network's score"
        assert all(0 <= row["f1"] <= 1 for row in fewer)


def test_a_pruned_network_is_not_taken_over_by_another_comparison(disks_2d, tmp_path, quick, monkeypatch):
    asked = {"methods": ["neuron merging"], "seeds": [0], "pictures": False}
    _compare(disks_2d, tmp_path, quick, **asked)
    (rival,) = tmp_path.glob("*/rival.json")
    written = rival.stat().st_mtime_ns
    _compare(disks_2d, tmp_path, quick, **asked)
    assert rival.stat().st_mtime_ns == written
    data = shutil.copytree(disks_2d, tmp_path / "set")
    path = data / "imagesTr" / "case_0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    changed = {**METHODS["neuron merging"], "importance": "random"}
    for dataset_dir, recipe, method, message in (
        (disks_2d, {**quick, "max_epochs": 3}, None, "holds a run with another max_epochs"),
        (data, quick, None, r"1 of 16 files have changed since, such as imagesTr/case_0\.png"),
        (disks_2d, quick, changed, "holds a network of another method: choose another output_dir"),
    ):
        if method:
            monkeypatch.setitem(METHODS, "neuron merging", method)
        with pytest.raises(RuntimeError) as raised:
            _compare(dataset_dir, tmp_path, recipe, **asked)
        with pytest.raises(ValueError, match=message):
            raise root_cause(raised.value)
    assert rival.stat().st_mtime_ns == written
    _compare(disks_2d, tmp_path, quick, **asked, force=True)
    assert rival.stat().st_mtime_ns != written


def test_unknown_methods_and_tables_are_refused(tmp_path):
    known = {
        "complexity": ComplexityProfile.published("drive"),
        "degradation": DegradationModel.published("unet", metric="f1"),
    }
    with pytest.raises(ValueError, match="choose from full size, half width"):
        compare("", tmp_path, {"_target_": "PlainUNet"}, [DiskBudget(1)], **known, methods=["magic"])
    with pytest.raises(ValueError, match=r"give \.csv, \.json or \.md"):
        write_table(tmp_path / "table.txt", [{"a": 1}])
    with pytest.raises(ValueError, match="0 rows"):
        write_table(tmp_path / "table.csv", [])
    assert compare_table([]) == []
    assert "uniform" in METHODS
