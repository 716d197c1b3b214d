"""A sweep on a dask cluster of real processes, one of which is killed on the way."""

import os
import signal
import threading
import time

import pytest

import monai_ccnet
from monai_ccnet.training import plan_trials, run_sweep

distributed = pytest.importorskip("distributed")


def test_a_worker_killed_in_the_middle_loses_no_trial(disks_2d, tmp_path):
    quick = {"max_epochs": 6, "epoch_length": 6, "batch_size": 2, "channels": [8, 12, 16], "patch_size": [32, 32]}
    trials = plan_trials(
        monai_ccnet.bundle_root(), tmp_path / "trials", [disks_2d], multipliers=(0.25, 0.5, 1.0), **quick
    )
    killed = []

    def kill_a_worker(client):
        while not list((tmp_path / "trials").glob("*/training_*.pt")):
            time.sleep(0.1)
        address = next(iter(client.scheduler_info()["workers"]))
        pid = client.run(os.getpid, workers=[address])[address]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = threading.Thread(target=kill_a_worker, args=(client,), daemon=True)
        killer.start()
        records = run_sweep(trials, backend="dask")
        killer.join(timeout=10)
    assert killed, "no worker was killed"
    assert all(record.error is None for record in records)
    assert [record.multiplier for record in records] == [trial.multiplier for trial in trials]
    assert all(len(record.losses) == 6 for record in records)
