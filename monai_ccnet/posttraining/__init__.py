"""What is done to a trained network: channels are removed, and what is left makes up for them."""

from monai_ccnet.posttraining.channels import ChannelGroup, follow_channels
from monai_ccnet.posttraining.cutting import load_pruned, without_channels
from monai_ccnet.posttraining.importance import IMPORTANCES, channel_importance
from monai_ccnet.posttraining.merging import most_similar, without_channels_merged
from monai_ccnet.posttraining.pruning import prune, prune_share

__all__ = [
    "IMPORTANCES",
    "ChannelGroup",
    "channel_importance",
    "follow_channels",
    "load_pruned",
    "most_similar",
    "prune",
    "prune_share",
    "without_channels",
    "without_channels_merged",
]
