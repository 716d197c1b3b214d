"""Steps after training: pruning, merging, quantization and export."""

from monai_ccnet.posttraining.channels import ChannelGroup, follow_channels
from monai_ccnet.posttraining.cutting import load_pruned, without_channels
from monai_ccnet.posttraining.export import FORMATS, ExportedNetwork, export_network, load_exported
from monai_ccnet.posttraining.importance import IMPORTANCES, channel_importance
from monai_ccnet.posttraining.merging import most_similar, without_channels_merged
from monai_ccnet.posttraining.pruning import prune, prune_share
from monai_ccnet.posttraining.quantization import check_quantized, quantize_dynamic, quantize_onnx, quantize_weights
from monai_ccnet.posttraining.sensitivity import (
    SensitivityRow,
    layer_sensitivity,
    planned_weights,
    save_sensitivity,
)

__all__ = [
    "FORMATS",
    "IMPORTANCES",
    "ChannelGroup",
    "ExportedNetwork",
    "SensitivityRow",
    "channel_importance",
    "check_quantized",
    "export_network",
    "follow_channels",
    "layer_sensitivity",
    "load_exported",
    "load_pruned",
    "most_similar",
    "planned_weights",
    "prune",
    "prune_share",
    "quantize_dynamic",
    "quantize_onnx",
    "quantize_weights",
    "save_sensitivity",
    "without_channels",
    "without_channels_merged",
]
