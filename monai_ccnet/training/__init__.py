"""Training runs by the bundle's configs, alone or in sweeps."""

from monai_ccnet.training.asked import check_data, evaluation_dir, settings_left, use_settings_left
from monai_ccnet.training.examples import SegmentedImage, segment_examples, segment_sweep
from monai_ccnet.training.losses import DeepSupervision
from monai_ccnet.training.run import (
    begin_run,
    check_patch,
    end_training,
    end_with_score,
    finish_run,
    forget_run,
)
from monai_ccnet.training.segmentation import WriteSegmentations, check_finite, readable_images, same_pipeline
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
    "WriteSegmentations",
    "begin_run",
    "check_data",
    "check_finite",
    "check_patch",
    "end_training",
    "end_with_score",
    "evaluate_network",
    "evaluation_dir",
    "finish_run",
    "forget_run",
    "full_network_def",
    "load_records",
    "open_trial",
    "plan_trials",
    "readable_images",
    "run_sweep",
    "run_trial",
    "same_pipeline",
    "segment_examples",
    "segment_sweep",
    "settings_left",
    "train_network",
    "use_settings_left",
]
