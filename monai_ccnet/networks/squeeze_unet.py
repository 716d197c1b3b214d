"""A U-Net made of SqueezeNet's fire modules, at any width and depth, in two and three dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import nn

from monai_ccnet.networks.blocks import check_widths, initialise
from monai_ccnet.networks.family import rounded
from monai_ccnet.networks.plain_unet import PlainUNet

__all__ = ["SqueezeUNet"]


class SqueezeUNet(PlainUNet):
    """A Squeeze-type U-Net: PlainUNet whose 3x3 convolutions, all but the first, are fire modules.

    A fire module (Iandola et al. 2016, section 3) squeezes its input to few channels by a 1x1 convolution and expands
    them by 1x1 and 3x3 convolutions side by side. Mishra, Chen and Hu perform "Squeeze-Net type compression on the
    U-Net architecture" (section 6.2) and state only its log10 weights, 7.049 (Table 10). As in SqueezeNet the first
    convolution stays; so do the transposed convolutions and the last one.

    With two fire modules a stage, the squeeze ratio that gives 7.049 is 0.409, the default: 11,195,008 kernel weights
    for one channel in and out, 2.8 times fewer than PlainUNet's. SqueezeNet itself uses 0.125, which gives 5,356,672
    (6.729).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the logits.
        channels: width of each stage from the input's scale down, in the encoder and the mirrored decoder alike.
        squeeze_ratio: channels after a squeeze per channel after the expansion, in (0, 1].
        act: activation, in MONAI's terms.
        norm: normalisation, in MONAI's terms; ``None`` for none.
        dropout: dropout ratio after each convolution, or MONAI's terms for it.

    Each spatial axis of the input must be divisible by ``2 ** (len(channels) - 1)``.

    >>> network = SqueezeUNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8, 16), squeeze_ratio=0.25)
    >>> network(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 2, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        squeeze_ratio: float = 0.409,
        act: tuple | str | None = "RELU",
        norm: tuple | str | None = "BATCH",
        dropout: tuple | str | float | None = 0.0,
    ) -> None:
        check_widths(spatial_dims, in_channels, out_channels, channels, stages=2)
        if not 0 < squeeze_ratio <= 1:
            raise ValueError(f"squeeze_ratio must lie in (0, 1], got {squeeze_ratio}.")
        super().__init__(spatial_dims, in_channels, out_channels, channels, act, norm, dropout)

        def fires(*widths: int) -> list[nn.Module]:
            return [
                _Fire(spatial_dims, inputs, outputs, squeeze_ratio, act, norm, dropout)
                for inputs, outputs in itertools.pairwise(widths)
            ]

        first = next(self.encoder[0].children())
        stages = [fires(above, width, width) for above, width in itertools.pairwise(channels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(*stage) for stage in [[first, *fires(channels[0], channels[0])], *stages]
        )
        self.decoder = nn.ModuleList(nn.Sequential(*fires(2 * width, width, width)) for width in channels[-2::-1])
        self.apply(initialise)


class _Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions concatenated; for an odd width the 3x3 gets the larger half."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        squeeze_ratio: float,
        act: tuple | str | None,
        norm: tuple | str | None,
        dropout: tuple | str | float | None,
    ) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel_size: int) -> Convolution:
            return Convolution(
                spatial_dims, inputs, outputs, kernel_size=kernel_size, act=act, norm=norm, dropout=dropout
            )

        squeezed, half = rounded(out_channels * squeeze_ratio), out_channels // 2
        self.squeeze = convolution(in_channels, squeezed, 1)
        self.expansions = nn.ModuleList(
            convolution(squeezed, width, kernel_size)
            for width, kernel_size in ((half, 1), (out_channels - half, 3))
            if width > 0
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x)
        expanded: list[torch.Tensor] = []
        for expansion in self.expansions:
            expanded.append(expansion(x))
        return torch.cat(expanded, dim=1)
