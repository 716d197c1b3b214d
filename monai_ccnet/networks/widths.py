"""Where each network's config holds its widths, and the divisors of its widths and of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from monai.networks.layers.utils import split_args
from monai.networks.nets.segresnet_ds import scales_for_resolution

from monai_ccnet.networks.building import NetworkDef, arguments_of, class_of, spatial_dims_of, target_of
from monai_ccnet.networks.scaling import inner_def, is_at_scale, scale_of
from monai_ccnet.scales import Scale, per_axis

__all__ = [
    "WIDTHS",
    "Widths",
    "check_input_shape",
    "check_shape",
    "default_input_shape",
    "divisor_of",
    "known_widths",
    "tied_values",
    "widths_entry",
]

PerAxis = int | Sequence[int]
Arguments = Mapping[str, Any]


def _group_norm(arguments: Arguments) -> int:
    """Return the divisor of every width that group normalisation requires: its number of groups, 1 without it."""
    norm = arguments.get("norm_name") or arguments.get("norm") or ""
    name, options = split_args(norm)
    return options.get("num_groups", 1) if str(name).lower() == "group" else 1


@dataclass(frozen=True)
class Widths:
    """Where a network holds its widths, and what limits them and the input.

    An entry is plain data wherever it can be, so that a bundle's YAML can hold one:
    ``{argument: features, scales: [1, 2, 4, 8], multiple: 4}``. A function is given all arguments of the network.

    Attributes:
        argument: name of the argument that holds the widths: a list with one per stage, or one number from which all
            stages follow. Several names, each of one number, if the network takes them all; they narrow together.
        scales: subsampling factor of the input at which each stage works, as a list of numbers or of one number per
            axis; or the name of an argument with one entry per stage, if each stage halves the resolution. There is one
            factor for each width in a list, or for each stage that follows from a single width.
        multiple: divisor of each width: one number, or one per width. By default the number of groups of a group
            normalisation in the argument ``norm`` or ``norm_name``.
        least: the smallest width at which the network can be built.
        divisor: divisor of the input's spatial axes: one number, or one per axis. By default all scales.
        input_size: name of the argument that holds the only size of input that the network takes, if there is one.
        in_use: function that returns the widths in use, if they differ from the value of the argument.
        tied: other arguments that follow from the width, by name: how many times as wide each is, as one number or one
            for each entry of a list, such as ``{embed_dim: [8, 16, 32]}``.

    Raises:
        TypeError: if an attribute has the wrong type.
        ValueError: if ``tied`` holds what is no whole number from 1.
    """

    argument: str | tuple[str, ...]
    scales: str | Sequence[PerAxis] | Callable[[Arguments], Sequence[PerAxis]]
    multiple: int | Sequence[int] | Callable[[Arguments], int | Sequence[int]] = _group_norm
    least: int = 1
    divisor: PerAxis | Callable[[Arguments], PerAxis] | None = None
    input_size: str | None = None
    in_use: Callable[[Arguments], Sequence[int]] | None = None
    tied: Mapping[str, int | Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.argument, str):
            object.__setattr__(self, "argument", tuple(self.argument))
        if not (isinstance(self.scales, (str, Sequence)) or callable(self.scales)):
            raise TypeError(f"scales must be a list, the name of an argument or a function, got {self.scales!r}.")
        if not isinstance(self.tied, Mapping) or (self.tied and not isinstance(self.argument, str)):
            raise TypeError(f"tied must be {{argument: times}}, beside one argument, got {self.tied!r}.")
        for times in self.tied.values():
            numbers = list(times) if isinstance(times, (list, tuple)) else [times]
            if not numbers or not all(isinstance(each, int) and each >= 1 for each in numbers):
                raise ValueError(
                    f"tied says how many times as wide an argument is, as whole numbers from 1, got {self.tied!r}."
                )

    def scales_of(self, arguments: Arguments) -> Sequence[PerAxis]:
        """Return the scale of each stage of a network with these arguments."""
        if isinstance(self.scales, str):
            return [2**stage for stage in range(len(arguments[self.scales]))]
        return self.scales(arguments) if callable(self.scales) else self.scales

    def widths_of(self, arguments: Arguments) -> Any:
        """Return the value of the argument, or of each of the arguments."""
        if self.in_use is not None:
            return self.in_use(arguments)
        if isinstance(self.argument, tuple):
            return tuple(arguments.get(name) for name in self.argument)
        return arguments.get(self.argument)

    def multiples_of(self, arguments: Arguments) -> int | Sequence[int]:
        """Return the divisor of each width."""
        return self.multiple(arguments) if callable(self.multiple) else self.multiple

    def divisors_of(self, arguments: Arguments) -> Sequence[PerAxis]:
        """Return all divisors of the input's axes."""
        if self.divisor is None:
            return self.scales_of(arguments)
        return [self.divisor(arguments) if callable(self.divisor) else self.divisor]


def tied_values(tied: Mapping[str, int | Sequence[int]], width: int | Sequence[int]) -> dict[str, Any]:
    """Return the arguments that follow from the width.

    Args:
        tied: how many times as wide as it each is, as in :class:`Widths`.
        width: the width, or a list of widths.

    Raises:
        ValueError: if a list of widths has another number of entries than the arguments that follow from it.

    >>> tied_values({"embed_dim": [8, 16, 32], "hidden": 4}, 16)
    {'embed_dim': [128, 256, 512], 'hidden': 64}
    >>> tied_values({"skips": 2}, [4, 8])
    {'skips': [8, 16]}
    """
    return {name: _product(name, times, width) for name, times in tied.items()}


def _product(name: str, times: int | Sequence[int], width: int | Sequence[int]) -> Any:
    if isinstance(times, int) and isinstance(width, int):
        return times * width
    numbers = [width] * len(times) if isinstance(width, int) and not isinstance(times, int) else list(width)  # type: ignore
    each = [times] * len(numbers) if isinstance(times, int) else list(times)
    if len(each) != len(numbers):
        raise ValueError(f"tied needs one number for each of {len(numbers)} widths, got {each} for {name!r}.")
    return [one * other for one, other in zip(each, numbers, strict=True)]


def _unet_scales(arguments: Arguments) -> Sequence[PerAxis]:
    """Return the scales of MONAI's UNet, which subsamples on entering each stage but the last."""
    strides = arguments["strides"][: len(arguments["channels"]) - 1]
    return _cumulated(strides)[1:] + _cumulated(strides)[-1:]


def _attention_unet_scales(arguments: Arguments) -> Sequence[PerAxis]:
    return _cumulated(arguments["strides"][: len(arguments["channels"]) - 1])


def _cumulated(strides: Sequence[PerAxis]) -> list[PerAxis]:
    """Return the scales before the first and after each of the strides, whole numbers or one per axis."""
    scales = [np.array(1)]
    for stride in strides:
        scales.append(scales[-1] * np.array(stride))
    return [scale.tolist() for scale in scales]


def _segresnet_ds_scales(arguments: Arguments) -> Sequence[PerAxis]:
    levels, resolution = len(arguments["blocks_down"]), arguments["resolution"]
    strides = scales_for_resolution(resolution, levels) if resolution else [2] * levels
    return _cumulated(strides[: levels - 1])


def _segresnet_groups(arguments: Arguments) -> int:
    """Groups are given in ``norm``, or in two older arguments that come before it."""
    return arguments["num_groups"] if arguments["norm_name"] else _group_norm({"norm": arguments["norm"]})


def _swin_multiple(arguments: Arguments) -> int:
    """Return a multiple of 12, which MONAI requires, that also splits among the heads of every stage."""
    heads = [count // math.gcd(count, 2**stage) for stage, count in enumerate(arguments["num_heads"])]
    return math.lcm(12, _group_norm(arguments), *heads)


def _dynunet_filters(arguments: Arguments) -> Sequence[int]:
    """Return the filters that DynUNet takes if none are given, or of those given the ones it uses."""
    widest = 320 if arguments["spatial_dims"] == 3 else 512
    filters = arguments["filters"] or [min(2 ** (5 + stage), widest) for stage in range(len(arguments["strides"]))]
    return filters[: len(arguments["strides"])]


def _flexible_unet_divisor(arguments: Arguments) -> int:
    """Return the divisor; MONAI pads EfficientNet's odd sizes, but cannot crop a ResNet's, one pixel too large."""
    padded = arguments["is_pad"] and str(arguments.get("backbone")).startswith("efficientnet")
    return 2 if padded else 2 ** len(arguments["decoder_channels"])


# Entries by class name; add an entry to support another network.
WIDTHS: dict[str, Widths] = {
    "PlainUNet": Widths("channels", "channels"),
    "CUMedVision": Widths("channels", "channels"),
    "UCUNet": Widths("channels", "channels"),
    "SqueezeUNet": Widths("channels", "channels"),
    "UNet": Widths("channels", _unet_scales),
    "AttentionUnet": Widths("channels", _attention_unet_scales, least=2),
    "BasicUNet": Widths("features", (1, 2, 4, 8, 16, 1), least=2, divisor=1),
    "BasicUNetPlusPlus": Widths("features", (1, 2, 4, 8, 16, 1), least=2, divisor=1),
    "DynUNet": Widths("filters", lambda given: _cumulated(given["strides"])[1:], in_use=_dynunet_filters),
    "SegResNet": Widths("init_filters", "blocks_down", multiple=_segresnet_groups),
    "SegResNetDS": Widths("init_filters", _segresnet_ds_scales),
    "MedNeXt": Widths("init_filters", lambda given: [2**level for level in range(len(given["blocks_down"]) + 1)]),
    "SwinUNETR": Widths("feature_size", (1, 2, 4, 8, 16, 32), multiple=_swin_multiple),
    # The number of heads stays and each becomes narrower: removing heads would change the width in steps of 64 of 768.
    "UNETR": Widths(
        ("feature_size", "hidden_size", "mlp_dim"),
        (1, 2, 4, 8, 16),
        multiple=lambda given: (_group_norm(given), given["num_heads"], 1),
        input_size="img_size",
    ),
    "PlannedByNNUNet": Widths("features_per_stage", lambda given: _cumulated(given["strides"])[1:], least=2),
    # The backbone stays as it is.
    "FlexibleUNet": Widths(
        "decoder_channels",
        lambda given: [2**stage for stage in range(len(given["decoder_channels"]))][::-1],
        least=2,
        divisor=_flexible_unet_divisor,
    ),
}


_BUILT_IN = frozenset(WIDTHS)  # which are of MONAI's classes and this package's; what is added later is of any


def known_widths(network_def: NetworkDef) -> Widths | None:
    """Return the entry of :data:`WIDTHS` for a network, ``None`` if there is none.

    A name is resolved to its class, so that aliases count. A subclass has its parent's entry, and a class of another
    package is not taken for MONAI's of the same name.
    """
    target = target_of(inner_def(network_def))
    try:
        lineage = class_of(target).__mro__
    except ValueError:  # such as a class that cannot be imported here
        return WIDTHS.get(target.rsplit(".", 1)[-1])
    for each in lineage:
        ours = each.__module__.split(".")[0] in ("monai", "monai_ccnet")
        if each.__name__ in WIDTHS and (ours or each.__name__ not in _BUILT_IN):
            return WIDTHS[each.__name__]
    return None


def widths_entry(network_def: NetworkDef) -> Widths:
    """Return the entry of :data:`WIDTHS` for a network.

    Raises:
        ValueError: if there is none; the message says how to add one.
    """
    target = target_of(inner_def(network_def))
    name = target.rsplit(".", 1)[-1]
    if (entry := known_widths(network_def)) is None:
        raise ValueError(
            f"it is not known where {target!r} holds its widths; known networks are {sorted(WIDTHS)}. Find out with "
            "widths: auto, or say it in a config as widths: {argument: channels, scales: [1, 2, 4, 8, 16]}, in Python "
            f"with monai_ccnet.networks.WIDTHS[{name!r}] = Widths('channels', [1, 2, 4, 8, 16])."
        )
    return entry


def divisor_of(network_def: NetworkDef, entry: Widths | None = None) -> tuple[int, ...]:
    """Return the divisor of each spatial axis of a network's input; 1 if any size is allowed.

    Args:
        network_def: the network's MONAI config; of :class:`~monai_ccnet.networks.AtScale` the inner network counts.
        entry: entry for the network, needed if it is not in :data:`WIDTHS`.

    >>> divisor_of({"_target_": "monai.networks.nets.SwinUNETR", "in_channels": 1, "out_channels": 2})
    (32, 32, 32)
    """
    network_def = inner_def(network_def)
    arguments = arguments_of(network_def)
    axes = spatial_dims_of(network_def)
    limits = (entry or widths_entry(network_def)).divisors_of(arguments)
    return tuple(math.lcm(*values) for values in zip(*(_per_axis(limit, axes) for limit in limits), strict=True))


def check_input_shape(network_def: NetworkDef, input_shape: Sequence[int], entry: Widths | None = None) -> None:
    """Raise an error for an input that a network cannot take.

    Args:
        network_def: the config of a network.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
        entry: entry for the network, needed if it is not in :data:`WIDTHS`.

    Raises:
        ValueError: if the number of axes or channels differs from the network's, or a spatial axis is not divisible by
            :func:`divisor_of`.
    """
    entry, scale = entry or widths_entry(network_def), scale_of(network_def)
    pads, network_def = is_at_scale(network_def), inner_def(network_def)  # AtScale pads at scale 1 too
    arguments, divisor = arguments_of(network_def), divisor_of(network_def, entry)
    only = None if entry.input_size is None else _per_axis(arguments[entry.input_size], len(divisor))
    divisor = (1,) * len(divisor) if pads else divisor
    check_shape(target_of(network_def), arguments.get("in_channels"), divisor, only, input_shape, scale)


def check_shape(
    name: str,
    channels: int | None,
    divisor: Sequence[int],
    only_size: Sequence[int] | None,
    input_shape: Sequence[int],
    scale: Scale = 1,
) -> None:
    """Raise an error for an input that a network cannot take, given what is known of the network.

    Args:
        name: name of the network, for the message.
        channels: number of channels of the input; ``None`` if any number is allowed.
        divisor: divisor of each spatial axis.
        only_size: the one size of input that the network takes; ``None`` if any size is allowed that is divisible.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
        scale: scale at which the network works; at any but 1 it pads its input to what it needs.

    Raises:
        ValueError: as :func:`check_input_shape`.
    """
    shape, size = tuple(input_shape), tuple(input_shape[2:])
    if scale != 1:
        if only_size is not None:
            only_size = [length * by for length, by in zip(only_size, per_axis(scale, len(divisor)), strict=True)]
        divisor = (1,) * len(divisor)
    if len(size) != len(divisor) or channels not in (None, shape[1]):
        axes = ", ".join("HWD"[: len(divisor)])
        raise ValueError(f"{name} takes an input of shape (B, {channels or 'C'}, {axes}), got {shape}.")
    if any(length % by for length, by in zip(size, divisor, strict=True)):
        words = str(divisor[0]) if len(set(divisor)) == 1 else f"{tuple(divisor)}"
        raise ValueError(
            f"each spatial axis must be divisible by {words} for {name}, got {size}: give such a patch_size, or pad "
            f"the images, for instance with DivisiblePadd(keys, k={words})."
        )
    if only_size is not None and size != tuple(only_size):
        raise ValueError(
            f"{name} takes inputs of size {tuple(only_size)} only, got {size}: use sliding windows of that size."
        )


def default_input_shape(network_def: NetworkDef, entry: Widths | None = None) -> tuple[int, ...]:
    """Return the shape of one image that a network takes: 128 x 128 or 64 x 64 x 64, or the next size that divides.

    >>> default_input_shape({"_target_": "monai.networks.nets.UNETR", "in_channels": 1, "img_size": 96})
    (1, 1, 96, 96, 96)
    """
    entry, network_def = entry or widths_entry(network_def), inner_def(network_def)
    arguments, divisor = arguments_of(network_def), divisor_of(network_def, entry)
    channels = arguments.get("in_channels", 1)
    if entry.input_size is not None:
        return (1, channels, *_per_axis(arguments[entry.input_size], len(divisor)))
    size = 64 if len(divisor) == 3 else 128
    return (1, channels, *(by * math.ceil(size / by) for by in divisor))


def _per_axis(value: PerAxis, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
