"""The U-Net of the paper, at any width and depth, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from monai_ccnet.networks.blocks import check_divisible, check_widths, convolutions, initialise

__all__ = ["PlainUNet"]


class PlainUNet(nn.Module):
    """The U-Net that Mishra, Chen and Hu compress: two convolutions a stage, max pooling, a mirrored decoder.

    With default arguments this is Ronneberger's U-Net (2015) with padded convolutions: 64-128-256-512-1024 channels,
    3x3 kernels, 2x2 transposed convolutions, concatenated skips and a 1x1 convolution at the end; 31,023,744 kernel
    weights for one channel in and out. Batch normalisation follows each 3x3 convolution, as in CC-Net (ISBI 2019); the
    paper does not say. Kernels are initialised by He's normal distribution over their fan-in (He et al. 2015, Eq. 10).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the logits.
        channels: width of each stage from the input's scale down, in the encoder and the mirrored decoder alike.
        act: activation, in MONAI's terms.
        norm: normalisation, in MONAI's terms; ``None`` for none.
        dropout: dropout ratio after each convolution, or MONAI's terms for it.

    Each spatial axis of the input must be divisible by ``2 ** (len(channels) - 1)``.

    >>> network = PlainUNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16))
    >>> network(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 2, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        act: tuple | str | None = "RELU",
        norm: tuple | str | None = "BATCH",
        dropout: tuple | str | float | None = 0.0,
    ) -> None:
        super().__init__()
        check_widths(spatial_dims, in_channels, out_channels, channels, stages=2)

        def two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
            return convolutions(spatial_dims, inputs, outputs, act=act, norm=norm, dropout=dropout)

        self.divisor = 2 ** (len(channels) - 1)
        self.pool = Pool["max", spatial_dims](2)
        self.encoder = nn.ModuleList(map(two_convolutions, [in_channels, *channels[:-1]], channels))
        shallow, deep = list(channels[-2::-1]), list(channels[:0:-1])
        self.upsamplers = nn.ModuleList(
            Conv["convtrans", spatial_dims](below, width, kernel_size=2, stride=2)
            for below, width in zip(deep, shallow, strict=True)
        )
        self.decoder = nn.ModuleList(two_convolutions(2 * width, width) for width in shallow)
        self.head = Conv["conv", spatial_dims](channels[0], out_channels, kernel_size=1)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(B, out_channels, H, W[, D])`` for an input ``(B, in_channels, H, W[, D])``."""
        if not torch.jit.is_scripting():
            check_divisible(x, self.divisor)
        skips: list[torch.Tensor] = []
        for index, stage in enumerate(self.encoder):
            x = stage(x if index == 0 else self.pool(x))
            skips.append(x)
        x = skips.pop()
        for upsample, stage in zip(self.upsamplers, self.decoder):  # noqa: B905 (TorchScript knows no strict)
            x = stage(torch.cat([skips.pop(), upsample(x)], dim=1))
        return self.head(x)
