"""Trainings of one network each, and the records they leave."""

from monai_ccnet.calibration.trial import TrialRecord, run_trial

__all__ = ["TrialRecord", "run_trial"]
