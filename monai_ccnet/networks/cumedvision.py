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
    """The deep contextual network of Chen, Qi, Cheng and Heng (AAAI 2016): each scale votes, and the votes are summed.

    Known, and held to here: stages of 64, 128, 256 and 512 channels with 2, 2, 3 and 3 convolutions of 3x3, batch
    normalisation and ReLU, and max pooling between them; from each stage but the first a branch to the size of the
    input, of a transposed convolution (kernel ``2 * scale``, stride ``scale``), a 3x3 and a 1x1 convolution; the sum of
    the branches as logits, and each branch supervised on its own in training, with a weight that falls.

    Reconstructed: the branches are as wide as the logits, for then two classes and three input channels make the 7.94
    million parameters of public implementations: 7,939,786 (log10 6.900), of them 7,931,704 kernel weights (6.899). So
    a branch narrows with its stage and holds no width of its own. It has no activation, which on as few channels made
    trainings worse, most with one class; its output itself is the auxiliary output. Mishra, Chen and Hu print no count
    for this network.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the logits.
        channels: width of each stage from the input's scale down, at least two; the first two stages have two
            convolutions, the others three.
        act: activation, in MONAI's terms.
        norm: normalisation, in MONAI's terms; ``None`` for none.
        dropout: dropout ratio after each convolution of the stages, or MONAI's terms for it.
        deep_supervision: return the branches' outputs too in training, for
            :class:`~monai_ccnet.training.losses.DeepSupervision`. Neither the weights nor the logits depend on it.

    Each spatial axis of the input must divide by ``2 ** (len(channels) - 1)``.

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

        In training with deep supervision ``(B, len(channels), out_channels, H, W[, D])``: first these logits, then the
        output of each branch from the finest to the coarsest.
        """
        if not torch.jit.is_scripting():
            check_divisible(x, self.divisor)
        x = self.first(x)
        outputs: list[torch.Tensor] = []
        for stage, branch in zip(self.stages, self.branches):  # noqa: B905 (TorchScript knows no strict)
            x = stage(self.pool(x))
            outputs.append(branch(x))
        return fuse(outputs, self.training and self.deep_supervision)
