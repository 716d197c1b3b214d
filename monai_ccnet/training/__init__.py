"""Training runs by the bundle's configs, alone or in sweeps."""

from monai_ccnet.training.asked import check_data, evaluation_dir, settings_left, use_settings_left
from monai_ccnet.training.examples import SegmentedImage, segment_examples, segment_sweep
from monai_ccnet.training.losses import DeepSupervision
from monai_ccnet.training.recipe import (
    ACTIVATIONS,
    MOST_PIXELS,
    Recipe,
    device_of_cache,
    largest_structure,
    median_lengths,
    plan_recipe,
    print_recipe,
)
from monai_ccnet.training.run import (
    check_patch,
    end_with_score,
    finish_run,
    forget_run,
    run_alone,
    run_training,
)
from monai_ccnet.training.scale import (
    check_scale_known,
    config_to_use,
    def_at_scale,
    default_patch,
    working_scale,
)
from monai_ccnet.training.segmentation import WriteSegmentations, check_finite, readable_images, same_pipeline
from monai_ccnet.training.stages import (
    begin_stages,
    finish_stage,
    finished_record,
    finished_stage,
    load_trained,
    read_run,
)
from monai_ccnet.training.sweeps import (
    FAST_MULTIPLIERS,
    MULTIPLIERS,
    Trial,
    def_on_data,
    load_records,
    loading_of,
    plan_trials,
    run_sweep,
)
from monai_ccnet.training.trial import (
    evaluate_network,
    full_network_def,
    open_trial,
    run_trial,
    train_network,
)

__all__ = [
    "ACTIVATIONS",
    "FAST_MULTIPLIERS",
    "MOST_PIXELS",
    "MULTIPLIERS",
    "DeepSupervision",
    "Recipe",
    "SegmentedImage",
    "Trial",
    "WriteSegmentations",
    "begin_stages",
    "check_data",
    "check_finite",
    "check_patch",
    "check_scale_known",
    "config_to_use",
    "def_at_scale",
    "def_on_data",
    "default_patch",
    "device_of_cache",
    "end_with_score",
    "evaluate_network",
    "evaluation_dir",
    "finish_run",
    "finish_stage",
    "finished_record",
    "finished_stage",
    "forget_run",
    "full_network_def",
    "largest_structure",
    "load_records",
    "load_trained",
    "loading_of",
    "median_lengths",
    "open_trial",
    "plan_recipe",
    "plan_trials",
    "print_recipe",
    "read_run",
    "readable_images",
    "run_alone",
    "run_sweep",
    "run_training",
    "run_trial",
    "same_pipeline",
    "segment_examples",
    "segment_sweep",
    "settings_left",
    "train_network",
    "use_settings_left",
    "working_scale",
]
