"""The law: how much accuracy a network loses as it narrows, per unit of image complexity."""

from monai_ccnet.degradation.law import DegradationPoint, Prediction, inverse_log_compression, log_compression
from monai_ccnet.degradation.model import CALIBRATED, DegradationModel
from monai_ccnet.degradation.naming import Law, law_named
from monai_ccnet.degradation.width import WIDTH_MEASURES, WIDTH_WORDS, WidthLaw, WidthPoint

__all__ = [
    "CALIBRATED",
    "WIDTH_MEASURES",
    "WIDTH_WORDS",
    "DegradationModel",
    "DegradationPoint",
    "Law",
    "Prediction",
    "WidthLaw",
    "WidthPoint",
    "inverse_log_compression",
    "law_named",
    "log_compression",
]
