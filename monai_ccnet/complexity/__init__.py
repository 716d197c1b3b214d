"""Image -> number, at every scale: how much detail there is for a network to represent."""

from monai_ccnet.complexity.foreground import foreground_density, jb_complexity
from monai_ccnet.complexity.jpeg import jpeg_complexity
from monai_ccnet.complexity.measures import MEASURES, SCALES, complexity_at_scales, measure_settings
from monai_ccnet.complexity.profile import ComplexityProfile, measure_dataset

__all__ = [
    "MEASURES",
    "SCALES",
    "ComplexityProfile",
    "complexity_at_scales",
    "foreground_density",
    "jb_complexity",
    "jpeg_complexity",
    "measure_dataset",
    "measure_settings",
]
