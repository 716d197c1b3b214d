"""A network's MONAI config at a smaller width, and what its widths and its input must divide by."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from monai.networks.layers.utils import split_args
from monai.networks.nets.segresnet_ds import scales_for_resolution

from monai_ccnet.networks.building import NetworkDef, arguments_of, target_of

__all__ = [
    "WIDTHS",
    "StageWidths",
    "Widths",
    "check_input_shape",
    "default_input_shape",
    "divisor_of",
    "narrow",
    "rounded",
    "widths_of",
    "with_widths",
]

PerAxis = int | Sequence[int]


def _group_norm(arguments: NetworkDef) -> int:
    """Return what group normalisation makes every width divide by: its number of groups, 1 without it."""
    norm = arguments.get("norm_name") or arguments.get("norm") or ""
    name, options = split_args(norm)
    return options.get("num_groups", 1) if str(name).lower() == "group" else 1


def _powers_of_2(levels: Callable[[NetworkDef], int]) -> Callable[[NetworkDef], Sequence[int]]:
    return lambda arguments: [2**level for level in range(levels(arguments))]


def _halving(argument: str) -> Callable[[NetworkDef], Sequence[int]]:
    return _powers_of_2(lambda arguments: len(arguments[argument]))


@dataclass(frozen=True)
class Widths:
    """Where a network holds its widths, and what limits them and the input.

    Attributes:
        argument: the argument that holds the widths: a list with one a stage, or one number from which all stages
            follow. Several arguments, each one number, if the network takes them all; they then narrow together.
        scales: of the network's arguments, the subsampling of the input at which each stage works, one number or one
            an axis. For each width in a list; for a width that is one number, each stage that follows from it.
        multiple: of the arguments, what each width must divide by: one number, or one a width. Without it, the number
            of groups of a group normalisation in the argument ``norm`` or ``norm_name``.
        least: the smallest width at which the network can be built.
        divisor: of the arguments, what the input must divide by: one number, or one an axis. Without it, all scales.
        input_size: of the arguments, the one size of input that the network takes, if there is only one.
        in_use: of the arguments, the widths that the network uses where these are not just what the argument holds.
    """

    argument: str | tuple[str, ...]
    scales: Callable[[NetworkDef], Sequence[PerAxis]]
    multiple: Callable[[NetworkDef], int | Sequence[int]] = _group_norm
    least: int = 1
    divisor: Callable[[NetworkDef], PerAxis] | None = None
    input_size: Callable[[NetworkDef], PerAxis] | None = None
    in_use: Callable[[NetworkDef], Sequence[int]] | None = None


def _unet_scales(arguments: NetworkDef) -> Sequence[PerAxis]:
    """MONAI's UNet subsamples as it enters a stage, and not before its last."""
    strides = arguments["strides"][: len(arguments["channels"]) - 1]
    return _cumulated(strides)[1:] + _cumulated(strides)[-1:]


def _cumulated(strides: Sequence[PerAxis]) -> list[PerAxis]:
    """Return the scales before the first and after each of the strides, whole numbers or one an axis."""
    scales = [np.array(1)]
    for stride in strides:
        scales.append(scales[-1] * np.array(stride))
    return [scale.tolist() for scale in scales]


def _segresnet_ds_scales(arguments: NetworkDef) -> Sequence[PerAxis]:
    levels, resolution = len(arguments["blocks_down"]), arguments["resolution"]
    strides = scales_for_resolution(resolution, levels) if resolution else [2] * levels
    return _cumulated(strides[: levels - 1])


def _segresnet_groups(arguments: NetworkDef) -> int:
    """Groups are given in ``norm``, or in two older arguments that come before it."""
    return arguments["num_groups"] if arguments["norm_name"] else _group_norm({"norm": arguments["norm"]})


def _swin_multiple(arguments: NetworkDef) -> int:
    """MONAI asks for a multiple of 12; and each stage, twice as wide as the one before, has whole heads."""
    heads = [count // math.gcd(count, 2**stage) for stage, count in enumerate(arguments["num_heads"])]
    return math.lcm(12, _group_norm(arguments), *heads)


def _dynunet_filters(arguments: NetworkDef) -> Sequence[int]:
    """Return the filters that DynUNet takes if none are given, or of those given the ones it uses."""
    widest = 320 if arguments["spatial_dims"] == 3 else 512
    filters = arguments["filters"] or [min(2 ** (5 + stage), widest) for stage in range(len(arguments["strides"]))]
    return filters[: len(arguments["strides"])]


def _flexible_unet_divisor(arguments: NetworkDef) -> int:
    """MONAI pads what comes one short; a ResNet's odd sizes come one too large, and no padding helps there."""
    padded = arguments["is_pad"] and str(arguments["backbone"]).startswith("efficientnet")
    return 2 if padded else 2 ** len(arguments["decoder_channels"])


def _any_size(arguments: NetworkDef) -> int:
    return 1


# By class name; one entry makes a network of one's own known.
WIDTHS: dict[str, Widths] = {
    "PlainUNet": Widths("channels", _halving("channels")),
    "CUMedVision": Widths("channels", _halving("channels")),
    "UCUNet": Widths("channels", _halving("channels")),
    "SqueezeUNet": Widths("channels", _halving("channels")),
    "UNet": Widths("channels", _unet_scales),
    "AttentionUnet": Widths(
        "channels", lambda arguments: _cumulated(arguments["strides"][: len(arguments["channels"]) - 1]), least=2
    ),
    "BasicUNet": Widths("features", lambda arguments: (1, 2, 4, 8, 16, 1), least=2, divisor=_any_size),
    "BasicUNetPlusPlus": Widths("features", lambda arguments: (1, 2, 4, 8, 16, 1), least=2, divisor=_any_size),
    "DynUNet": Widths("filters", lambda arguments: _cumulated(arguments["strides"])[1:], in_use=_dynunet_filters),
    "SegResNet": Widths("init_filters", _halving("blocks_down"), multiple=_segresnet_groups),
    "SegResNetDS": Widths("init_filters", _segresnet_ds_scales),
    "MedNeXt": Widths("init_filters", _powers_of_2(lambda arguments: len(arguments["blocks_down"]) + 1)),
    "SwinUNETR": Widths("feature_size", _powers_of_2(lambda arguments: 6), multiple=_swin_multiple),
    # The heads stay, and become narrower: a head more or less would be a step of 64 of 768.
    "UNETR": Widths(
        ("feature_size", "hidden_size", "mlp_dim"),
        _powers_of_2(lambda arguments: 5),
        multiple=lambda arguments: (_group_norm(arguments), arguments["num_heads"], 1),
        input_size=lambda arguments: arguments["img_size"],
    ),
    # The backbone stays as it is.
    "FlexibleUNet": Widths(
        "decoder_channels",
        lambda arguments: [2**stage for stage in range(len(arguments["decoder_channels"]))][::-1],
        least=2,
        divisor=_flexible_unet_divisor,
    ),
}


class StageWidths(NamedTuple):
    """The widths of one network.

    Attributes:
        argument: the argument that holds them, or the arguments.
        widths: in channels, one a stage, or one for each argument that is one number.
        scales: the subsampling of the input at which each stage works, by its largest axis.
        multiples: what each width must divide by.
        least: the smallest width at which the network can be built.
        layerwise: whether each stage has a width of its own.
    """

    argument: str | tuple[str, ...]
    widths: tuple[int, ...]
    scales: tuple[int, ...]
    multiples: tuple[int, ...]
    least: int
    layerwise: bool

    def nearest(self, multipliers: Sequence[float], *, up: bool = False) -> tuple[int, ...]:
        """Return each width times its multiplier, to the nearest width that it can have, or to the next one up."""
        return tuple(
            rounded(width * value, multiple, self.least, up=up)
            for width, value, multiple in zip(self.widths, multipliers, self.multiples, strict=True)
        )


def narrow(network_def: NetworkDef, multipliers: float | Sequence[float]) -> dict[str, Any]:
    """Return the config of a narrower network: each width times its multiplier, to the nearest that it can have.

    That is the nearest whole number of channels, or the nearest multiple of what the network's table entry names, such
    as the groups of a group normalisation. A network with one width for all of its stages (SegResNet, SegResNetDS,
    MedNeXt, SwinUNETR) takes one multiplier. UNETR's ``feature_size``, ``hidden_size`` and ``mlp_dim`` narrow together;
    it keeps its number of heads, so that each attends over fewer numbers.

    Args:
        network_def: the network's MONAI config, ``{"_target_": ..., ...}``, with references resolved.
        multipliers: one for all widths, or one a width, in (0, 1]; at least one channel always remains.

    Raises:
        ValueError: for a multiplier out of range, a wrong number of them, or a network that is not in :data:`WIDTHS`.

    >>> narrow({"_target_": "PlainUNet", "channels": [64, 128, 256]}, 0.5)["channels"]
    [32, 64, 128]
    >>> narrow({"_target_": "monai.networks.nets.SegResNet", "init_filters": 32}, 0.3)["init_filters"]
    8
    """
    stages = widths_of(network_def)
    number = len(stages.widths)
    values = [float(multipliers)] * number if isinstance(multipliers, (int, float)) else list(multipliers)
    if len(values) != number and not stages.layerwise:
        raise ValueError(
            f"{target_of(network_def)} narrows as a whole: its stages follow from {stages.argument!r}, so it takes one "
            f"multiplier, got {len(values)}. Give one number, and plan it with compress(..., layerwise=False)."
        )
    if len(values) != number:
        raise ValueError(f"{number} stages need one multiplier or {number}, got {len(values)}.")
    if not all(0 < value <= 1 for value in values):
        raise ValueError(f"multipliers must lie in (0, 1], got {values}.")
    return with_widths(network_def, stages.nearest(values))


def with_widths(network_def: NetworkDef, widths: Sequence[int]) -> dict[str, Any]:
    """Return the config with other widths, in the order in which :func:`widths_of` gives them."""
    argument = widths_of(network_def).argument
    changed = copy.deepcopy(dict(network_def))
    if isinstance(argument, str) and isinstance(_raw_widths(network_def), Sequence):
        changed[argument] = list(widths)
    else:
        names = (argument,) if isinstance(argument, str) else argument
        changed.update(zip(names, widths, strict=True))
    return changed


def rounded(width: float, multiple: int = 1, least: int = 1, *, up: bool = False) -> int:
    """Return the nearest width that divides by ``multiple`` and is at least ``least``; halves round up.

    With ``up`` it is the next one that is not narrower.
    """
    count = math.ceil(width / multiple - 1e-9) if up else math.floor(width / multiple + 0.5)
    return multiple * max(count, math.ceil(least / multiple))


def widths_of(network_def: NetworkDef) -> StageWidths:
    """Return the widths of a network, the scales at which its stages work, and what limits the widths.

    >>> widths_of({"_target_": "PlainUNet", "channels": [64, 128, 256]})[:3]
    ('channels', (64, 128, 256), (1, 2, 4))
    """
    entry, arguments = _entry_of(network_def), arguments_of(network_def)
    raw = _raw_widths(network_def)
    values = tuple(raw) if isinstance(raw, Sequence) and not isinstance(raw, str) else (raw,)
    if not values or not all(isinstance(value, int) and value >= 1 for value in values):
        raise ValueError(f"{entry.argument!r} of {target_of(network_def)} must be whole numbers from 1, got {raw!r}.")
    multiple = entry.multiple(arguments)
    multiples = (multiple,) * len(values) if isinstance(multiple, int) else tuple(multiple)
    if any(value % by for value, by in zip(values, multiples, strict=True)):
        raise ValueError(
            f"{entry.argument!r} of {target_of(network_def)} must divide by {multiple} (its groups or heads), "
            f"got {raw!r}."
        )
    scales = tuple(scale if isinstance(scale, int) else max(scale) for scale in entry.scales(arguments))
    layerwise = isinstance(entry.argument, str) and isinstance(raw, Sequence)
    if layerwise and len(scales) != len(values):
        raise ValueError(
            f"{target_of(network_def)} has {len(values)} widths in {entry.argument!r}, but {len(scales)} stages by its "
            "other arguments: give one width a stage."
        )
    return StageWidths(entry.argument, values, scales, multiples, entry.least, layerwise)


def divisor_of(network_def: NetworkDef) -> tuple[int, ...]:
    """Return what each spatial axis of a network's input must divide by; 1 where any size will do.

    >>> divisor_of({"_target_": "monai.networks.nets.SwinUNETR", "in_channels": 1, "out_channels": 2})
    (32, 32, 32)
    """
    entry, arguments = _entry_of(network_def), arguments_of(network_def)
    axes = arguments.get("spatial_dims", 2)
    limits = [entry.divisor(arguments)] if entry.divisor is not None else entry.scales(arguments)
    return tuple(math.lcm(*values) for values in zip(*(_per_axis(limit, axes) for limit in limits), strict=True))


def check_input_shape(network_def: NetworkDef, input_shape: Sequence[int]) -> None:
    """Refuse an input that a network cannot take.

    Args:
        network_def: the config of a network in :data:`WIDTHS`.
        input_shape: ``(B, C, H, W[, D])``.

    Raises:
        ValueError: if the number of axes or channels is another than the network's, or a spatial axis does not divide
            by :func:`divisor_of`.
    """
    entry, arguments, divisor = _entry_of(network_def), arguments_of(network_def), divisor_of(network_def)
    name, size = target_of(network_def), tuple(input_shape[2:])
    channels = arguments.get("in_channels", input_shape[1] if len(input_shape) > 1 else None)
    if len(size) != len(divisor) or input_shape[1] != channels:
        raise ValueError(
            f"{name} takes an input of shape (B, {channels}, {', '.join('HWD'[: len(divisor)])}), "
            f"got {tuple(input_shape)}."
        )
    if any(length % by for length, by in zip(size, divisor, strict=True)):
        words = str(divisor[0]) if len(set(divisor)) == 1 else f"{divisor}"
        raise ValueError(
            f"each spatial axis must divide by {words} for {name}, got {size}: pad the images, for instance with "
            f"DivisiblePadd(keys, k={words}), or use sliding windows."
        )
    if entry.input_size is not None and size != (only := _per_axis(entry.input_size(arguments), len(size))):
        raise ValueError(f"{name} is made for inputs of {only} alone, got {size}: use sliding windows of that size.")


def default_input_shape(network_def: NetworkDef) -> tuple[int, ...]:
    """Return the shape of one image that a network takes: 128 x 128 or 64 x 64 x 64, or the next size that divides.

    >>> default_input_shape({"_target_": "monai.networks.nets.UNETR", "in_channels": 1, "img_size": 96})
    (1, 1, 96, 96, 96)
    """
    entry, arguments, divisor = _entry_of(network_def), arguments_of(network_def), divisor_of(network_def)
    channels = arguments.get("in_channels", 1)
    if entry.input_size is not None:
        return (1, channels, *_per_axis(entry.input_size(arguments), len(divisor)))
    size = 64 if len(divisor) == 3 else 128
    return (1, channels, *(by * math.ceil(size / by) for by in divisor))


def _per_axis(value: PerAxis, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _raw_widths(network_def: NetworkDef) -> Any:
    entry, arguments = _entry_of(network_def), arguments_of(network_def)
    if entry.in_use is not None:
        return entry.in_use(arguments)
    if isinstance(entry.argument, tuple):
        return tuple(arguments.get(name) for name in entry.argument)
    return arguments.get(entry.argument)


def _entry_of(network_def: NetworkDef) -> Widths:
    target = target_of(network_def)
    name = target.rsplit(".", 1)[-1]
    if name not in WIDTHS:
        raise ValueError(
            f"it is not known where {target!r} holds its widths; known networks are {sorted(WIDTHS)}. Add yours with "
            f"monai_ccnet.networks.WIDTHS[{name!r}] = Widths('channels', lambda arguments: [1, 2, 4, 8, 16])."
        )
    return WIDTHS[name]
