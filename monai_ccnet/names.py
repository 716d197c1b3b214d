"""Names of code in a file are text: the networks that a file may name, checked before anything is imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from monai_ccnet.files import shown

__all__ = ["TRUSTED", "check_network_def", "fetches", "named_in", "nested", "registered"]

TRUSTED = ("monai_ccnet.networks.", "monai.networks.", "torch.nn.")  # a file may name any network below these

registered: set[str] = set()  # the networks that the user named besides, by their dotted names

_KEYS = ("_target_", "_desc_")  # of MONAI's keys the two that do nothing else than name
_DOTTED = re.compile(r"(?!_)\w+(\.(?!__)\w+)*")
_FETCHES = re.compile(r"pretrained|url|\bhub|hub_|(?<!use_)checkpoint|^weights(_backbone)?$")


def fetches(name: str) -> bool:
    """Tell whether an argument of a network, by its name, makes it fetch weights from somewhere else.

    >>> fetches("pretrained_url"), fetches("use_checkpoint")
    (True, False)
    """
    return _FETCHES.search(name) is not None


def named_in(config: Any) -> set[str]:
    """Return all names of code in a config: its ``_target_``, and those of the components within."""
    targets = (item.get("_target_") for item in nested(config) if isinstance(item, Mapping))
    return {target for target in targets if isinstance(target, str)}


def check_network_def(network_def: Any, trusted: Collection[str] = ()) -> None:
    """Refuse the config of a network that came from a file, unless it names known networks and nothing else.

    Nothing is imported, evaluated or fetched.

    Args:
        network_def: what a file holds in the place of a network's config.
        trusted: dotted names of networks that it may name besides those below :data:`TRUSTED` and those that
            :func:`~monai_ccnet.networks.register_network` was given.

    Raises:
        ValueError: if it names other code, holds an expression, a reference or an address, changes how MONAI builds it,
            or asks for weights to be fetched.

    >>> check_network_def({"_target_": "os.system"})
    Traceback (most recent call last):
    ...
    ValueError: it names 'os.system' as a network, ...
    """
    if not isinstance(network_def, Mapping) or "_target_" not in network_def:
        raise ValueError(f"its network is {shown(network_def)}: a network's config is a dictionary with '_target_'.")
    for item in nested(network_def):
        if isinstance(item, str) and item[:1] in ("$", "@", "%"):
            raise ValueError(f"its network holds {shown(item)}: expressions and references in files are not evaluated.")
        if isinstance(item, str) and "://" in item:
            raise ValueError(
                f"its network holds the address {shown(item)}: a file may not make a network fetch weights."
            )
        if isinstance(item, Mapping):
            _check_keys(item)
            if "_target_" in item:
                _check_target(item["_target_"], trusted)


def _check_keys(item: Mapping[Any, Any]) -> None:
    for key, value in item.items():
        if str(key).startswith("_") and key not in _KEYS:
            raise ValueError(f"its network holds the key {shown(key)}, by which MONAI does more than build a network.")
        if fetches(str(key)) and value:
            raise ValueError(
                f"its network holds {shown(key)}: {shown(value)}, and a file may not make a network fetch weights."
            )


def _check_target(target: Any, trusted: Collection[str]) -> None:
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        raise ValueError(f"its network has {shown(target)} in the place of a class's name.")
    if "." in target and not (target.startswith(TRUSTED) or target in registered or target in trusted):
        raise ValueError(
            f"it names {shown(target)} as a network, which is not of "
            f"{', '.join(each.rstrip('.') for each in TRUSTED)}; nothing of it was imported. If you trust that code, "
            f"give --trusted \"['{shown(target)[1:-1]}']\", or in Python call "
            "monai_ccnet.networks.register_network with that name."
        )


def nested(item: Any) -> Iterator[Any]:
    """Return all parts of a config, itself among them: keys, values and items at any depth."""
    left = [item]
    while left:
        item = left.pop()
        yield item
        if isinstance(item, Mapping):
            left += [*item, *item.values()]
        elif isinstance(item, (list, tuple)):
            left += item
