"""Handlers on toy engines."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from monai_ccnet.constraints import DiskBudget, InfeasibleConstraintError, compress
from monai_ccnet.handlers import CheckBudget, EpochLosses, KeepBest, LoadWeights, LogPlan, RecordTrial, plan_metrics
from monai_ccnet.networks import build_network, save_weights
from monai_ccnet.records import TrialRecord

UNET = {
    "_target_": "monai_ccnet.networks.PlainUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 12, 16],
}
PLAN = compress(UNET, DiskBudget(45_000), layerwise=False)


def toy(*handlers):
    engine = Engine(lambda engine, batch: None)
    for handler in handlers:
        handler.attach(engine)
    return engine


def test_another_network_than_the_planned_is_refused_before_the_first_step():
    seen = []
    engine = toy(CheckBudget(PLAN, torch.nn.DataParallel(build_network(PLAN.network_def))))
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: seen.append(1))
    engine.run([0])
    assert seen == [1]
    with pytest.raises(ValueError, match=r"parameters and the plan .*build_network\(plan\.network_def\)"):
        toy(CheckBudget(PLAN, build_network(UNET))).run([0])


def test_a_file_above_the_budget_is_refused(tmp_path):
    network, path = build_network(PLAN.network_def), tmp_path / "model.pt"
    PLAN.save(tmp_path / "plan.json")
    handler = CheckBudget(tmp_path / "plan.json", network, path)
    with pytest.raises(FileNotFoundError, match=r"model\.pt does not exist; attach CheckBudget"):
        toy(handler).run([0])
    save_weights(network, path)
    toy(handler).run([0])
    path.write_bytes(bytes(45_001))
    with pytest.raises(InfeasibleConstraintError, match=r"model\.pt has 45,001 bytes, the budget is 45,000"):
        toy(handler).run([0])


def test_the_plan_stands_among_the_metrics_that_stock_handlers_report():
    engine = toy(LogPlan(PLAN, full_size_score=0.8))
    engine.add_event_handler(Events.STARTED, lambda: engine.state.metrics.update(f1=0.6))
    metrics = engine.run([0]).metrics
    assert metrics["parameters"] == PLAN.size.parameters
    assert metrics["multiplier_0"] == PLAN.multipliers[0]
    assert metrics["achieved_relative_score"] == pytest.approx(0.75)
    assert "complexity" not in metrics
    assert all(type(value) is float for value in plan_metrics(PLAN).values())


def test_a_record_from_any_evaluator(tmp_path):
    counts = torch.tensor([[[8.0, 2, 88, 2]], [[5, 5, 90, 0]]])
    save_weights(build_network(UNET), tmp_path / "model.pt")
    history = EpochLosses()
    history.losses = [0.5]
    handler = RecordTrial(
        tmp_path / "record.json", "disks", UNET, tmp_path / "model.pt", 1.0, {"seed": 3}, (1, 1, 32, 32), history
    )
    engine = toy(handler)

    @engine.on(Events.STARTED)
    def score():
        engine.state.metrics["f1"] = float(np.mean([0.8, 2 / 3]))
        engine.state.metric_details = {"f1": counts}

    engine.run([0])
    record = TrialRecord.load(tmp_path / "record.json")
    assert record.per_image["f1"] == pytest.approx([0.8, 2 / 3])
    assert record.pooled["f1"] == pytest.approx(26 / 35)
    assert (record.losses, record.multiplier, record.recipe) == ((0.5,), 1.0, {"seed": 3})
    assert record.file_bytes == (tmp_path / "model.pt").stat().st_size
    assert record.has_learned
    with pytest.raises(ValueError, match="needs a metric 'f1'"):
        toy(handler).run([0])


def test_what_was_kept_at_8_bits_is_loaded_before_a_run(tmp_path):
    trained, again = build_network(UNET), build_network(UNET)
    kept = KeepBest(trained, tmp_path / "kept.pt", bits_per_weight=8)
    kept.finish()
    assert "after the last epoch" in kept.words
    toy(LoadWeights(again, tmp_path / "kept.pt")).run([0])
    assert not kept.best_so_far.exists()
    kernels = list(zip(trained.parameters(), again.parameters(), strict=True))
    assert all(torch.allclose(one, other, atol=one.abs().max().item() / 127) for one, other in kernels)
    with pytest.raises(ValueError, match="holds the weights of another network"):
        toy(LoadWeights(build_network(PLAN.network_def), tmp_path / "kept.pt")).run([0])
