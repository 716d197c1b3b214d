"""UCU-Net, a U-Net that adds up its decoder stages as CUMedVision does, at any width and depth, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_ccnet.networks.blocks import check_divisible, check_widths, fuse, initialise, scale_branch
from monai_ccnet.networks.plain_unet import PlainUNet

__all__ = ["UCUNet"]


class UCUNet(PlainUNet):
    """The network of Mishra, Chen and Hu (ISBI 2020): a U-Net that fuses the outputs of its decoder's scales.

    From the paper: it has U-Net's encoder, and its decoder combines those of U-Net and CUMedVision so that information
    of all scales makes the output (Mishra, Chen and Hu, section 5.2 and Fig. 5c).

    Reconstructed: everything else. This is :class:`~monai_ccnet.networks.PlainUNet` whose decoder stages below the
    input's scale, of 512, 256 and 128 channels at full width, each have the branch that CUMedVision has at a stage of
    the same width and scale; the logits are their sum with U-Net's own output, and all four are supervised in training.
    The paper prints no count of this network. Here it has 31,173,278 kernel weights (log10 7.494) with one channel in
    and out, 0.5 % more than the U-Net.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the logits.
        channels: width of each stage from the input's scale down, in the encoder and the mirrored decoder alike, at
            least three.
        act: activation, in MONAI's terms.
        norm: normalisation, in MONAI's terms; ``None`` for none.
        dropout: dropout ratio after each convolution of the stages, or MONAI's terms for it.
        deep_supervision: whether to return the output of each scale too in training, for
            :class:`~monai_ccnet.training.losses.DeepSupervision`. Neither the weights nor the logits depend on it.

    Each spatial axis of the input must be divisible by ``2 ** (len(channels) - 1)``.

    >>> network = UCUNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 6, 8, 10))
    >>> image = torch.zeros(2, 1, 32, 32)
    >>> network(image).shape, network.eval()(image).shape
    (torch.Size([2, 4, 2, 32, 32]), torch.Size([2, 2, 32, 32]))
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
        deep_supervision: bool = True,
    ) -> None:
        check_widths(spatial_dims, in_channels, out_channels, channels, stages=3)
        super().__init__(spatial_dims, in_channels, out_channels, channels, act, norm, dropout)
        self.deep_supervision = deep_supervision
        self.branches = nn.ModuleList(
            scale_branch(spatial_dims, channels[stage], out_channels, 2**stage)
            for stage in range(len(channels) - 2, 0, -1)
        )
        self.branches.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(B, out_channels, H, W[, D])`` for an input ``(B, in_channels, H, W[, D])``.

        In training with deep supervision the shape is ``(B, len(channels), out_channels, H, W[, D])``: first these
        logits, then the output of each decoder stage from the finest to the coarsest.
        """
        if not torch.jit.is_scripting():
            check_divisible(x, self.divisor)
        skips: list[torch.Tensor] = []
        for index, stage in enumerate(self.encoder):
            x = stage(x if index == 0 else self.pool(x))
            skips.append(x)
        x = skips.pop()
        outputs: list[torch.Tensor] = []
        for upsample, stage, branch in zip(self.upsamplers, self.decoder, self.branches):  # noqa: B905
            x = stage(torch.cat([skips.pop(), upsample(x)], dim=1))
            outputs.append(branch(x))
        x = self.decoder[-1](torch.cat([skips.pop(), self.upsamplers[-1](x)], dim=1))
        outputs.append(self.head(x))
        return fuse(outputs[::-1], self.training and self.deep_supervision)
