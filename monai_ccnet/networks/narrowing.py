"""A network's MONAI config at a smaller width, and the network of a config."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import pydoc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle.config_item import ConfigComponent
from monai.bundle.config_parser import ConfigParser

__all__ = ["WIDTHS", "Widths", "build_network", "narrow", "network_def_of", "rounded", "widths_of"]

NetworkDef = Mapping[str, Any]


@dataclass(frozen=True)
class Widths:
    """Where a network holds its widths.

    Attributes:
        argument: the argument that lists one width a stage.
        scales: of the network's arguments, the subsampling of the input at which each of these stages works.
    """

    argument: str
    scales: Callable[[NetworkDef], Sequence[int]]


def _halving(argument: str) -> Callable[[NetworkDef], Sequence[int]]:
    return lambda arguments: [2**stage for stage in range(len(arguments[argument]))]


def _by_strides(arguments: NetworkDef) -> Sequence[int]:
    """Return the scales of stages between which the strides lie; an anisotropic stride counts by its largest axis."""
    scales = [1]
    for stride in arguments["strides"][: len(arguments["channels"]) - 1]:
        scales.append(scales[-1] * (stride if isinstance(stride, int) else max(stride)))
    return scales


# By class name; one entry makes a network of one's own known.
WIDTHS: dict[str, Widths] = {
    "PlainUNet": Widths("channels", _halving("channels")),
    "CUMedVision": Widths("channels", _halving("channels")),
    "UCUNet": Widths("channels", _halving("channels")),
    "UNet": Widths("channels", _by_strides),
    "AttentionUnet": Widths("channels", _by_strides),
    "BasicUNet": Widths("features", lambda arguments: (1, 2, 4, 8, 16, 1)),
}


def narrow(network_def: NetworkDef, multipliers: float | Sequence[float]) -> dict[str, Any]:
    """Return the config of a narrower network: each width times its multiplier, to the nearest whole channel.

    Args:
        network_def: the network's MONAI config, ``{"_target_": ..., ...}``, with references resolved.
        multipliers: one for all stages, or one a stage, in (0, 1]; at least one channel always remains.

    Raises:
        ValueError: for a multiplier out of range, a wrong number of them, or a network that is not in :data:`WIDTHS`.

    >>> narrow({"_target_": "PlainUNet", "channels": [64, 128, 256]}, 0.5)["channels"]
    [32, 64, 128]
    """
    argument, widths, _ = widths_of(network_def)
    values = [float(multipliers)] * len(widths) if isinstance(multipliers, (int, float)) else list(multipliers)
    if len(values) != len(widths):
        raise ValueError(f"{len(widths)} stages need one multiplier or {len(widths)}, got {len(values)}.")
    if not all(0 < value <= 1 for value in values):
        raise ValueError(f"multipliers must lie in (0, 1], got {values}.")
    narrowed = copy.deepcopy(dict(network_def))
    narrowed[argument] = [rounded(width * value) for width, value in zip(widths, values, strict=True)]
    return narrowed


def rounded(width: float) -> int:
    """Return the nearest whole number of channels, at least 1; halves round up."""
    return max(1, math.floor(width + 0.5))


def widths_of(network_def: NetworkDef) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Return the argument that holds a network's widths, the widths, and the scale at which each stage works.

    >>> widths_of({"_target_": "PlainUNet", "channels": [64, 128, 256]})
    ('channels', (64, 128, 256), (1, 2, 4))
    """
    target = _target_of(network_def)
    name = target.rsplit(".", 1)[-1]
    if name not in WIDTHS:
        raise ValueError(
            f"it is not known where {target!r} holds its widths; known networks are {sorted(WIDTHS)}. Add yours with "
            f"monai_ccnet.networks.WIDTHS[{name!r}] = Widths('channels', lambda arguments: [1, 2, 4, 8, 16])."
        )
    widths = WIDTHS[name]
    arguments = dict(network_def)
    if widths.argument not in arguments:
        arguments[widths.argument] = inspect.signature(_class_of(target)).parameters[widths.argument].default
    values = tuple(arguments[widths.argument])
    if not values or not all(isinstance(value, int) and value >= 1 for value in values):
        raise ValueError(f"{widths.argument!r} of {target} must list whole numbers from 1, got {values}.")
    return widths.argument, values, tuple(widths.scales(arguments))


def network_def_of(network: Any) -> dict[str, Any]:
    """Return the config of a network given as a dict, or as what ``"_mode_": "callable"`` makes of it in a bundle.

    A bundle builds a component as soon as it is referred to. With ``_mode_: callable`` in it, a reference gives the
    class and its resolved arguments instead, and this turns them back into the config.
    """
    if isinstance(network, functools.partial):
        target = f"{network.func.__module__}.{network.func.__qualname__}"
        return {"_target_": target, **network.keywords}
    if isinstance(network, Mapping):
        return {key: value for key, value in network.items() if key != "_mode_"}
    raise TypeError(
        f"a network is given by its config, a dict with '_target_'; got {type(network).__name__}. In a bundle, add "
        "'_mode_': 'callable' to the config that is referred to, so that the reference does not build it."
    )


def build_network(network_def: NetworkDef, device: str | torch.device | None = None) -> torch.nn.Module:
    """Build the network of a config.

    Args:
        network_def: the network's MONAI config, with references resolved.
        device: where its weights are made; ``"meta"`` for a network of which only shapes exist.

    Raises:
        ValueError: if the config holds an expression or a reference, or names anything but a network. A config read
            from a file can thus build networks and run nothing else.
    """
    network_class = _class_of(_target_of(network_def))
    arguments = {key: value for key, value in network_def.items() if key not in ConfigComponent.non_arg_keys}
    for item in _nested(arguments):
        if isinstance(item, str) and item[:1] in ("$", "@", "%"):
            raise ValueError(
                f"the network's config holds {item!r}: resolve references first, with "
                "ConfigParser.get_parsed_content('network_def', instantiate=False)."
            )
        if isinstance(item, Mapping) and "_target_" in item:
            _class_of(_target_of(item))
    with torch.device(device) if device is not None else contextlib.nullcontext():
        return network_class(**ConfigParser({"arguments": copy.deepcopy(arguments)}).get_parsed_content("arguments"))


def _target_of(network_def: Any) -> str:
    if not isinstance(network_def, Mapping) or not isinstance(network_def.get("_target_"), str):
        raise ValueError(f"a network is given by its config, a dict with '_target_'; got {network_def!r}.")
    return network_def["_target_"]


@functools.cache
def _class_of(target: str) -> type[torch.nn.Module]:
    """Return the class of a dotted name or of one of MONAI's short names, which must be a network's or a layer's."""
    found = pydoc.locate(target)
    if found is None:
        found = pydoc.locate(str(ConfigComponent(config={"_target_": target}).resolve_module_name()))
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise ValueError(f"{target!r} is not a torch.nn.Module: check the name, and that its package can be imported.")
    return found


def _nested(item: Any) -> Iterator[Any]:
    yield item
    if isinstance(item, Mapping):
        item = list(item.values())
    if isinstance(item, (list, tuple)):
        for value in item:
            yield from _nested(value)
