"""What is done to a network once it is trained: pruned, merged, quantized, exported."""

from monai_ccnet.posttraining.channels import ChannelGroup, follow_channels
from monai_ccnet.posttraining.cutting import load_pruned, without_channels
from monai_ccnet.posttraining.export import FORMATS, ExportedNetwork, export_network, load_exported
from monai_ccnet.posttraining.importance import IMPORTANCES, channel_importance
from monai_ccnet.posttraining.merging import most_similar, without_channels_merged
from monai_ccnet.posttraining.pruning import prune, prune_share
from monai_ccnet.posttraining.quantization import check_quantized, quantize_dynamic, quantize_onnx, quantize_weights

__all__ = [
    "FORMATS",
    "IMPORTANCES",
    "ChannelGroup",
    "ExportedNetwork",
    "channel_importance",
    "check_quantized",
    "export_network",
    "follow_channels",
    "load_exported",
    "load_pruned",
    "most_similar",
    "prune",
    "prune_share",
    "quantize_dynamic",
    "quantize_onnx",
    "quantize_weights",
    "without_channels",
    "without_channels_merged",
]
