"""Fitting the law of a network to the records of training runs and the profiles of their data sets."""

from monai_ccnet.calibration.fit import (
    OMEGAS,
    calibrate,
    calibrate_width,
    degradation_points,
    load_width_records,
    planned_scales,
    predict_left_out,
    profiles_for,
    refit,
    refit_width,
    scale_gains,
    width_points,
)

__all__ = [
    "OMEGAS",
    "calibrate",
    "calibrate_width",
    "degradation_points",
    "load_width_records",
    "planned_scales",
    "predict_left_out",
    "profiles_for",
    "refit",
    "refit_width",
    "scale_gains",
    "width_points",
]
