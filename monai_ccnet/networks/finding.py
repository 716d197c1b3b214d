"""Where a network that is in no table holds its widths, found by trying on the meta device."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_ccnet.networks.building import NetworkDef, arguments_of, build_network, spatial_dims_of, target_of
from monai_ccnet.networks.scaling import inner_def
from monai_ccnet.networks.widths import Widths, tied_values
from monai_ccnet.scales import per_axis

__all__ = ["check_narrower", "find_widths", "fixed_size_of", "without_a_stage"]

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
_SIZES = ("img_size", "input_image_size", "image_size")  # arguments that hold the only size of input
_MOST_LEFT = 0.9  # share of the parameters that a halved width may leave, to count as one
_MUCH_LEFT = 0.4  # halving all widths leaves a quarter
_CLEARLY = 0.67  # share of what one argument leaves that several may leave, to count as better
_MOST_PAIRS = 24  # of arguments that are halved together
_SECONDS = 60.0  # after which nothing else is halved
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def find_widths(network_def: NetworkDef) -> Widths:
    """Return where a network holds its widths, found by building it on the meta device with narrower arguments.

    Each argument that is a whole number or a list of them is halved. Of those with which the network still builds, maps
    its input to an output of the same shape and has clearly fewer parameters, the one that saves most is taken. Where
    none does, or much is left, arguments that are multiples of another one are halved together with it; they are the
    result where they save clearly more. Then the smallest step by which the widths can change is found.

    Args:
        network_def: the network's MONAI config, with references resolved.

    Raises:
        ValueError: if no argument narrows it; the message says what was tried.
    """
    network_def = dict(inner_def(network_def))
    full = build_network(network_def, device="meta")
    most, shape = _count(full), _output_shape(full, network_def)
    kernels = max(1, _count(full, kernels=True))
    candidates, until = dict(_candidates(network_def)), time.monotonic() + _SECONDS

    def tried(ties: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[_Found]:
        """Yield the arguments whose halves narrow the network, together with those that are tied to them."""
        for name, tied in itertools.takewhile(lambda _: time.monotonic() < until, ties):
            halved = _with(network_def, name, _moved(candidates[name], lambda width: max(1, width // 2)), tied)
            narrowed = _built(halved)
            if narrowed is None or _count(narrowed) > _MOST_LEFT * most:
                continue
            if shape is None or _output_shape(narrowed, network_def) == shape:
                left = round(_count(narrowed, kernels=True) / kernels, 1)
                yield _Found(left, _count(narrowed), name, tied)

    def best(ties: Iterable[tuple[str, dict[str, Any]]]) -> _Found | None:
        """Return what narrows the kernels most: a width of all stages rather than of one part."""
        return min(tried(ties), key=lambda each: each[:2], default=None)

    found = best((name, {}) for name in candidates)
    if found is None:
        found = best(_pairs(candidates)) or best(_groups(candidates))
    elif found.parameters > _MUCH_LEFT * most:
        alone = found.argument
        joint = best((name, tied) for name, tied in _pairs(candidates) if alone in (name, *tied))
        found = joint if joint is not None and joint.parameters < _CLEARLY * found.parameters else found
    if found is None:
        raise ValueError(
            f"no argument of {target_of(network_def)} narrows it, alone or with those that are multiples of it; tried "
            f"by halving: {', '.join(candidates) or 'none, since none is a number'}.{_fixed_words(full, network_def)} "
            "Its weights can be stored at fewer bits; one that segments can work at a coarser scale."
        )
    name, value = found.argument, candidates[found.argument]

    def works(move: Callable[[int], int]) -> bool:
        """Tell whether the network builds with moved widths, and runs where the full one does."""
        network = _built(_with(network_def, name, _moved(value, move), found.tied))
        return network is not None and (shape is None or _output_shape(network, network_def) is not None)

    step = next((step for step in _STEPS if all(works(_odd_multiple(step, share)) for share in (0.5, 0.75))), None)
    multiple = step or (value if isinstance(value, int) else math.gcd(*value))
    least = next((width for width in range(multiple, 5 * multiple, multiple) if works(_always(width))), multiple)
    size = next((key for key in _SIZES if key in arguments_of(network_def)), None)
    scales = _scales(full, network_def, value)
    return Widths(name, scales, multiple=multiple, least=least, input_size=size, tied=found.tied)


def _always(width: int) -> Callable[[int], int]:
    return lambda _: width


def _odd_multiple(step: int, share: float) -> Callable[[int], int]:
    """Return the function that gives an odd multiple of a step near a share of a width."""
    return lambda width: step * (int(share * width / step) // 2 * 2 + 1)


class _Found(NamedTuple):
    kernels_left: float
    parameters: int
    argument: str
    tied: dict[str, Any]


def _ties(candidates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each argument the others that are multiples of it, and how many times."""
    tied: dict[str, dict[str, Any]] = {name: {} for name in candidates}
    for name, other in itertools.permutations(candidates, 2):
        times = _times(candidates[name], candidates[other])
        if times is not None and name not in tied[other]:  # equal ones once
            tied[name][other] = times
    return tied


def _pairs(candidates: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return arguments with one other that is tied to them, not too many."""
    ties = _ties(candidates).items()
    return [(name, {other: times}) for name, others in ties for other, times in others.items()][:_MOST_PAIRS]


def _groups(candidates: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return arguments with all others that are tied to them, where these are several."""
    return [(name, others) for name, others in _ties(candidates).items() if len(others) > 1]


def _times(value: Any, other: Any) -> Any:
    """Return how many times a width another one is, a number or a list, ``None`` if it is no multiple of it."""
    if isinstance(other, int):
        return other // value if isinstance(value, int) and other % value == 0 else None
    widths = [value] * len(other) if isinstance(value, int) else list(value)
    if len(widths) != len(other) or any(wide % width for wide, width in zip(other, widths, strict=True)):
        return None
    return [wide // width for wide, width in zip(other, widths, strict=True)]


def _with(network_def: Mapping[str, Any], name: str, value: Any, tied: Mapping[str, Any]) -> dict[str, Any]:
    return {**network_def, name: value, **tied_values(tied, value)}


def _fixed_words(network: torch.nn.Module, network_def: Mapping[str, Any]) -> str:
    """Return words on lists of widths that a network keeps and takes no argument for."""
    fixed = {name: value for name, value in vars(network).items() if name not in arguments_of(network_def)}
    lists = [f"{name} {list(value)}" for name, value in _numbers(fixed) if not isinstance(value, int)]
    return f" Its class itself fixes {' and '.join(lists)}." if lists else ""


def _candidates(network_def: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from _numbers(arguments_of(network_def))


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what may be a width, or a list of widths."""
    for name, value in values.items():
        numbers = list(value) if isinstance(value, (list, tuple)) else [value]
        whole = bool(numbers) and all(isinstance(each, int) and not isinstance(each, bool) for each in numbers)
        if name not in _NO_WIDTHS and whole and min(numbers) >= 1 and max(numbers) >= 4:
            yield name, value


def _moved(value: Any, move: Any) -> Any:
    return move(value) if isinstance(value, int) else [move(each) for each in value]


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


def fixed_size_of(network_def: NetworkDef) -> tuple[int, ...] | None:
    """Return the only size of input that a network takes, by its arguments, ``None`` if they say none.

    >>> fixed_size_of({"_target_": "monai.networks.nets.UNETR", "img_size": 96})
    (96, 96, 96)
    """
    arguments = arguments_of(network_def)
    size = next((arguments[key] for key in _SIZES if key in arguments), None)
    return None if size is None else per_axis(size, spatial_dims_of(network_def), "the size of the input")


def without_a_stage(network_def: NetworkDef, stages: int) -> dict[str, Any] | None:
    """Return the config of a network with one stage fewer, ``None`` where its class takes none: found by trying.

    Args:
        network_def: the network's MONAI config, with references resolved.
        stages: number of its stages; lists of so many entries, or of one fewer, lose their last one.

    >>> unet = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    >>> without_a_stage({**unet, "channels": [4, 8, 16], "strides": [2, 2]}, 3)["channels"]
    [4, 8]
    >>> without_a_stage({"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2}, 6) is None
    True
    """
    lists = {name: list(value) for name, value in arguments_of(network_def).items() if isinstance(value, (list, tuple))}
    shorter = {
        name: value[:-1]
        for name, value in lists.items()
        if len(value) in (stages - 1, stages) and name not in _SIZES and not any(isinstance(it, str) for it in value)
    }
    fewer = {**network_def, **shorter}
    full, network = _built(network_def), _built(fewer)
    if not shorter or full is None or network is None or _count(network) >= _count(full):
        return None
    shape = _output_shape(network, network_def)
    return fewer if shape is not None and shape == _output_shape(full, network_def) else None


def _input_of(network_def: Mapping[str, Any]) -> torch.Tensor:
    arguments, axes = arguments_of(network_def), spatial_dims_of(network_def)
    lengths = fixed_size_of(network_def) or [128 if axes == 2 else 96] * axes
    channels = arguments.get("in_channels", arguments.get("num_channels", 1))
    return torch.zeros(1, channels if isinstance(channels, int) else 1, *lengths, device="meta")


def check_narrower(network_def: NetworkDef, narrow: NetworkDef, argument: Any) -> None:
    """Refuse an argument as that of the widths if it saves nothing, or changes the shape of what the network answers.

    Args:
        network_def: the network's MONAI config.
        narrow: the same network at the smallest widths.
        argument: name of what is said to hold them, or several names.

    Raises:
        ValueError: with what the argument does instead.
    """
    full, narrowest = _built(network_def), _built(narrow)
    if full is None or narrowest is None or arguments_of(network_def) == arguments_of(narrow):
        return
    shapes = _output_shape(full, network_def), _output_shape(narrowest, network_def)
    does = None
    if _count(narrowest) >= _count(full):
        does = f"leaves {_count(narrowest):,} of {_count(full):,} parameters"
    elif None not in shapes and shapes[0] != shapes[1]:
        does = f"changes the shape of its answer from {shapes[0]} to {shapes[1]}"
    if does:
        raise ValueError(
            f"widths names {argument!r} of {target_of(network_def)}, whose smallest value {does}: name the argument "
            "that holds the channels, or give widths auto."
        )


def _check_channels(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    """Refuse a number of channels that only values would: on meta a transposed convolution takes any."""
    if inputs and inputs[0].shape[1] != module.in_channels:
        raise RuntimeError(f"a transposed convolution takes {module.in_channels} channels, got {inputs[0].shape[1]}.")


def _output_shape(network: torch.nn.Module, network_def: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the shapes of all that a network answers, ``None`` if it cannot run on the meta device."""
    for module in network.modules():
        if isinstance(module, _ConvTransposeNd):
            module.register_forward_pre_hook(_check_channels)
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
