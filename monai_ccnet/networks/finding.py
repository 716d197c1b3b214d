"""Where a network that is in no table holds its widths, found by trying on the meta device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd

from monai_ccnet.networks.building import NetworkDef, arguments_of, build_network, spatial_dims_of, target_of
from monai_ccnet.networks.scaling import inner_def
from monai_ccnet.networks.widths import Widths

__all__ = ["find_widths"]

# Numbers that say something else than a width, in MONAI's terms.
_NO_WIDTHS = frozenset(
    [
        "in_channels",
        "out_channels",
        "in_channel",
        "out_channel",
        "num_classes",
        "n_classes",
        "num_channels",
        "spatial_dims",
        "img_size",
        "image_size",
        "input_image_size",
        "patch_size",
        "kernel_size",
        "kernels",
        "strides",
        "stride",
        "upsample_kernel_size",
        "up_kernel_size",
        "depth",
        "depths",
        "num_heads",
        "num_layers",
        "num_res_units",
        "blocks_down",
        "blocks_up",
        "dsdepth",
        "num_blocks",
        "levels",
        "resolution",
        "concat_size",
        "extract_levels",
        "pool",
        "kernel_c",
        "stride_conv",
        "stride_pool",
        "window_size",
        "layers",
        "block_config",
        "start_shape",
        "latent_shape",
        "in_shape",
        "latent_size",
        "out_classes",
        "classes",
        "reduction",
        "num_res_layers",
    ]
)
_SIZES = ("img_size", "input_image_size", "image_size")
_MOST_LEFT = 0.9  # share of the parameters that a halved width may leave, to count as one
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def find_widths(network_def: NetworkDef) -> Widths:
    """Return where a network holds its widths, found by building it on the meta device with narrower arguments.

    Each argument that is a whole number or a list of them is halved. Of those with which the network still builds, maps
    its input to an output of the same shape and has clearly fewer parameters, the one that saves most is taken; then
    the smallest step by which it can change is found.

    Args:
        network_def: the network's MONAI config, with references resolved.

    Raises:
        ValueError: if no argument narrows it; the message says what was tried.
    """
    network_def = dict(inner_def(network_def))
    full = build_network(network_def, device="meta")
    most, shape = _count(full), _output_shape(full, network_def)
    kernels = max(1, _count(full, kernels=True))
    found: list[tuple[float, int, str, Any]] = []
    tried = []
    for name, value in _candidates(network_def):
        tried.append(name)
        halved = _moved(value, lambda width: max(1, width // 2))
        narrowed = _built({**network_def, name: halved})
        if narrowed is None or _count(narrowed) > _MOST_LEFT * most:
            continue
        if shape is None or _output_shape(narrowed, network_def) == shape:
            found.append((round(_count(narrowed, kernels=True) / kernels, 1), _count(narrowed), name, value))
    if not found:
        raise ValueError(
            f"no argument of {target_of(network_def)} narrows it alone; tried by halving: "
            f"{', '.join(tried) or 'none, since none is a number'}. Its weights can be stored at fewer bits, or it can "
            "work at a coarser scale."
        )
    *_, name, value = min(found, key=lambda each: each[:2])  # a width of all stages rather than of one part
    step = next((step for step in _STEPS if _builds_by(network_def, name, value, step, shape is not None)), None)
    multiple = step or (value if isinstance(value, int) else math.gcd(*value))
    size = next((key for key in _SIZES if key in arguments_of(network_def)), None)
    return Widths(name, _scales(full, network_def, value), multiple=multiple, least=multiple, input_size=size)


def _candidates(network_def: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments_of(network_def).items():
        numbers = list(value) if isinstance(value, (list, tuple)) else [value]
        whole = bool(numbers) and all(isinstance(each, int) and not isinstance(each, bool) for each in numbers)
        if name not in _NO_WIDTHS and whole and min(numbers) >= 1 and max(numbers) >= 4:
            yield name, value


def _moved(value: Any, move: Any) -> Any:
    return move(value) if isinstance(value, int) else [move(each) for each in value]


def _builds_by(network_def: Mapping[str, Any], name: str, value: Any, step: int, runs: bool) -> bool:
    """Tell whether a network builds, and runs where the full one does, with widths that are odd multiples of a step."""
    for share in (0.5, 0.75):
        odd = _moved(value, lambda width, share=share: step * (int(share * width / step) // 2 * 2 + 1))
        network = _built({**network_def, name: odd})
        if network is None or (runs and _output_shape(network, network_def) is None):
            return False
    return True


def _built(network_def: Mapping[str, Any]) -> torch.nn.Module | None:
    """Return a network on the meta device, ``None`` if it cannot be built; its own errors are of any kind."""
    try:
        return build_network(network_def, device="meta")
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, ArithmeticError, LookupError):
        return None  # its own code refuses such widths


def _count(network: torch.nn.Module, kernels: bool | None = None) -> int:
    """Return the number of parameters, of convolution kernels alone, or of all others."""
    numbers = {True: 0, False: 0}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            numbers[isinstance(module, _ConvNd) and parameter.dim() > 2] += parameter.numel()
    return sum(numbers.values()) if kernels is None else numbers[kernels]


def _input_of(network_def: Mapping[str, Any]) -> torch.Tensor:
    arguments, axes = arguments_of(network_def), spatial_dims_of(network_def)
    size = next((arguments[key] for key in _SIZES if key in arguments), None)
    lengths = (
        [128 if axes == 2 else 96] * axes if size is None else [size] * axes if isinstance(size, int) else list(size)
    )
    channels = arguments.get("in_channels", arguments.get("num_channels", 1))
    return torch.zeros(1, channels if isinstance(channels, int) else 1, *lengths, device="meta")


def _output_shape(network: torch.nn.Module, network_def: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the shapes of all that a network answers, ``None`` if it cannot run on the meta device."""
    try:
        with torch.no_grad():
            answer = network.eval()(_input_of(network_def))
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError, AttributeError, IndexError):
        return None  # its own code refuses the input, or reads values that are not there
    parts = (
        answer if isinstance(answer, (list, tuple)) else answer.values() if isinstance(answer, Mapping) else [answer]
    )
    first = next((part for part in parts if isinstance(part, torch.Tensor)), None)
    return None if first is None else tuple(first.shape)


def _scales(network: torch.nn.Module, network_def: Mapping[str, Any], value: Any) -> list[int]:
    """Return the factor below the input at which each width works, as the convolutions show; else powers of two."""
    seen: list[tuple[int, int]] = []
    length = _input_of(network_def).shape[2]

    def note(module: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.dim() > 3:
            seen.append((output.shape[1], max(1, round(length / output.shape[2]))))

    handles = [module.register_forward_hook(note) for module in network.modules() if not list(module.children())]
    _output_shape(network, network_def)
    for handle in handles:
        handle.remove()
    reductions = sorted({by for _, by in seen if by & (by - 1) == 0}) or [1]
    if isinstance(value, int):
        return reductions
    scales, least = [], 1
    for stage, width in enumerate(value):
        least = next((by for channels, by in seen if channels == width and by >= least), least if seen else 2**stage)
        scales.append(least)
    return scales
