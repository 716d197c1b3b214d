"""The main job at 8 bits a weight: planned, trained, written, evaluated and used for inference as int8."""

import json
import os

import pytest
import torch
from monai.bundle import ConfigWorkflow

import monai_ccnet
from monai_ccnet.constraints import CompressionPlan, DiskBudget, compress
from monai_ccnet.networks import build_network

CONFIGS = monai_ccnet.bundle_root() / "configs"


def _run(names, **overrides):
    overrides = {"device": "$torch.device('cpu')", "patch_size": [32, 32], **overrides}
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in names], workflow_type="train", **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow.parser


def test_at_8_bits_the_network_is_larger_and_its_file_keeps_to_the_budget(disks_2d, tmp_path, quick):
    places = {"dataset_dir": str(disks_2d), "output_dir": str(tmp_path)}
    settings = {"budget_bytes": 45_000, "bits_per_weight": 8, "layerwise": False, "epoch_length": 24}
    _run(["compress.yaml"], **(quick | {"channels": [32, 64, 128]} | settings | places))
    report = json.loads((tmp_path / "report.json").read_text())
    assert 40_000 < report["sizes"]["file_bytes"] == os.path.getsize(tmp_path / "model.pt") <= 45_000
    plan = CompressionPlan.load(tmp_path / "plan.json")
    full = {**plan.network_def, "channels": [32, 64, 128]}
    at_32_bits = compress(full, DiskBudget(45_000), layerwise=False)
    assert plan.size.parameters > 2.5 * at_32_bits.size.parameters
    assert report["achieved"]["f1"] > 0.8
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert state["head.weight"].dtype == torch.int8
    build_network(plan.network_def).load_state_dict(state)
    evaluated = _run(["train.yaml", "evaluate.yaml", "planned.yaml"], **places)
    scores = evaluated.get_parsed_content("evaluator").state.metrics
    assert scores["f1"] == pytest.approx(report["achieved"]["f1"])
    _run(["inference.yaml"], **places)
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 4
