"""CUMedVision, the deep contextual network, at any width and depth, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Pool
from torch import nn

from monai_ccnet.networks.blocks import check_divisible, check_widths, convolutions, fuse, initialise, scale_branch

__all__ = ["CUMedVision"]


class CUMedVision(nn.Module):
    """The deep contextual network of Chen, Qi, Cheng and Heng (AAAI 2016): the logits sum one branch per scale.

    From the publication: stages of 64, 128, 256 and 512 channels with 2, 2, 3 and 3 convolutions of 3x3, batch
    normalisation and ReLU, and max pooling between them. Each stage but the first has a branch to the size of the
    input: a transposed convolution (kernel ``2 * scale``, stride ``scale``), a 3x3 and a 1x1 convolution. The logits
    are the sum of the branches. In training each branch is also supervised on its own, with a decreasing weight.

    Reconstructed: the branches have as many channels as the logits. With two classes and three input channels this
    gives the 7.94 million parameters of public implementations: 7,939,786 (log10 6.900), of which 7,931,704 are kernel
    weights (6.899). A branch thus narrows with its stage and has no width of its own. It has no activation: with so few
    channels an activation made training worse, most with one class. Its output is the auxiliary output. Mishra, Chen
    and Hu print no count for this network.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the logits.
        channels: width of each stage from the input's scale down, at least two; the first two stages have two
            convolutions, the others three.
        act: activation, in MONAI's terms.
        norm: normalisation, in MONAI's terms; ``None`` for none.
        dropout: dropout ratio after each convolution of the stages, or MONAI's terms for it.
        deep_supervision: whether to return the branches' outputs too in training, for
            :class:`~monai_ccnet.training.losses.DeepSupervision`. Neither the weights nor the logits depend on it.

    Each spatial axis of the input must be divisible by ``2 ** (len(channels) - 1)``.

    >>> network = CUMedVision(spatial_dims=2, in_channels=3, out_channels=2, channels=(4, 6, 8))
    >>> image = torch.zeros(2, 3, 32, 32)
    >>> network(image).shape, network.eval()(image).shape
    (torch.Size([2, 3, 2, 32, 32]), torch.Size([2, 2, 32, 32]))
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        act: tuple | str | None = "RELU",
        norm: tuple | str | None = "BATCH",
        dropout: tuple | str | float | None = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        check_widths(spatial_dims, in_channels, out_channels, channels, stages=2)
        self.deep_supervision = deep_supervision
        self.divisor = 2 ** (len(channels) - 1)
        self.pool = Pool["max", spatial_dims](2)
        self.first = convolutions(spatial_dims, in_channels, channels[0], 2, act, norm, dropout)
        self.stages = nn.ModuleList(
            convolutions(spatial_dims, above, width, 2 if index == 0 else 3, act, norm, dropout)
            for index, (above, width) in enumerate(pairwise(channels))
        )
        self.branches = nn.ModuleList(
            scale_branch(spatial_dims, width, out_channels, 2**index)
            for index, width in enumerate(channels[1:], start=1)
        )
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(B, out_channels, H, W[, D])`` for an input ``(B, in_channels, H, W[, D])``.

        In training with deep supervision the shape is ``(B, len(channels), out_channels, H, W[, D])``: first these
        logits, then the output of each branch from the finest to the coarsest.
        """
        if not torch.jit.is_scripting():
            check_divisible(x, self.divisor)
        x = self.first(x)
        outputs: list[torch.Tensor] = []
        for stage, branch in zip(self.stages, self.branches):  # noqa: B905 (TorchScript knows no strict)
            x = stage(self.pool(x))
            outputs.append(branch(x))
        return fuse(outputs, self.training and self.deep_supervision)
