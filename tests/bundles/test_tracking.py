"""The handlers in a real run that MLflow tracks."""

import pytest
from monai.bundle import ConfigWorkflow

import monai_ccnet
from monai_ccnet.constraints import DiskBudget, compress

UNET = {
    "_target_": "monai_ccnet.networks.PlainUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 12, 16],
}
PLAN = compress(UNET, DiskBudget(45_000), layerwise=False)


def test_mlflow_shows_the_plan_of_a_run(disks_2d, tmp_path, quick):
    mlflow = pytest.importorskip("mlflow")
    PLAN.save(tmp_path / "plan.json")
    configs = monai_ccnet.bundle_root() / "configs"
    overrides = {**quick, "dataset_dir": str(disks_2d), "output_dir": str(tmp_path), "patch_size": [32, 32]}
    overrides |= {"max_epochs": 1, "epoch_length": 2, "device": "$torch.device('cpu')"}

    def run(names, **given):
        workflow = ConfigWorkflow([str(configs / name) for name in names], workflow_type="train", **given)
        workflow.initialize()
        workflow.run()
        workflow.finalize()

    run(["train.yaml", "planned.yaml", "tracked.yaml"], tracking="mlflow", **overrides)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    logged = {name: value for each in runs for name, value in each.data.metrics.items()}
    assert logged["parameters"] == PLAN.size.parameters
    assert logged["compression"] == pytest.approx(PLAN.compression)
    assert "train_loss" in logged
