import logging

import pytest
from monai.apps.utils import get_logger

from monai_ccnet.training import Trial, run_sweep, sweeps


@pytest.fixture
def trial(tmp_path):
    network_def = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [2, 2]}
    return Trial("bundle", str(tmp_path / "trial"), network_def, None, {"dataset_dir": "data"}, 1.0)


def test_a_logger_of_a_trial_writes_to_the_screen_afterwards(trial, monkeypatch, capsys):
    def run_trial(*_, **__):
        get_logger("of_a_trial").warning("within")
        raise sweeps.FolderBusyError("busy")

    monkeypatch.setattr(sweeps, "run_trial", run_trial)
    sweeps._try_trial(trial, wait=False)
    get_logger("of_a_trial").warning("after")
    shown = capsys.readouterr()
    assert "after" in shown.out
    assert "within" not in shown.out
    assert "Logging error" not in shown.err
    assert "within" in (sweeps.Path(trial.output_dir) / "log.txt").read_text()
    logging.getLogger("of_a_trial").handlers.clear()


def test_a_trial_of_no_single_multiplier_is_named_by_its_data_set(trial, monkeypatch, capsys):
    class Record:
        dataset, error, scores = "mine", None, {"f1": 0.5}

    monkeypatch.setattr(sweeps, "run_trial", lambda *_, **__: Record())
    assert run_sweep([trial], progress=True)[0].dataset == "mine"
    assert "1/1 training runs, mine F1 0.500" in capsys.readouterr().err
