"""Removing channels from the layers of a network, and loading a network that was pruned in this way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from monai_ccnet.networks.building import build_network
from monai_ccnet.networks.int8 import float_state
from monai_ccnet.networks.memory import copy_of, on_meta
from monai_ccnet.networks.scaling import inner_def, unwrapped
from monai_ccnet.networks.widths import default_input_shape
from monai_ccnet.posttraining.channels import ChannelGroup, check_plain

__all__ = ["filters_of", "load_pruned", "without_channels"]


def without_channels(
    network: torch.nn.Module, groups: Sequence[ChannelGroup], removed: Sequence[Collection[int]]
) -> torch.nn.Module:
    """Return a copy of a network whose layers lack channels: their filters, what norms them, and what reads them.

    Args:
        network: any network.
        groups: groups of its channels, as :func:`~monai_ccnet.posttraining.channels.follow_channels` returns them.
        removed: indices of the channels to remove from each group, counted from 0.

    Raises:
        ValueError: if a group would have no channel left, or a layer calculates its weights from others.
    """
    check_plain(network)
    gone: dict[tuple[str, str], set[int]] = defaultdict(set)
    for group, channels in zip(groups, removed, strict=True):
        if len(set(channels)) >= len(group):
            raise ValueError(f"{group.layers[0]} has {len(group)} channels and must keep at least one of them.")
        for place in group.places:
            gone[place.layer, place.side].update(place.positions[channel] for channel in channels)
    pruned = copy_of(network)
    for (name, side), positions in gone.items():
        if positions:
            _cut(pruned.get_submodule(name), side, positions)
    return pruned


def load_pruned(network_def: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Build the network of a config, narrow its layers to the widths of a state dict, and load the state dict.

    No config can describe the irregular widths of a pruned network. A config and a plain file of tensors can:
    ``network = load_pruned(network_def, torch.load("model.pt", weights_only=True))`` runs no code from the file.

    Args:
        network_def: the config of the network before it was pruned, with references resolved.
        state_dict: state dict of the pruned network, at 32, 16 or 8 bits per weight; it is converted to float32.

    Raises:
        ValueError: if the state dict is not that of this network with fewer channels.
    """
    whole = build_network(network_def)
    network, network_def = unwrapped(whole), inner_def(network_def)
    mine, state_dict = network.state_dict(), float_state(network, state_dict)
    if unlike := sorted(set(mine) ^ set(state_dict)):
        raise ValueError(
            f"the state dict is not that of {network_def['_target_']}: only one of them has {unlike[0]!r}."
        )
    for name, tensor in state_dict.items():
        if not _is_cut_of(tensor, mine[name]):
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)}, which is no part of the {tuple(mine[name].shape)} of "
                f"{network_def['_target_']}: give the config of the network before it was pruned."
            )
    for name, module in network.named_modules():
        for key, tensor in _tensors(module):
            loaded = state_dict.get(f"{name}.{key}" if name else key)
            if loaded is not None and loaded.shape != tensor.shape:
                _replace(module, key, tensor.new_empty(loaded.shape))
        _tell_widths(module)
    network.load_state_dict(state_dict)
    _tell_stateless_norms(network, network_def)
    return whole


def filters_of(layer: torch.nn.Module) -> torch.Tensor:
    """Return the kernel of a convolution with its filters first, ``(out_channels, in_channels, kH, kW[, kD])``."""
    if not isinstance(layer, _ConvNd):
        raise TypeError(f"only a convolution has filters, got {type(layer).__name__}.")
    weight = layer.weight.detach()
    return weight.transpose(0, 1) if layer.transposed else weight


def _cut(layer: torch.nn.Module, side: str, positions: Collection[int]) -> None:
    """Remove filters, inputs, or entries of each vector, and let the layer know its new width."""
    for key, tensor in _tensors(layer):
        dim = 0
        if isinstance(layer, _ConvNd):
            if side == "in" and key == "bias":
                continue
            dim = int((side == "in") != layer.transposed) if key == "weight" else 0
        kept = [position for position in range(tensor.shape[dim]) if position not in positions]
        index = torch.tensor(kept, device=tensor.device)
        _replace(
            layer, key, tensor.index_select(dim, index) if not tensor.is_meta else _shape_of(tensor, dim, len(kept))
        )
    _tell_widths(layer)
    if isinstance(layer, _NormBase) and not list(_tensors(layer)):
        layer.num_features -= len(positions)


def _shape_of(tensor: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    return tensor.new_empty((*tensor.shape[:dim], length, *tensor.shape[dim + 1 :]))


def _tensors(layer: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return what a layer holds for its channels."""
    own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    return [(key, tensor.detach()) for key, tensor in own if tensor.dim() > 0]


def _replace(layer: torch.nn.Module, key: str, tensor: torch.Tensor) -> None:
    if isinstance(old := getattr(layer, key), torch.nn.Parameter):
        tensor = torch.nn.Parameter(tensor, requires_grad=old.requires_grad)
    setattr(layer, key, tensor)


def _tell_widths(layer: torch.nn.Module) -> None:
    """Let a layer's attributes agree with its tensors."""
    if isinstance(layer, _ConvNd) and layer.groups == 1:
        widths = layer.weight.shape[:2]
        layer.in_channels, layer.out_channels = widths if layer.transposed else reversed(widths)
    elif isinstance(layer, torch.nn.GroupNorm) and layer.affine:
        layer.num_channels = len(layer.weight)
    elif isinstance(layer, torch.nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, _NormBase):
        for _, tensor in _tensors(layer):
            layer.num_features = len(tensor)


def _is_cut_of(tensor: torch.Tensor, whole: torch.Tensor) -> bool:
    if tensor.dim() != whole.dim() or tensor.shape[2:] != whole.shape[2:]:
        return False
    return all(0 < a <= b for a, b in zip(tensor.shape, whole.shape, strict=True))


def _tell_stateless_norms(network: torch.nn.Module, network_def: Mapping[str, Any]) -> None:
    """Set the widths of normalisations without tensors, found by following one forward pass on shapes."""
    stateless = [
        name for name, module in network.named_modules() if isinstance(module, _NormBase) and not _tensors(module)
    ]
    if not stateless:
        return
    shapes = on_meta(network).eval()

    def tell(name: str) -> Callable:
        def hook(norm: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            for each in (norm, network.get_submodule(name)):
                setattr(each, "num_features", inputs[0].shape[1])  # noqa: B010 (a module's attribute may be anything)

        return hook

    for name in stateless:
        shapes.get_submodule(name).register_forward_pre_hook(tell(name))
    with torch.no_grad():
        shapes(torch.empty(default_input_shape(network_def), device="meta"))
