"""Training runs by the bundle's configs, alone or in sweeps."""

from monai_ccnet.training.examples import SegmentedImage, segment_examples, segment_sweep
from monai_ccnet.training.losses import DeepSupervision
from monai_ccnet.training.run import check_output_dir, finish_run
from monai_ccnet.training.sweeps import FAST_MULTIPLIERS, MULTIPLIERS, Trial, load_records, plan_trials, run_sweep
from monai_ccnet.training.trial import (
    evaluate_network,
    full_network_def,
    open_trial,
    run_trial,
    train_network,
)

__all__ = [
    "FAST_MULTIPLIERS",
    "MULTIPLIERS",
    "DeepSupervision",
    "SegmentedImage",
    "Trial",
    "check_output_dir",
    "evaluate_network",
    "finish_run",
    "full_network_def",
    "load_records",
    "open_trial",
    "plan_trials",
    "run_sweep",
    "run_trial",
    "segment_examples",
    "segment_sweep",
    "train_network",
]
