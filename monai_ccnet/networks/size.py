"""How large a network is: weights, parameters, file bytes, multiply-adds and activations, without allocating it."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd

from monai_ccnet.networks.building import build_network, target_of
from monai_ccnet.networks.memory import follow_forward, follow_training, on_meta
from monai_ccnet.networks.scaling import inner_def, unwrapped
from monai_ccnet.networks.storage import stored_state, written_bytes
from monai_ccnet.networks.widths import check_input_shape, known_widths
from monai_ccnet.values import Value, check_numbers, check_shape_of

__all__ = ["Countable", "NetworkSize", "file_bytes", "network_size"]

Countable = Mapping[str, Any] | torch.nn.Module


@dataclass(frozen=True)
class NetworkSize(Value):
    """Exact sizes of a network.

    Attributes:
        weights: numbers in the kernels of convolutions and linear layers: the paper's theta.
        parameters: all trainable numbers.
        state_bytes: bytes of its parameters and buffers in memory at 32 bits a weight.
        file_bytes: bytes of its state dict on disk at 32 bits a weight, as :func:`save_weights` writes it.
        macs: multiply-adds of a forward pass (1 MAC = 2 FLOPs); ``None`` without an input shape.
        activation_bytes: peak bytes of the tensors alive in a forward pass in eval mode without gradients, with the
            input and without weights (:func:`~monai_ccnet.networks.memory.follow_forward`); ``None`` without an input
            shape.
        training_bytes: peak bytes of the tensors alive in a training step: the input, all that is kept for the backward
            pass, and gradients of activations and parameters; without weights, loss and optimizer state
            (:func:`~monai_ccnet.networks.memory.follow_training`). ``None`` without an input shape, or if the network
            cannot be trained on it.
        input_shape: shape ``(B, C, H, W[, D])`` of the input that multiply-adds and the last two sizes hold for.
    """

    weights: int
    parameters: int
    state_bytes: int
    file_bytes: int
    macs: int | None
    activation_bytes: int | None
    training_bytes: int | None
    input_shape: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", tuple(self.input_shape))
            check_shape_of("a network's size", self.input_shape)
        check_numbers("a network's size", 1, weights=self.weights)
        check_numbers(
            "a network's size",
            0,
            parameters=self.parameters,
            state_bytes=self.state_bytes,
            file_bytes=self.file_bytes,
            macs=self.macs,
            activation_bytes=self.activation_bytes,
            training_bytes=self.training_bytes,
        )


def network_size(network_def: Countable, input_shape: Sequence[int] | None = None) -> NetworkSize:
    """Count the sizes of a network from shapes alone, without allocating or computing anything.

    Args:
        network_def: the network's MONAI config, with references resolved, or a network itself, such as a pruned one.
        input_shape: shape of the input, ``(B, C, H, W[, D])``, needed for multiply-adds and activations.

    Raises:
        ValueError: if the network cannot take an input of this shape.

    >>> size = network_size({"_target_": "monai_ccnet.networks.PlainUNet"}, input_shape=(1, 1, 128, 128))
    >>> size.weights, size.parameters, round(size.macs / 1e9, 2)
    (31023744, 31042369, 12.02)
    >>> round(size.activation_bytes / 2**20, 1), round(size.training_bytes / 2**20, 1)
    (26.1, 162.7)
    """
    network = _on_meta(network_def)
    macs = activation_bytes = training_bytes = None
    if input_shape is not None:
        macs, activation_bytes = _forward(network, network_def, input_shape)
        with contextlib.suppress(ValueError):  # raised if there is a single value to normalise
            training_bytes = _follow_training(network, tuple(input_shape))
    return NetworkSize(
        weights=_kernel_weights(network),
        parameters=_parameters(network),
        state_bytes=_state_bytes(network),
        file_bytes=written_bytes(network, 32),
        macs=macs,
        activation_bytes=activation_bytes,
        training_bytes=training_bytes,
        input_shape=None if input_shape is None else tuple(input_shape),
    )


def disk_bytes(
    network_def: Countable, bits_per_weight: int = 32, count: str = "parameters", weights_format: str = "torch"
) -> int:
    """Return the larger of two sizes in bytes: the weights at ``bits_per_weight`` bits each, and the file.

    Args:
        network_def: the network's MONAI config, with references resolved, or a network itself.
        bits_per_weight: number of bits of a weight: 8, 16, 32 or 64; the file holds at most 32.
        count: kind of weights that count, ``"parameters"`` or ``"weights"``, as in :class:`NetworkSize`.
        weights_format: format of the file, ``"torch"`` or ``"safetensors"``.
    """
    network = _on_meta(network_def)
    counted = _parameters(network) if count == "parameters" else _kernel_weights(network)
    return max(math.ceil(counted * bits_per_weight / 8), written_bytes(network, bits_per_weight, weights_format))


def memory_bytes(network_def: Countable, input_shape: Sequence[int]) -> int:
    """Return ``state_bytes + activation_bytes`` of :class:`NetworkSize`, without the rest."""
    network = _on_meta(network_def)
    return _state_bytes(network) + _forward(network, network_def, input_shape)[1]


def forward_macs(network_def: Countable, input_shape: Sequence[int]) -> int:
    """Return ``macs`` of :class:`NetworkSize`, without the rest."""
    return _forward(_on_meta(network_def), network_def, input_shape)[0]


def kernel_weights(network_def: Countable) -> int:
    """Return ``weights`` of :class:`NetworkSize`, without the rest."""
    return _kernel_weights(_on_meta(network_def))


def file_bytes(network_def: Countable, bits_per_weight: int = 32, weights_format: str = "torch") -> int:
    """Return the exact bytes of the file that :func:`save_weights` would write for a network."""
    return written_bytes(_on_meta(network_def), bits_per_weight, weights_format)


def linear_memory_multiplier(needed_bytes: float, full_bytes: float) -> float:
    """Return the multiplier that the paper uses for a memory budget: the ratio of the bytes.

    Its Eqs. 7 and 14 assume that the memory of a forward pass is proportional to the multiplier. This is a first guess:
    weights fall with its square, input and logits do not fall at all, and widths are rounded to whole channels.
    ``compress`` uses the exact count instead.

    Args:
        needed_bytes: budget in bytes.
        full_bytes: number of bytes that the full-size network needs.

    >>> linear_memory_multiplier(50e6, 200e6)
    0.25
    """
    if not (full_bytes > 0 and needed_bytes > 0):
        raise ValueError(f"bytes must be above 0, got {needed_bytes!r} and {full_bytes!r}.")
    return min(1.0, needed_bytes / full_bytes)


def _on_meta(network_def: Countable) -> torch.nn.Module:
    """Build a network on meta, return the one built for the same config a moment ago, or the shapes of a network."""
    if isinstance(network_def, torch.nn.Module):
        return on_meta(network_def)
    try:
        return _on_meta_by_json(json.dumps(network_def))
    except TypeError:  # the config holds objects
        return build_network(network_def, device="meta")


@functools.lru_cache(maxsize=32)  # more than a plan looks at
def _on_meta_by_json(network_def: str) -> torch.nn.Module:
    return build_network(json.loads(network_def), device="meta")


_follow_forward = functools.lru_cache(maxsize=32)(follow_forward)  # the last results are often requested again
_follow_training = functools.lru_cache(maxsize=32)(follow_training)


def _forward(network: torch.nn.Module, network_def: Countable, input_shape: Sequence[int]) -> tuple[int, int]:
    """Return multiply-adds and peak bytes; the error for a wrong shape says which shapes the network takes."""
    name = type(unwrapped(network)).__name__
    if not isinstance(network_def, torch.nn.Module):
        name = target_of(inner_def(network_def))
        if known_widths(network_def):
            check_input_shape(network_def, input_shape)
    try:
        return _follow_forward(network, tuple(input_shape))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot take an input of shape {tuple(input_shape)}: {error}") from error


def _kernel_weights(network: torch.nn.Module) -> int:
    kernels = {
        id(module.weight): module.weight.numel()
        for module in network.modules()
        if isinstance(module, (_ConvNd, torch.nn.Linear))
    }
    return sum(kernels.values())


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _state_bytes(network: torch.nn.Module) -> int:
    storages = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in stored_state(network, 32).values()}
    return sum(storages.values())
