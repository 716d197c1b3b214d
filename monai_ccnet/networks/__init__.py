"""Networks given by their MONAI configs: built at any width, narrowed, and counted exactly without allocation."""

from monai_ccnet.networks.building import build_network, network_def_of, register_network, spatial_dims_of
from monai_ccnet.networks.cumedvision import CUMedVision
from monai_ccnet.networks.family import NetworkFamily, narrow
from monai_ccnet.networks.finding import find_widths
from monai_ccnet.networks.int8 import dequantized, kernel_axes, quantized, reads_int8
from monai_ccnet.networks.latency import Latency, LatencyComparison, compare_latency, measure_latency
from monai_ccnet.networks.loading import WeightsError, load_weights, read_weights
from monai_ccnet.networks.memory import follow_forward, follow_training
from monai_ccnet.networks.plain_unet import PlainUNet
from monai_ccnet.networks.precision import PRECISIONS, at_precision, native_precision
from monai_ccnet.networks.scaling import AtScale, at_scale, inner_def, network_divisor, scale_of
from monai_ccnet.networks.size import NetworkSize, file_bytes, linear_memory_multiplier, network_size
from monai_ccnet.networks.speed import faster_steps
from monai_ccnet.networks.squeeze_unet import SqueezeUNet
from monai_ccnet.networks.storage import WEIGHTS_FORMATS, save_weights, weights_name
from monai_ccnet.networks.ucunet import UCUNet
from monai_ccnet.networks.widths import WIDTHS, Widths, check_input_shape, default_input_shape, divisor_of
from monai_ccnet.scales import as_scale

__all__ = [
    "PRECISIONS",
    "WEIGHTS_FORMATS",
    "WIDTHS",
    "AtScale",
    "CUMedVision",
    "Latency",
    "LatencyComparison",
    "NetworkFamily",
    "NetworkSize",
    "PlainUNet",
    "SqueezeUNet",
    "UCUNet",
    "WeightsError",
    "Widths",
    "as_scale",
    "at_precision",
    "at_scale",
    "build_network",
    "check_input_shape",
    "compare_latency",
    "default_input_shape",
    "dequantized",
    "divisor_of",
    "faster_steps",
    "file_bytes",
    "find_widths",
    "follow_forward",
    "follow_training",
    "inner_def",
    "kernel_axes",
    "linear_memory_multiplier",
    "load_weights",
    "measure_latency",
    "narrow",
    "native_precision",
    "network_def_of",
    "network_divisor",
    "network_size",
    "quantized",
    "read_weights",
    "reads_int8",
    "register_network",
    "save_weights",
    "scale_of",
    "spatial_dims_of",
    "weights_name",
]
