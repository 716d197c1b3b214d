"""A network is its MONAI config: built at any width, narrowed, and counted exactly without being allocated."""

from monai_ccnet.networks.cumedvision import CUMedVision
from monai_ccnet.networks.narrowing import WIDTHS, Widths, build_network, narrow, network_def_of, widths_of
from monai_ccnet.networks.plain_unet import PlainUNet
from monai_ccnet.networks.precision import PRECISIONS, at_precision
from monai_ccnet.networks.size import NetworkSize, file_bytes, network_size, save_weights
from monai_ccnet.networks.ucunet import UCUNet

__all__ = [
    "PRECISIONS",
    "WIDTHS",
    "CUMedVision",
    "NetworkSize",
    "PlainUNet",
    "UCUNet",
    "Widths",
    "at_precision",
    "build_network",
    "file_bytes",
    "narrow",
    "network_def_of",
    "network_size",
    "save_weights",
    "widths_of",
]
