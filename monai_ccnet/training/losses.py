"""The loss of networks with auxiliary outputs, whose weight falls during training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DeepSupervisionLoss
from torch import nn

__all__ = ["DeepSupervision"]


class DeepSupervision(nn.Module):
    """A loss on the main output, and the same loss on each auxiliary output with a weight that falls.

    The weight starts at ``weight`` and falls exponentially to ``final_weight`` over ``decay_iterations`` training
    iterations, where it stays. As in Chen et al. (AAAI 2016), it starts at the main output's weight and becomes
    negligible; the exponential is ours and needs only the number of iterations. An iteration is a call in training mode
    with auxiliary outputs. The count is part of the state dict, as a plain number.

    A network without auxiliary outputs gets the loss itself, so one loss serves every network. A list of outputs, as
    MONAI's ``SegResNetDS`` gives, may be coarser than the target: MONAI's ``DeepSupervisionLoss``, used here,
    subsamples the target.

    Args:
        loss: the loss of one output, such as ``monai.losses.DiceCELoss(softmax=True, to_onehot_y=True)``.
        decay_iterations: training iterations after which ``final_weight`` is reached, at least 1.
        weight: first weight of each auxiliary output, relative to the main output's.
        final_weight: last weight of each auxiliary output, above 0 and not above ``weight``.

    Raises:
        ValueError: if a weight or the number of iterations is out of range.

    >>> loss = DeepSupervision(torch.nn.L1Loss(), decay_iterations=2)
    >>> output, target = torch.ones(1, 3, 1, 4, 4), torch.zeros(1, 1, 4, 4)  # one main and two auxiliary outputs
    >>> [round(loss(output, target).item(), 3) for _ in range(4)]
    [3.0, 1.2, 1.02, 1.02]
    """

    def __init__(self, loss: nn.Module, decay_iterations: int, weight: float = 1.0, final_weight: float = 0.01) -> None:
        super().__init__()
        if decay_iterations < 1:
            raise ValueError(f"decay_iterations must be at least 1, got {decay_iterations}.")
        if not 0 < final_weight <= weight:
            raise ValueError(f"0 < final_weight <= weight must hold, got final_weight={final_weight}, weight={weight}.")
        self.loss = DeepSupervisionLoss(loss)  # type: ignore[arg-type]  # MONAI names a private base of torch's losses
        self.decay_iterations = decay_iterations
        self.weight = weight
        self.final_weight = final_weight
        self.iteration = 0

    @property
    def auxiliary_weight(self) -> float:
        """The weight of each auxiliary output at this iteration."""
        return self.weight * (self.final_weight / self.weight) ** min(self.iteration / self.decay_iterations, 1.0)

    def forward(self, output: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the losses.

        Args:
            output: ``(B, K, H, W[, D])``; with auxiliary outputs ``(B, 1 + n, K, H, W[, D])`` or a list, main first.
            target: ``(B, 1 or K, H, W[, D])``, whose number of axes tells the two shapes apart.

        Raises:
            ValueError: if the numbers of axes do not fit together.
        """
        if isinstance(output, torch.Tensor):
            if output.ndim == target.ndim:
                return self.loss(output, target)
            if output.ndim != target.ndim + 1:
                raise ValueError(
                    f"an output of shape {tuple(output.shape)} does not fit a target of shape {tuple(target.shape)}: "
                    "give both with a channel axis, the output with one more axis if it holds auxiliary outputs."
                )
            output = output.unbind(dim=1)
        self.loss.weights = [1.0] + [self.auxiliary_weight] * (len(output) - 1)
        if self.training and len(output) > 1:
            self.iteration += 1
        return self.loss(output, target)

    def get_extra_state(self) -> int:
        """Return the iterations counted so far, for the state dict."""
        return self.iteration

    def set_extra_state(self, state: int) -> None:
        """Restore the number of iterations of a state dict."""
        self.iteration = int(state)
