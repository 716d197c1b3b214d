"""How much each channel of a trained network matters, by the measures that pruning papers propose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from monai_ccnet.posttraining.channels import ChannelGroup
from monai_ccnet.posttraining.cutting import filters_of

__all__ = ["IMPORTANCES", "Losses", "channel_importance"]

Losses = Callable[[torch.nn.Module], Iterable[torch.Tensor]]
Score = Callable[[torch.nn.Module, Sequence[ChannelGroup], Losses | None, np.random.Generator], list[torch.Tensor]]


def channel_importance(
    network: torch.nn.Module,
    groups: Sequence[ChannelGroup],
    importance: str,
    losses: Losses | None = None,
    rng: np.random.Generator | None = None,
) -> list[torch.Tensor]:
    """Return how much each channel of each group matters; only the order of the numbers is meaningful.

    Args:
        network: trained network; it is unchanged afterwards.
        groups: groups of its channels, as :func:`~monai_ccnet.posttraining.channels.follow_channels` returns them.
        importance: name of the measure, a key of :data:`IMPORTANCES`:

            - ``"random"``: uniform draws;
            - ``"l1"``: sum of the absolute values of a filter's kernel (Li et al., ICLR 2017);
            - ``"taylor"``: magnitude of the mean over space of feature map times gradient, averaged over the examples
              (Molchanov et al., ICLR 2017, Eqs. 6-8);
            - ``"estimation"``: square of a gate's gradient, that is of the sum over space and batch of feature map
              times gradient, averaged over the batches (Molchanov et al., CVPR 2019, Eq. 8).

            ``"l1"`` and ``"taylor"`` are divided by their l2 norm over the layer, so that layers are comparable
            (Molchanov et al. 2017, section 2.2); ``"estimation"`` is comparable without.
        losses: function that yields the loss of each batch for a network, for the two measures that need data:
            ``lambda network: (loss_function(network(image), label) for image, label in batches)``. The network is in
            eval mode meanwhile.
        rng: generator of the random draws.

    A filter's feature map is the output of the normalisation that follows it, or its own without one. A ReLU behind it
    changes neither measure. Before batch normalisation both would mean little, because it undoes any scaling of a
    filter. If outputs of several filters are added up, so are their importances.

    Raises:
        ValueError: if the measure is unknown or its data are missing.
    """
    if importance not in IMPORTANCES:
        raise ValueError(f"importance must be one of {sorted(IMPORTANCES)}, got {importance!r}.")
    return IMPORTANCES[importance](network, groups, losses, rng or np.random.default_rng())


def _random(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], losses: Losses | None, rng: np.random.Generator
) -> list[torch.Tensor]:
    return [torch.from_numpy(rng.random(len(group))) for group in groups]


def _l1_norm(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], losses: Losses | None, rng: np.random.Generator
) -> list[torch.Tensor]:
    layers = {layer for group in groups for layer in group.layers}
    norms = {layer: filters_of(network.get_submodule(layer)).abs().flatten(1).sum(1) for layer in layers}
    return _summed(groups, {layer: _rescaled(norm) for layer, norm in norms.items()})


def _taylor(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], losses: Losses | None, rng: np.random.Generator
) -> list[torch.Tensor]:
    sums: dict[str, torch.Tensor] = {}
    for gradients in _gate_gradients(network, groups, losses):
        for layer, (gradient, pixels) in gradients.items():
            sums[layer] = sums.get(layer, 0) + (gradient / pixels).abs().sum(0)
    return _summed(groups, {layer: _rescaled(total) for layer, total in sums.items()})


def _estimation(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], losses: Losses | None, rng: np.random.Generator
) -> list[torch.Tensor]:
    sums: dict[str, torch.Tensor] = {}
    for gradients in _gate_gradients(network, groups, losses):
        for layer, (gradient, _) in gradients.items():
            sums[layer] = sums.get(layer, 0) + gradient.sum(0).square()
    return _summed(groups, sums)


IMPORTANCES: dict[str, Score] = {
    "random": _random,
    "l1": _l1_norm,
    "taylor": _taylor,
    "estimation": _estimation,
}


def _gate_gradients(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], losses: Losses | None
) -> Iterator[dict[str, tuple[torch.Tensor, int]]]:
    """Yield for each batch and each layer the gradients ``(B, C)`` of gates of 1 on its feature maps, and their pixels.

    A gate's gradient is the sum over space of feature map times gradient, even if a later layer works in place.
    """
    if losses is None:
        raise ValueError(
            "this importance needs data: give losses, a function from a network to the loss of each batch."
        )
    gates: dict[str, tuple[torch.Tensor, int]] = {}

    def gated(layer: str) -> Callable:
        def hook(_: torch.nn.Module, __: tuple, output: torch.Tensor) -> torch.Tensor:
            gate = output.new_ones((*output.shape[:2], *(1,) * (output.dim() - 2)), requires_grad=True)
            gates[layer] = (gate, output[0, 0].numel())
            return output * gate

        return hook

    training, any_batch = network.training, False
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with contextlib.ExitStack() as stack, torch.enable_grad():
        stack.callback(network.train, training)
        stack.callback(lambda: [parameter.requires_grad_(True) for parameter in parameters])
        network.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        for layer, place in {layer: group.norm or layer for group in groups for layer in group.layers}.items():
            stack.callback(network.get_submodule(place).register_forward_hook(gated(layer)).remove)
        for loss in losses(network):
            found = torch.autograd.grad(loss, [gate for gate, _ in gates.values()], allow_unused=True)
            yield {
                layer: ((torch.zeros_like(gate) if gradient is None else gradient).flatten(1), pixels)
                for (layer, (gate, pixels)), gradient in zip(gates.items(), found, strict=True)
            }
            any_batch = True
    if not any_batch:
        raise ValueError("losses yielded no batch: it must start from the first batch in each round.")


def _rescaled(scores: torch.Tensor) -> torch.Tensor:
    return scores / scores.norm().clamp_min(torch.finfo(scores.dtype).tiny)


def _summed(groups: Sequence[ChannelGroup], of_layer: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the importance of each channel of a group, added up over the filters that make it."""
    totals = []
    for group in groups:
        made = [place for place in group.places if place.side == "out"]
        totals.append(
            torch.stack([of_layer[place.layer].cpu().double()[list(place.positions)] for place in made]).sum(0)
        )
    return totals
