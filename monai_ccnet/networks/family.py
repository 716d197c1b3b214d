"""A network at any width: its stages, their scales and full widths, and its config and sizes at other widths."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_ccnet.files import shown
from monai_ccnet.networks.building import (
    NetworkDef,
    arguments_of,
    build_network,
    network_def_of,
    spatial_dims_of,
    target_of,
    without_fetching,
)
from monai_ccnet.networks.finding import check_narrower, find_widths, fixed_size_of
from monai_ccnet.networks.scaling import AtScale, inner_def, is_at_scale, scale_of, wrapped_def
from monai_ccnet.networks.size import NetworkSize, forward_macs, kernel_weights, network_size
from monai_ccnet.networks.widths import (
    Widths,
    check_shape,
    default_input_shape,
    divisor_of,
    tied_values,
    widths_entry,
)
from monai_ccnet.scales import Scale, as_scale, per_axis
from monai_ccnet.values import Value

__all__ = ["NetworkFamily", "narrow", "rounded"]

Channels = tuple[int, ...]


@dataclass(frozen=True)
class NetworkFamily(Value):
    """A network at any width, created by :meth:`of` or, if it has one width alone, by :meth:`as_it_is`.

    Attributes:
        network_def: the full-size network's MONAI config.
        argument: name of the argument that holds the widths, or names of the arguments.
        channels: full widths in channels, one per stage, or one per argument if each argument is a single number.
        scales: subsampling factor of the input at which each stage works, along its most subsampled axis.
        multiples: divisor of each width: the width must be a multiple of it.
        least: the smallest width at which the network can be built.
        layerwise: whether each stage has a width of its own.
        divisor: divisor of each spatial axis of the input: its length must be a multiple of it.
        input_shape: shape of one image that the network takes, ``(B, C, H, W[, D])``.
        has_fixed_size: whether ``input_shape`` has the only size of image that the network takes.
        scale: factor by which the network averages its input down, one number or one for each axis.
        tied: arguments that follow from the width, as in :class:`~monai_ccnet.networks.Widths`.
    """

    network_def: dict[str, Any]
    argument: str | tuple[str, ...]
    channels: Channels
    scales: tuple[int, ...]
    multiples: tuple[int, ...]
    least: int
    layerwise: bool
    divisor: tuple[int, ...]
    input_shape: tuple[int, ...]
    has_fixed_size: bool = False
    scale: int | tuple[int, ...] = 1
    tied: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_def", dict(self.network_def))
        for name in ("channels", "scales", "multiples", "divisor", "input_shape"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.argument, str):
            object.__setattr__(self, "argument", tuple(self.argument))
        tied = {name: times if isinstance(times, int) else list(times) for name, times in self.tied.items()}
        object.__setattr__(self, "tied", tied)
        lengths = {len(self.channels), len(self.multiples)} | ({len(self.scales)} if self.layerwise else set())
        numbers = (*self.channels, *self.scales, *self.multiples, *self.divisor, *self.input_shape, self.least)
        if lengths != {len(self.channels)} or not all(isinstance(each, int) and each >= 1 for each in numbers):
            raise ValueError(
                "a family has one whole number from 1 for each of its widths, scales and multiples, got "
                f"{shown([self.channels, self.scales, self.multiples, self.divisor, self.input_shape, self.least])}."
            )
        object.__setattr__(self, "scale", as_scale(per_axis(self.scale, len(self.divisor))))
        object.__setattr__(self, "_sizes", {})  # no field: it is neither compared nor written

    @classmethod
    def of(cls, network_def: Any, widths: Widths | Mapping[str, Any] | str | None = None) -> NetworkFamily:
        """Return the family of a network; of :class:`~monai_ccnet.networks.AtScale` that of its inner network.

        Args:
            network_def: the full-size network's MONAI config, ``{"_target_": ..., ...}``, with references resolved.
            widths: location of its widths, needed if it is not in :data:`~monai_ccnet.networks.WIDTHS`; a dictionary
                in a bundle's YAML, or ``"auto"`` for what :func:`~monai_ccnet.networks.find_widths` finds.

        Raises:
            ValueError: if the location of the network's widths is unknown, or its widths are invalid.

        >>> family = NetworkFamily.of({"_target_": "PlainUNet", "channels": [64, 128, 256]})
        >>> family.channels, family.scales, family.at((8, 8, 8))["channels"]
        ((64, 128, 256), (1, 2, 4), [8, 8, 8])
        """
        scale, given, own_divisor = _unscaled(network_def)
        if isinstance(widths, str) and widths != "auto":
            raise ValueError(f"widths must be 'auto' or {{argument: ..., scales: [...]}}, got {shown(widths)}.")
        found = find_widths(given) if isinstance(widths, str) else widths
        entry = Widths(**found) if isinstance(found, Mapping) else found or widths_entry(given)
        network_def = _offline(given)
        arguments, name = arguments_of(network_def), target_of(network_def)
        raw = entry.widths_of(arguments)
        values = tuple(raw) if isinstance(raw, Sequence) and not isinstance(raw, str) else (raw,)
        if not values or not all(isinstance(value, int) and value >= 1 for value in values):
            raise ValueError(f"{entry.argument!r} of {name} must be whole numbers from 1, got {raw!r}.")
        multiple = entry.multiples_of(arguments)
        multiples = (multiple,) * len(values) if isinstance(multiple, int) else tuple(multiple)
        if any(value % by for value, by in zip(values, multiples, strict=True)):
            raise ValueError(
                f"{entry.argument!r} of {name} must be divisible by {multiple} (its groups or heads), got {raw!r}."
            )
        for key, follows in tied_values(entry.tied, raw).items():
            given_value = arguments[key] if isinstance(follows, int) else list(arguments[key])
            if given_value != follows:
                raise ValueError(
                    f"{key!r} of {name} is {given_value!r}, but tied to {entry.argument!r} of {raw!r} it would be "
                    f"{follows!r}: correct tied."
                )
        scales = tuple(scale if isinstance(scale, int) else max(scale) for scale in entry.scales_of(arguments))
        layerwise = isinstance(entry.argument, str) and isinstance(raw, Sequence)
        if layerwise and len(scales) != len(values):
            raise ValueError(
                f"{name} has {len(values)} widths in {entry.argument!r}, but {len(scales)} stages by its other "
                "arguments: give one width per stage."
            )
        family = cls(
            network_def=network_def,
            argument=entry.argument,
            channels=values,
            scales=scales,
            multiples=multiples,
            least=entry.least,
            layerwise=layerwise,
            divisor=own_divisor or divisor_of(network_def, entry),
            input_shape=default_input_shape(network_def, entry),
            has_fixed_size=entry.input_size is not None,
            scale=scale,
            tied=dict(entry.tied),
        )
        if widths is not None and not isinstance(widths, str):
            least = tuple(math.ceil(entry.least / by) * by for by in multiples)
            check_narrower(network_def, family.at(least, scale=1), entry.argument)
        return family

    @classmethod
    def as_it_is(cls, network_def: Any) -> NetworkFamily:
        """Return the family of a network that cannot be narrowed, with no widths: scales alone are open to it.

        Args:
            network_def: the network's MONAI config, with references resolved.

        Raises:
            ValueError: if the divisor of its input cannot be found by trying sizes.
        """
        scale, given, _ = _unscaled(network_def)
        network_def = _offline(given)
        channels, only = arguments_of(network_def).get("in_channels", 1), None
        try:
            divisor = tuple(AtScale(build_network(network_def, device="meta")).divisor)
        except ValueError:
            if (only := fixed_size_of(network_def)) is None:
                raise
            divisor = only  # its input is padded to a multiple of the only size that it takes
        size = 64 if len(divisor) == 3 else 128
        return cls(
            network_def=network_def,
            argument=(),
            channels=(),
            scales=(),
            multiples=(),
            least=1,
            layerwise=False,
            divisor=divisor,
            input_shape=(1, channels, *(only or (by * math.ceil(size / by) for by in divisor))),
            has_fixed_size=only is not None,
            scale=scale,
        )

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return len(self.divisor)

    @property
    def stage_scales(self) -> tuple[int, ...]:
        """Factor by which each stage's resolution is below that of the images, along the most subsampled axis."""
        factor = max(per_axis(self.scale, self.spatial_dims))
        return tuple(factor * scale for scale in self.scales)

    @property
    def coarsest(self) -> tuple[int, ...]:
        """Factor by which the coarsest stage divides each axis: the divisor, or where any size is taken the scale."""
        return tuple(by if by > 1 else max(self.scales, default=1) for by in self.divisor)

    @property
    def smallest(self) -> Channels:
        """The smallest widths that the network can have."""
        return self.nearest([0.0] * len(self.channels))

    def input_shape_at(self, scale: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the shape of one image for a scale: a network that takes one size gets one so many times as large."""
        if not self.has_fixed_size:
            return self.input_shape
        factors = per_axis(self.scale if scale is None else scale, self.spatial_dims)
        return (*self.input_shape[:2], *(length * by for length, by in zip(self.input_shape[2:], factors, strict=True)))

    def at(self, channels: Sequence[int], scale: int | Sequence[int] | None = None) -> dict[str, Any]:
        """Return the config of the network with other widths, within AtScale where the scale is not 1.

        Args:
            channels: widths in channels, in the order of :attr:`channels`.
            scale: factor by which the network averages its input down; :attr:`scale` if ``None``.

        >>> family = NetworkFamily.of({"_target_": "PlainUNet", "channels": [64, 128]})
        >>> family.at((8, 8), scale=4)["scale"], family.at((8, 8), scale=4)["network"]["channels"]
        (4, [8, 8])
        """
        changed = copy.deepcopy(self.network_def)
        names = (self.argument,) if isinstance(self.argument, str) else self.argument
        values = [list(channels)] if self.layerwise else list(channels)
        changed.update(zip(names, values, strict=True))
        if self.tied:
            changed.update(tied_values(self.tied, values[0]))
        return wrapped_def(changed, self.scale if scale is None else scale, self.divisor)

    def nearest(self, multipliers: Sequence[float], *, up: bool = False) -> Channels:
        """Return each width times its multiplier, rounded to the nearest possible width, or ``up`` to the next one."""
        return tuple(
            rounded(width * value, multiple, self.least, up=up)
            for width, value, multiple in zip(self.channels, multipliers, self.multiples, strict=True)
        )

    def multipliers(self, channels: Sequence[int]) -> tuple[float, ...]:
        """Return the share of its full width that each stage keeps."""
        return tuple(width / full for width, full in zip(channels, self.channels, strict=True))

    def width(self, channels: Sequence[int], measure: str = "mean") -> float:
        """Return one number for the width of the network with these channels, at scale 1.

        Args:
            channels: widths in channels, in the order of :attr:`channels`.
            measure: ``"first"``, the first stage's channels; ``"mean"``, the geometric mean of all; ``"macs"`` or
                ``"weights"``, the square root of the multiply-adds of a pixel or of the kernel weights.

        >>> round(NetworkFamily.of({"_target_": "PlainUNet", "channels": [64, 128, 256]}).width((4, 8, 16)), 6)
        8.0
        """
        if measure == "first":
            return float(channels[0])
        if measure == "mean":
            return math.prod(channels) ** (1 / len(channels))
        if measure == "weights":
            return math.sqrt(kernel_weights(self.at(channels, 1)))
        if measure != "macs":
            raise ValueError(f"measure must be first, mean, macs or weights, got {shown(measure)}.")
        return math.sqrt(forward_macs(self.at(channels, 1), self.input_shape) / math.prod(self.input_shape[2:]))

    def check_input_shape(self, input_shape: Sequence[int], scale: int | Sequence[int] | None = None) -> None:
        """Raise an error for an input that the network cannot take.

        Args:
            input_shape: shape of the input, ``(B, C, H, W[, D])``.
            scale: factor by which the network averages it down; :attr:`scale` if ``None``.

        Raises:
            ValueError: as :func:`~monai_ccnet.networks.check_input_shape`.
        """
        channels = arguments_of(self.network_def).get("in_channels")
        only_size = self.input_shape[2:] if self.has_fixed_size else None
        scale = self.scale if scale is None else as_scale(scale)
        check_shape(target_of(self.network_def), channels, self.divisor, only_size, input_shape, scale)

    def size(
        self,
        channels: Sequence[int],
        input_shape: Sequence[int] | None = None,
        scale: int | Sequence[int] | None = None,
    ) -> NetworkSize:
        """Return the exact sizes of the network with other widths; each is counted once.

        Args:
            channels: widths in channels, in the order of :attr:`channels`.
            input_shape: shape of the input, ``(B, C, H, W[, D])``, needed for multiply-adds and activations.
            scale: factor by which the network averages it down; :attr:`scale` if ``None``.

        Raises:
            ValueError: if the network cannot take an input of this shape.
        """
        scale = self.scale if scale is None else as_scale(scale)
        key = tuple(channels), None if input_shape is None else tuple(input_shape), scale
        sizes: dict[tuple, NetworkSize] = self._sizes  # type: ignore[attr-defined]
        if key not in sizes:
            sizes[key] = network_size(self.at(channels, scale), input_shape)
        return sizes[key]


def _unscaled(network_def: Any) -> tuple[Scale, dict[str, Any], tuple[int, ...] | None]:
    """Return the scale at which a network works, the config of the network itself, and the divisor that was given."""
    given = network_def_of(network_def)
    inner = dict(inner_def(given))
    divisor = given.get("divisor") if is_at_scale(given) else None
    if divisor is not None:
        divisor = per_axis(divisor, spatial_dims_of(inner), "divisor")
    return scale_of(given), inner, divisor


def _offline(network_def: Mapping[str, Any]) -> dict[str, Any]:
    offline = without_fetching(network_def)
    if switched_off := [name for name in network_def if network_def[name] != offline[name]]:
        warnings.warn(
            f"{', '.join(switched_off)} of {target_of(network_def)} is switched off: a plan and its networks fetch no "
            "weights. Load them into the network that was planned, if they fit it.",
            stacklevel=3,
        )
    return offline


def narrow(network_def: NetworkDef, multipliers: float | Sequence[float]) -> dict[str, Any]:
    """Return the config of a narrower network: each width times its multiplier, rounded to the nearest possible width.

    That is the nearest whole number of channels, or the nearest multiple of what the network's table entry names, such
    as the groups of a group normalisation. A network with one width for all of its stages (SegResNet, SegResNetDS,
    MedNeXt, SwinUNETR) takes one multiplier. UNETR's ``feature_size``, ``hidden_size`` and ``mlp_dim`` narrow together;
    its number of heads stays, so that each head becomes narrower.

    Args:
        network_def: the network's MONAI config, ``{"_target_": ..., ...}``, with references resolved.
        multipliers: one multiplier for all widths, or one per width, in (0, 1]; at least one channel always remains.

    Raises:
        ValueError: if a multiplier is out of range, their number is wrong, or the network is not in
            :data:`~monai_ccnet.networks.WIDTHS`.

    >>> narrow({"_target_": "PlainUNet", "channels": [64, 128, 256]}, 0.5)["channels"]
    [32, 64, 128]
    >>> narrow({"_target_": "monai.networks.nets.SegResNet", "init_filters": 32}, 0.3)["init_filters"]
    8
    """
    family = NetworkFamily.of(network_def)
    number = len(family.channels)
    values = [float(multipliers)] * number if isinstance(multipliers, (int, float)) else list(multipliers)
    if len(values) != number and not family.layerwise:
        raise ValueError(
            f"{target_of(network_def)} narrows as a whole: its stages follow from {family.argument!r}, so it takes one "
            f"multiplier, got {len(values)}. Give one number, and plan it with compress(..., layerwise=False)."
        )
    if len(values) != number:
        raise ValueError(f"{number} stages need one multiplier or {number}, got {len(values)}.")
    if not all(0 < value <= 1 for value in values):
        raise ValueError(f"multipliers must lie in (0, 1], got {values}.")
    return family.at(family.nearest(values))


def rounded(width: float, multiple: int = 1, least: int = 1, *, up: bool = False) -> int:
    """Return the nearest width that divides by ``multiple`` and is at least ``least``; halves round up.

    With ``up`` it is the next one that is not narrower.
    """
    count = math.ceil(width / multiple - 1e-9) if up else math.floor(width / multiple + 0.5)
    return multiple * max(count, math.ceil(least / multiple))
