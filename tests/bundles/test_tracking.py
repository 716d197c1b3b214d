"""The plan in real runs: what MLflow and TensorBoard show, and what is refused."""

from pathlib import Path

import pytest
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from monai.handlers import TensorBoardStatsHandler

import monai_ccnet
from monai_ccnet.constraints import CompressionPlan, DiskBudget, compress
from monai_ccnet.ending import root_cause
from monai_ccnet.handlers import LogPlan
from monai_ccnet.records import TrialRecord

UNET = {
    "_target_": "monai_ccnet.networks.PlainUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 12, 16],
}
PLAN = compress(UNET, DiskBudget(45_000), layerwise=False)


CONFIGS = monai_ccnet.bundle_root() / "configs"


def run(names, **given):
    workflow = ConfigWorkflow([str(CONFIGS / name) for name in names], workflow_type="train", **given)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def given_for(disks_2d, output_dir, quick):
    given = {**quick, "dataset_dir": str(disks_2d), "output_dir": str(output_dir), "patch_size": [32, 32]}
    return given | {"max_epochs": 2, "epoch_length": 20}


def logged(mlflow, folder):
    database = folder / "mlruns.db"  # before MONAI 1.6 a folder of files
    client = mlflow.MlflowClient(f"sqlite:///{database}" if database.exists() else (folder / "mlruns").as_uri())
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {each.info.run_id: each.data.metrics for each in runs}


def test_mlflow_shows_the_plan_of_a_training(disks_2d, tmp_path, quick):
    mlflow = pytest.importorskip("mlflow")
    PLAN.save(tmp_path / "plan.json")
    given = given_for(disks_2d, tmp_path, quick) | {"device": "$torch.device('cpu')"}
    run(["train.yaml", "planned.yaml", "tracked.yaml"], tracking="mlflow", **given)
    (found,) = logged(mlflow, tmp_path).values()
    assert found["parameters"] == PLAN.size.parameters
    assert found["compression"] == pytest.approx(PLAN.compression)
    assert "train_loss" in found


def test_mlflow_shows_predicted_and_achieved_of_the_main_job(disks_2d, tmp_path, quick):
    mlflow = pytest.importorskip("mlflow")
    given = given_for(disks_2d, tmp_path, quick) | {"budget_bytes": 45_000, "pictures": False}
    run(["compress.yaml"], tracking="mlflow", **given)
    runs, plan = logged(mlflow, tmp_path), CompressionPlan.load(tmp_path / "plan.json")
    (found,) = (metrics for metrics in runs.values() if "train_loss" in metrics)
    (evaluation,) = (metrics for metrics in runs.values() if "auc" in metrics)
    assert found["multiplier_0"] == pytest.approx(plan.multipliers[0])
    assert found["predicted_score"] == pytest.approx(plan.predicted.score)
    assert found["planned_file_bytes"] == plan.size.file_bytes
    assert found["complexity"] == pytest.approx(plan.complexity.at(1))
    assert evaluation["f1"] == pytest.approx(TrialRecord.load(tmp_path / "record.json").scores["f1"])


def test_tensorboard_shows_the_plan(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    engine = Engine(lambda engine, batch: None)
    LogPlan(PLAN).attach(engine)
    TensorBoardStatsHandler(log_dir=str(tmp_path), iteration_log=False).attach(engine)
    engine.run([0])
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert shown["weights"] == PLAN.size.weights
    assert shown["planned_file_bytes"] == PLAN.size.file_bytes
    assert shown["multiplier_0"] == pytest.approx(PLAN.multipliers[0])


def test_the_main_job_refuses_a_file_above_its_budget(disks_2d, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(
        "monai_ccnet.networks.save_weights", lambda network, path, bits: Path(path).write_bytes(bytes(45_001))
    )
    with pytest.raises(RuntimeError) as raised:
        run(["compress.yaml"], **given_for(disks_2d, tmp_path, quick), budget_bytes=45_000, pictures=False)
    assert "has 45,001 bytes, the budget is 45,000" in str(root_cause(raised.value))
    assert not (tmp_path / "record.json").exists()
