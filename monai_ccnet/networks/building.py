"""Building the network of a MONAI config, and recovering the config of a network."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import pydoc
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.bundle.config_item import ConfigComponent
from monai.bundle.config_parser import ConfigParser
from torch.overrides import TorchFunctionMode

from monai_ccnet.files import shown
from monai_ccnet.names import TRUSTED, fetches, nested, registered
from monai_ccnet.networks.int8 import reads_int8
from monai_ccnet.networks.scaling import is_at_scale

__all__ = [
    "NetworkDef",
    "arguments_of",
    "build_network",
    "class_of",
    "network_def_of",
    "register_network",
    "spatial_dims_of",
    "target_of",
    "without_fetching",
]

NetworkDef = Mapping[str, Any]


def network_def_of(network: Any) -> dict[str, Any]:
    """Return the config of a network given as a dict, or as the callable of ``"_mode_": "callable"`` in a bundle.

    A bundle builds a component as soon as it is referred to. With ``_mode_: callable`` in it, a reference gives the
    class and its resolved arguments instead, and this function turns them back into the config. A network within
    :class:`~monai_ccnet.networks.AtScale` needs a ``_mode_`` of its own.
    """
    if isinstance(network, functools.partial):
        config = {"_target_": f"{network.func.__module__}.{network.func.__qualname__}", **network.keywords}
    elif inspect.isclass(network):  # of a config without arguments
        config = {"_target_": f"{network.__module__}.{network.__qualname__}"}
    elif isinstance(network, Mapping):
        config = {key: value for key, value in network.items() if key != "_mode_"}
    else:
        raise TypeError(
            f"a network is given by its config, a dict with '_target_'; got {type(network).__name__}. In a bundle, add "
            "'_mode_': 'callable' to the config that is referred to, so that the reference does not build it."
        )
    if is_at_scale(config) and "network" in config:
        config["network"] = network_def_of(config["network"])
    return config


def build_network(network_def: NetworkDef, device: str | torch.device | None = None) -> torch.nn.Module:
    """Build the network of a config; it can load weights that were saved at any number of bits.

    A network whose class fetches weights by default (EfficientNetBN) fetches them only if its config asks for them, and
    on meta never.

    Args:
        network_def: the network's MONAI config, with references resolved. One that a file holds comes through the
            loaders of this package, which refuse names of other code than MONAI's, torch's and this package's networks.
        device: device on which its weights are created; ``"meta"`` creates shapes without values.

    Raises:
        ValueError: if the config holds an expression or a reference, or names a class that is not a network.
    """
    target_of(network_def)
    for item in nested({key: value for key, value in network_def.items() if key not in ConfigComponent.non_arg_keys}):
        if isinstance(item, str) and item[:1] in ("$", "@", "%"):
            raise ValueError(
                f"the network's config holds {item!r}: resolve references first, with "
                "ConfigParser.get_parsed_content('network_def', instantiate=False)."
            )
    shapes_only = str(device) == "meta"
    offline = without_fetching(network_def, as_asked=not shapes_only)
    network_class = class_of(target_of(offline))
    arguments = {key: value for key, value in offline.items() if key not in ConfigComponent.non_arg_keys}
    with contextlib.ExitStack() as stack:
        if device is not None:
            stack.enter_context(torch.device(device))
        if shapes_only:
            stack.enter_context(_ShapesOnly())
        resolved = ConfigParser({"arguments": copy.deepcopy(arguments)}).get_parsed_content("arguments")
        network = network_class(**resolved)
    return reads_int8(network.to("meta") if shapes_only else network)


def without_fetching(network_def: NetworkDef, as_asked: bool = False) -> dict[str, Any]:
    """Return a config with the arguments that fetch weights switched off, also those that a class switches on itself.

    Args:
        network_def: the network's MONAI config, with references resolved.
        as_asked: whether those that the config itself gives stay.
    """
    defaults = _defaults_of(target_of(network_def))
    asked = {**{name: value for name, value in defaults.items() if fetches(name) and value}, **network_def}
    changed: dict[str, Any] = {}
    for name, value in asked.items():
        stays = as_asked and name in network_def
        if fetches(name) and value and not stays:
            changed[name] = False if isinstance(value, bool) else None
        else:
            changed[name] = _component_without_fetching(value, as_asked)
    return changed


def _component_without_fetching(value: Any, as_asked: bool) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return without_fetching(value, as_asked)
        return {key: _component_without_fetching(each, as_asked) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_component_without_fetching(each, as_asked) for each in value)
    return value


def register_network(network: str | type[torch.nn.Module]) -> str | type[torch.nn.Module]:
    """Let files name a network of your own: plans, records and runs that name it are then loaded and built.

    Args:
        network: the class, also as a decorator, or its dotted name; its code is trusted with whatever it does.

    Returns:
        What was given.
    """
    registered.add(network if isinstance(network, str) else f"{network.__module__}.{network.__qualname__}")
    return network


def arguments_of(network_def: NetworkDef) -> dict[str, Any]:
    """Return all arguments of a network: those of its config, and the defaults of the others.

    Asking for an argument that has neither raises a ``ValueError`` that names it.
    """
    return _Arguments({**_defaults_of(target_of(network_def)), **network_def})


class _Arguments(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self['_target_']} needs the argument {name!r}: add it to the network's config.")


def spatial_dims_of(network_def: NetworkDef) -> int:
    """Return the number of spatial axes of a network: its argument's, or where there is none its convolutions'.

    Args:
        network_def: the network's MONAI config, with references resolved, not one within AtScale.

    Raises:
        ValueError: if it has none.

    >>> spatial_dims_of({"_target_": "monai.networks.nets.HighResNet"})
    3
    """
    arguments = arguments_of(network_def)
    for name in ("spatial_dims", "dimensions"):
        if isinstance(arguments.get(name), int):
            return int(arguments[name])
    network = build_network(network_def, device="meta")
    kinds = {torch.nn.Conv2d: 2, torch.nn.Conv3d: 3, torch.nn.ConvTranspose2d: 2, torch.nn.ConvTranspose3d: 3}
    counts = [kinds[type(module)] for module in network.modules() if type(module) in kinds]
    if not counts:
        raise ValueError(f"{shown(target_of(network_def))} has no convolution that tells its number of spatial axes.")
    return max(set(counts), key=counts.count)


def target_of(network_def: Any) -> str:
    """Return the class that a config names; raise a ``ValueError`` if it is not a network's config."""
    if not isinstance(network_def, Mapping) or not isinstance(network_def.get("_target_"), str):
        raise ValueError(f"a network is given by its config, a dict with '_target_'; got {shown(network_def)}.")
    return network_def["_target_"]


@functools.cache
def _defaults_of(target: str) -> dict[str, Any]:
    parameters = inspect.signature(class_of(target)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


_FILLS = {
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.fill_,
    torch.Tensor.zero_,
    torch.nn.init.kaiming_uniform_,
    torch.nn.init.kaiming_normal_,
}


class _ShapesOnly(TorchFunctionMode):
    """Mode in which a network is built on the meta device.

    ``torch.linspace`` and ``torch.arange`` stay on the CPU, because some networks read their values while they are
    built (SwinUNETR: the drop rates of its layers). The initialisation of meta tensors is skipped, which saves time.
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FILLS and (filled := args[0] if args else kwargs["tensor"]).is_meta:
            return filled
        if func in (torch.linspace, torch.arange):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


@functools.cache
def class_of(target: str) -> type[torch.nn.Module]:
    """Return the class of a dotted name or of one of MONAI's short names; it must be a ``torch.nn.Module``."""
    name = target if "." in target else str(ConfigComponent(config={"_target_": target}).resolve_module_name())
    found = pydoc.locate(name) if "." in name else None  # a name without dots could be any module in the folder
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        remedy = "check the name, and that its package can be imported."
        if inspect.isfunction(found):
            remedy = "it is a function. Name the class that it builds instead, with its arguments."
        raise ValueError(f"{shown(target)} is not a torch.nn.Module: {remedy}")
    if ("." not in target or target.startswith(TRUSTED)) and not f"{found.__module__}.".startswith(TRUSTED):
        raise ValueError(f"{shown(target)} leads to {found.__module__}, which is no place of networks.")
    return found
