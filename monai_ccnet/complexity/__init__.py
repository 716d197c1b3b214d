"""Complexity of images and labels at every scale: how much detail a network has to represent."""

from monai_ccnet.complexity.ceiling import (
    LabelCeiling,
    label_ceiling,
    measure_ceiling,
    restored_label,
    scales_to_follow,
)
from monai_ccnet.complexity.clutter import feature_congestion, subband_entropy
from monai_ccnet.complexity.dataset import measure_dataset
from monai_ccnet.complexity.edges import edge_information, spatial_information
from monai_ccnet.complexity.energy import shannon_entropy, signal_energy
from monai_ccnet.complexity.foreground import foreground_density, jb_complexity
from monai_ccnet.complexity.frequency import median_frequency
from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.keypoints import sift_keypoints, surf_keypoints
from monai_ccnet.complexity.label import boundary_density, label_detail, label_jpeg_complexity
from monai_ccnet.complexity.measures import MEASURES, SCALES, complexity_at_scales, measure_settings, scales_with
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.complexity.selection import MeasureFit, rank_measures

__all__ = [
    "MEASURES",
    "SCALES",
    "ComplexityProfile",
    "LabelCeiling",
    "MeasureFit",
    "boundary_density",
    "complexity_at_scales",
    "edge_information",
    "feature_congestion",
    "foreground_density",
    "jb_complexity",
    "jpeg_complexity",
    "label_ceiling",
    "label_detail",
    "label_jpeg_complexity",
    "measure_ceiling",
    "measure_dataset",
    "measure_settings",
    "median_frequency",
    "rank_measures",
    "restored_label",
    "scales_to_follow",
    "scales_with",
    "shannon_entropy",
    "sift_keypoints",
    "signal_energy",
    "spatial_information",
    "subband_entropy",
    "surf_keypoints",
]
