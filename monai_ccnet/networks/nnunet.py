"""Networks of nnU-Net's plans files, as configs that can be narrowed, counted and built like any other."""

from __future__ import annotations

import pydoc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import optional_import

from monai_ccnet.files import shown

unet, has_architectures = optional_import("dynamic_network_architectures.architectures.unet")

__all__ = ["ARCHITECTURES", "PlannedByNNUNet", "has_architectures"]

ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
_SAFE = ("torch.nn.", "dynamic_network_architectures.")  # places of the classes that a plans file may name


class PlannedByNNUNet(torch.nn.Module):
    """A network of an nnU-Net plans file (Isensee et al. 2021), without deep supervision.

    Its state dict has the names of nnU-Net's own network.

    Args:
        architecture: name of its class in ``dynamic_network_architectures``, one of :data:`ARCHITECTURES`.
        spatial_dims: number of spatial axes, 2 or 3.
        in_channels: number of channels of an image.
        out_channels: number of its answers.
        features_per_stage: width of each stage.
        strides: stride of each stage, one number an axis.
        arguments: the other ``arch_kwargs`` of the plans file, in JSON types; classes by their dotted names.

    Raises:
        ValueError: if the architecture or a class that it names is none of those that can be built here, or nnU-Net
            cannot build it from its arguments.
    """

    def __init__(
        self,
        architecture: str,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features_per_stage: Sequence[int],
        strides: Sequence[Any],
        arguments: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {shown(architecture)}.")
        given = {name: _as_class(name, value) for name, value in arguments.items()}
        try:
            network = getattr(unet, architecture)(
                input_channels=in_channels,
                num_classes=out_channels,
                n_stages=len(features_per_stage),
                features_per_stage=list(features_per_stage),
                strides=[list(each) if isinstance(each, (list, tuple)) else each for each in strides],
                deep_supervision=False,
                **given,
            )
        except Exception as error:  # whatever nnU-Net's own code raises for arguments that it cannot use
            raise ValueError(f"{architecture} cannot be built from the plans file's `arch_kwargs`: {error}") from error
        self.encoder, self.decoder = network.encoder, network.decoder
        self.spatial_dims = spatial_dims

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(B, out_channels, H, W[, D])``."""
        return self.decoder(self.encoder(images))


def _as_class(name: str, value: Any) -> Any:
    """Return the class that an argument names, or the value of another one."""
    if not (isinstance(value, str) and name in ("conv_op", "norm_op", "dropout_op", "nonlin", "block")):
        return value
    found = pydoc.locate(value) if value.startswith(_SAFE) else None
    if not isinstance(found, type):
        raise ValueError(f"{name} names {shown(value)}, which is no class of torch.nn or nnU-Net's architectures.")
    return found
