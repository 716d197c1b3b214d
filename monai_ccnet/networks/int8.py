"""Kernels as int8, symmetric per output channel, and networks that read them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_ccnet.networks.scaling import unwrapped

__all__ = ["SCALES", "dequantized", "float_state", "kernel_axes", "quantized", "reads_int8"]

SCALES = "int8_scales"  # name of the one tensor of all scales in a state dict


def quantized(kernel: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a kernel as int8, symmetric about 0, and the scale of each output channel.

    Args:
        kernel: kernel of a convolution or a linear layer, in floating point.
        axis: axis of its output channels.

    Returns:
        Codes from -127 to 127, int8, of the kernel's shape; and scales, float32, one per output channel. A weight is
        its code times the scale of its channel, with an error of at most half a scale.

    >>> codes, scales = quantized(torch.tensor([[0.5, -1.0], [0.0, 0.0]]), axis=0)
    >>> codes.tolist(), dequantized(codes, scales, axis=0).round(decimals=2).tolist()
    ([[64, -127], [0, 0]], [[0.5, -1.0], [0.0, 0.0]])
    """
    kernel = kernel.detach().float()
    others = [other for other in range(kernel.ndim) if other != axis]
    scales = kernel.abs().amax(dim=others) / 127
    codes = (kernel / _along(scales.where(scales > 0, 1.0), axis, kernel.ndim)).round()
    return codes.to(torch.int8), scales


def dequantized(codes: torch.Tensor, scales: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the float32 kernel that :func:`quantized` made int8."""
    return codes.float() * _along(scales, axis, codes.ndim)


def kernel_axes(network: torch.nn.Module) -> dict[str, int]:
    """Return the axis of the output channels of each kernel of a network, by its name in the state dict."""
    return {
        f"{name}.weight" if name else "weight": int(isinstance(module, _ConvTransposeNd))
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, (_ConvNd, torch.nn.Linear))
    }


def reads_int8(network: torch.nn.Module) -> torch.nn.Module:
    """Let a network's ``load_state_dict`` take int8 kernels too; the network is changed in place and returned."""
    unwrapped(network).register_load_state_dict_pre_hook(_dequantize)  # twice is harmless: the second finds no int8
    return network


def _dequantize(
    network: torch.nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Turn the int8 kernels of a state dict into float32, in place, before it is loaded."""
    try:
        floats = float_state(network, state_dict, prefix)
    except ValueError as error:
        error_msgs.append(str(error))
        return
    state_dict.pop(prefix + SCALES, None)
    state_dict.update(floats)


def float_state(network: torch.nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a state dict with its int8 kernels, if any, converted to float32.

    Args:
        network: network that tells which kernels are transposed; its widths may differ from the state dict's.
        state_dict: state dict as :func:`save_weights` writes it.
        prefix: prefix of the network's names in the state dict.

    Raises:
        ValueError: if there are more or fewer scales than output channels, or int8 kernels without any.
    """
    state = dict(state_dict)
    scales = state.pop(prefix + SCALES, None)
    axes = {prefix + name: axis for name, axis in kernel_axes(network).items()}
    # In the order of the network, in which they were written: a file may hold its tensors in another one.
    stored = {name: axis for name, axis in axes.items() if name in state and state[name].dtype == torch.int8}
    counts = [state[name].shape[axis] for name, axis in stored.items()]
    if scales is None:
        if stored:
            raise ValueError(f"kernels such as {next(iter(stored))} are int8, and their scales, {SCALES}, are missing.")
        return state
    if sum(counts) != len(scales):
        raise ValueError(f"the kernels have {sum(counts)} output channels, the file has {len(scales)} int8 scales.")
    for (name, axis), its_scales in zip(stored.items(), scales.split(counts), strict=True):
        state[name] = dequantized(state[name], its_scales, axis)
    return state


def _along(scales: torch.Tensor, axis: int, dimensions: int) -> torch.Tensor:
    return scales.reshape([-1 if other == axis else 1 for other in range(dimensions)])
