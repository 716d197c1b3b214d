"""Building the network of a MONAI config, and recovering the config of a network."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import pydoc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from monai.bundle.config_item import ConfigComponent
from monai.bundle.config_parser import ConfigParser
from torch.overrides import TorchFunctionMode

from monai_ccnet.networks.storage import reads_int8

__all__ = ["NetworkDef", "arguments_of", "build_network", "network_def_of", "target_of"]

NetworkDef = Mapping[str, Any]


def network_def_of(network: Any) -> dict[str, Any]:
    """Return the config of a network given as a dict, or as the callable of ``"_mode_": "callable"`` in a bundle.

    A bundle builds a component as soon as it is referred to. With ``_mode_: callable`` in it, a reference gives the
    class and its resolved arguments instead, and this function turns them back into the config.
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
    """Build the network of a config; it can load weights that were saved at any number of bits.

    Args:
        network_def: the network's MONAI config, with references resolved.
        device: device on which its weights are created; ``"meta"`` creates shapes without values.

    Raises:
        ValueError: if the config holds an expression or a reference, or names a class that is not a network. A config
            read from a file can thus build networks and run nothing else.
    """
    network_class = _class_of(target_of(network_def))
    arguments = {key: value for key, value in network_def.items() if key not in ConfigComponent.non_arg_keys}
    for item in _nested(arguments):
        if isinstance(item, str) and item[:1] in ("$", "@", "%"):
            raise ValueError(
                f"the network's config holds {item!r}: resolve references first, with "
                "ConfigParser.get_parsed_content('network_def', instantiate=False)."
            )
        if isinstance(item, Mapping) and "_target_" in item:
            _class_of(target_of(item))
    with contextlib.ExitStack() as stack:
        if device is not None:
            stack.enter_context(torch.device(device))
        if shapes_only := str(device) == "meta":
            stack.enter_context(_ShapesOnly())
        resolved = ConfigParser({"arguments": copy.deepcopy(arguments)}).get_parsed_content("arguments")
        network = network_class(**resolved)
    return reads_int8(network.to("meta") if shapes_only else network)


def arguments_of(network_def: NetworkDef) -> dict[str, Any]:
    """Return all arguments of a network: those of its config, and the defaults of the others.

    Asking for an argument that has neither raises a ``ValueError`` that names it.
    """
    return _Arguments({**_defaults_of(target_of(network_def)), **network_def})


class _Arguments(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self['_target_']} needs the argument {name!r}: add it to the network's config.")


def target_of(network_def: Any) -> str:
    """Return the class that a config names; raise a ``ValueError`` if it is not a network's config."""
    if not isinstance(network_def, Mapping) or not isinstance(network_def.get("_target_"), str):
        raise ValueError(f"a network is given by its config, a dict with '_target_'; got {network_def!r}.")
    return network_def["_target_"]


@functools.cache
def _defaults_of(target: str) -> dict[str, Any]:
    parameters = inspect.signature(_class_of(target)).parameters.values()
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

    ``torch.linspace`` stays on the CPU, because some networks read its values while they are built (SwinUNETR: the drop
    rates of its layers). The initialisation of meta tensors is skipped, which saves time.
    """

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FILLS and (filled := args[0] if args else kwargs["tensor"]).is_meta:
            return filled
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


@functools.cache
def _class_of(target: str) -> type[torch.nn.Module]:
    """Return the class of a dotted name or of one of MONAI's short names; it must be a ``torch.nn.Module``."""
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
