"""Parts shared by the networks: stages of convolutions, branches and their fusion, checks, initialisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.layers.factories import Conv
from torch import nn

__all__ = ["check_divisible", "check_widths", "convolutions", "fuse", "initialise", "scale_branch"]


def convolutions(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    count: int = 2,
    act: tuple | str | None = "RELU",
    norm: tuple | str | None = "BATCH",
    dropout: tuple | str | float | None = 0.0,
) -> nn.Sequential:
    """Return a stage: ``count`` convolutions of 3x3, each with normalisation, dropout and activation."""
    return nn.Sequential(
        *(
            Convolution(spatial_dims, width, out_channels, kernel_size=3, act=act, norm=norm, dropout=dropout)
            for width in [in_channels] + [out_channels] * (count - 1)
        )
    )


def scale_branch(spatial_dims: int, in_channels: int, out_channels: int, scale: int) -> nn.Sequential:
    """Return CUMedVision's branch from a stage at ``1 / scale`` of the input to logits of the input's size.

    The branch has a transposed convolution that upsamples by ``scale`` (kernel ``2 * scale``, stride ``scale``), a 3x3
    and a 1x1 convolution, all with as many channels as the logits. It has no activation: with one or two channels a
    ReLU would discard half of the information.
    """
    convolution = Conv["conv", spatial_dims]
    return nn.Sequential(
        Conv["convtrans", spatial_dims](
            in_channels, out_channels, kernel_size=2 * scale, stride=scale, padding=scale // 2
        ),
        convolution(out_channels, out_channels, kernel_size=3, padding=1),
        convolution(out_channels, out_channels, kernel_size=1),
    )


def fuse(outputs: list[torch.Tensor], with_auxiliary: bool) -> torch.Tensor:
    """Return the sum of logits ``(B, K, H, W[, D])``, or the sum and each stacked, ``(B, 1 + n, K, H, W[, D])``."""
    logits = outputs[0]
    for output in outputs[1:]:
        logits = logits + output
    return torch.stack([logits] + outputs, dim=1) if with_auxiliary else logits  # noqa: RUF005 (for TorchScript)


def check_widths(spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], stages: int) -> None:
    """Raise an error unless there are 2 or 3 spatial axes, at least ``stages`` widths, and no width below 1."""
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    if len(channels) < stages or min(*channels, in_channels, out_channels) < 1:
        raise ValueError(
            f"channels must hold at least {stages} widths, all at least 1; got "
            f"channels={tuple(channels)}, in_channels={in_channels}, out_channels={out_channels}."
        )


def check_divisible(image: torch.Tensor, divisor: int) -> None:
    """Raise an error for an image ``(B, C, H, W[, D])`` that pooling would crop; not for use in TorchScript."""
    if any(length % divisor for length in image.shape[2:]):
        raise ValueError(
            f"each spatial axis must be divisible by {divisor}, got {tuple(image.shape[2:])}: "
            f"pad the images, for instance with DivisiblePadd(keys, k={divisor}), or use sliding windows."
        )


def initialise(module: nn.Module) -> None:
    """Initialise a kernel by He's normal distribution over its fan-in (He et al. 2015, Eq. 10), its bias by 0."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(
            module.weight, mode="fan_out", nonlinearity="relu"
        )  # torch's fan_out is over inputs here
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
