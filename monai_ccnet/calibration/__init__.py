"""Records of trainings and profiles of their data sets -> the law of a network."""

from monai_ccnet.calibration.fit import (
    OMEGAS,
    calibrate,
    degradation_points,
    predict_left_out,
    profiles_for,
    refit,
)

__all__ = [
    "OMEGAS",
    "calibrate",
    "degradation_points",
    "predict_left_out",
    "profiles_for",
    "refit",
]
