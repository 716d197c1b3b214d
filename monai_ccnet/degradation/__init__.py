"""The law: how much accuracy a network loses as it narrows, per unit of image complexity."""

from monai_ccnet.degradation.law import DegradationPoint, Prediction, inverse_log_compression, log_compression
from monai_ccnet.degradation.model import CALIBRATED, DegradationModel

__all__ = [
    "CALIBRATED",
    "DegradationModel",
    "DegradationPoint",
    "Prediction",
    "inverse_log_compression",
    "log_compression",
]
