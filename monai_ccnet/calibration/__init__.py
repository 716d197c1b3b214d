"""Trainings of one network each, alone or in sweeps, and the records they leave."""

from monai_ccnet.calibration.fit import (
    OMEGAS,
    calibrate,
    degradation_points,
    predict_left_out,
    profiles_for,
    refit,
)
from monai_ccnet.calibration.segment import SegmentedImage, segment_examples, segment_sweep
from monai_ccnet.calibration.sweep import FAST_MULTIPLIERS, MULTIPLIERS, Trial, load_records, plan_trials, run_sweep
from monai_ccnet.calibration.trial import (
    TrialRecord,
    check_output_dir,
    evaluate_network,
    evaluated_record,
    full_network_def,
    run_trial,
    train_network,
)

__all__ = [
    "FAST_MULTIPLIERS",
    "MULTIPLIERS",
    "OMEGAS",
    "SegmentedImage",
    "Trial",
    "TrialRecord",
    "calibrate",
    "check_output_dir",
    "degradation_points",
    "evaluate_network",
    "evaluated_record",
    "full_network_def",
    "load_records",
    "plan_trials",
    "predict_left_out",
    "profiles_for",
    "refit",
    "run_sweep",
    "run_trial",
    "segment_examples",
    "segment_sweep",
    "train_network",
]
