"""The base class of this package's values: frozen dataclasses that round-trip through JSON."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from monai_ccnet.files import atomically, parse_json, read_json, shown, write_json
from monai_ccnet.names import check_network_def

__all__ = ["Value", "check_numbers", "check_shape_of", "load_values", "save_values"]

ValueType = TypeVar("ValueType", bound="Value")
_TYPE_KEY = "value_type"
_FORMAT_KEY = "format_version"
_FORMAT = 2  # version of the file format; files of release 0.1 have version 1 and do not state it


def check_numbers(owner: str, least: float, **numbers: float | None) -> None:
    """Refuse numbers of a value that are below a limit or not finite; ``None`` is allowed.

    Raises:
        ValueError: for the first one, by its name.
    """
    for name, number in numbers.items():
        if isinstance(number, (int, float)) and not least <= number < sys.float_info.max:  # types are checked elsewhere
            raise ValueError(f"{name} of {owner} must be a number from {least:g}, got {shown(number)}.")


def check_shape_of(owner: str, shape: Any) -> None:
    """Refuse a shape ``(B, C, H, W[, D])`` that is not of whole numbers from 1.

    Raises:
        ValueError: with what was given.
    """
    if not 3 <= len(shape) <= 5 or not all(isinstance(each, int) and each >= 1 for each in shape):
        raise ValueError(
            f"input_shape of {owner} must hold whole numbers from 1, (B, C, H, W[, D]), got {shown(shape)}."
        )


@dataclass(frozen=True)
class Value:
    """A frozen dataclass of plain numbers, strings, dicts, tuples and other values."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready types, with the name of the class beside them."""
        head = {_TYPE_KEY: type(self).__name__, _FORMAT_KEY: _FORMAT}
        return head | {field.name: _encode(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def _upgraded(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Return content of an earlier format in today's format; a class whose fields changed overrides this."""
        return content

    @classmethod
    def from_dict(cls: type[ValueType], content: Mapping[str, Any], trusted: Collection[str] = ()) -> ValueType:
        """Build the value that :meth:`to_dict` described; nothing that it names is imported.

        Args:
            content: the fields, in JSON types.
            trusted: dotted names of networks that it may name besides MONAI's, torch's and this package's.

        Raises:
            ValueError: if ``content`` describes another class, has a later format, lacks a field or has an unknown
                one, or a field has the wrong type or a value that is not allowed.
        """
        if not isinstance(content, Mapping) or content.get(_TYPE_KEY) != cls.__name__:
            given = content.get(_TYPE_KEY) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"expected the JSON of a {cls.__name__}, got {shown(given)}.")
        written = content.get(_FORMAT_KEY, 1)
        if isinstance(written, bool) or written not in range(1, _FORMAT + 1):
            raise ValueError(
                f"the JSON of a {cls.__name__} has format {shown(written)}, but this release reads formats 1 to "
                f"{_FORMAT}: install the release that wrote it."
            )
        if written < _FORMAT:
            content = _with_new_names(content)
        if "network_def" in content:
            check_network_def(content["network_def"], trusted)
        if written < _FORMAT:
            content = cls._upgraded(dict(content))
        given_names, names = set(content) - {_TYPE_KEY, _FORMAT_KEY}, {field.name for field in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        if not needed <= given_names <= names:
            raise ValueError(
                f"the JSON of a {cls.__name__} lacks {shown(sorted(needed - given_names))} "
                f"and has unknown {shown(sorted(given_names - names))}: it was written by another version."
            )
        try:
            value = cls(**{name: _decode(content[name], trusted) for name in given_names})
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise ValueError(
                f"the JSON of a {cls.__name__} holds a field of the wrong type: {str(error)[:200]}"
            ) from error
        for name, hint in _hints(cls).items():
            if not _is_of(getattr(value, name), hint):
                raise ValueError(
                    f"field {name!r} of a {cls.__name__} must be {getattr(hint, '__name__', hint)}, got "
                    f"{shown(content.get(name))}."
                )
        return value

    def save(self, path: str | os.PathLike) -> None:
        """Write the value as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls: type[ValueType], path: str | os.PathLike, trusted: Collection[str] = ()) -> ValueType:
        """Read a value that :meth:`save` wrote; nothing in the file is executed, and nothing that it names is imported.

        Args:
            path: path of the file.
            trusted: dotted names of networks that it may name besides MONAI's, torch's, this package's, and those that
                :func:`~monai_ccnet.networks.register_network` was given.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not JSON, or not that of this class, or names other code.
        """
        content = read_json(path)
        try:
            return cls.from_dict(content, trusted)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def save_values(path: str | os.PathLike, values: Iterable[Value]) -> None:
    """Write values, of one class or several, as JSON lines, one value per line; atomically."""
    lines = [json.dumps(value.to_dict(), allow_nan=False) + "\n" for value in values]
    with atomically(path) as file:
        file.write("".join(lines).encode())


@overload
def load_values(path: str | os.PathLike, *, trusted: Collection[str] = ()) -> list[Value]: ...
@overload
def load_values(path: str | os.PathLike, kind: type[ValueType], trusted: Collection[str] = ()) -> list[ValueType]: ...
def load_values(path: str | os.PathLike, kind: type[Value] = Value, trusted: Collection[str] = ()) -> list[Any]:
    """Read the values that :func:`save_values` wrote, in their order; nothing in the file is executed.

    Args:
        path: path of a file of JSON lines, one value per line.
        kind: class of the values to return; others are skipped. By default all are returned, and their classes must
            have been imported.
        trusted: dotted names of networks that the file may name, as in :meth:`Value.load`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not the JSON of a value; the message names the file and the line.
    """
    values = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            text = line.decode()
            content = parse_json(text)
            name = content.get(_TYPE_KEY) if isinstance(content, dict) else None
            if not isinstance(name, str):
                raise ValueError(f"expected the JSON of a value, with its {_TYPE_KEY!r}, got {shown(text)}.")
            if kind is Value:
                values.append(_decode(content, trusted))
            elif name == kind.__name__:
                values.append(kind.from_dict(content, trusted))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {_explained(error)}") from error
    return values


def _explained(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):  # its line numbers start at this line
        return f"not valid JSON, {error.msg} at column {error.colno}."
    return str(error)


# Names of modules in files of earlier releases, and their current names.
_NEW_NAMES = {"monai_ccnet.losses.": "monai_ccnet.training.losses."}


def _with_new_names(item: Any) -> Any:
    """Return JSON with the ``_target_`` names of an earlier release replaced by today's."""
    if isinstance(item, Mapping):
        return {key: _new_name(value) if key == "_target_" else _with_new_names(value) for key, value in item.items()}
    return [_with_new_names(each) for each in item] if isinstance(item, list) else item


def _new_name(target: Any) -> Any:
    for old, new in _NEW_NAMES.items():
        if isinstance(target, str) and target.startswith(old):
            return new + target.removeprefix(old)
    return target


def _encode(item: Any) -> Any:
    if isinstance(item, Value):
        return item.to_dict()
    if isinstance(item, Mapping):
        return {str(key): _encode(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_encode(value) for value in item]
    return item


def _decode(item: Any, trusted: Collection[str]) -> Any:
    """Undo :func:`_encode`, but for tuples: each class makes its own of the lists it is given."""
    if isinstance(item, dict) and _TYPE_KEY in item:
        classes = {cls.__name__: cls for cls in _all_subclasses(Value)}
        if not isinstance(item[_TYPE_KEY], str) or item[_TYPE_KEY] not in classes:
            raise ValueError(f"unknown value {shown(item[_TYPE_KEY])}; known are {sorted(classes)}.")
        return classes[item[_TYPE_KEY]].from_dict(item, trusted)
    if isinstance(item, dict):
        return {key: _decode(value, trusted) for key, value in item.items()}
    if isinstance(item, list):
        return [_decode(value, trusted) for value in item]
    return item


_hints: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)


def _is_of(item: Any, hint: Any) -> bool:
    """Tell whether an item has the type that a field is annotated with; a whole number may be written as 2.0."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_of(item, each) for each in inner)
    if hint in (int, float):
        return isinstance(item, (int, float)) and not isinstance(item, bool) and abs(item) < sys.float_info.max
    if not isinstance(item, origin or hint):
        return False
    if isinstance(item, Mapping):
        return not inner or all(_is_of(k, inner[0]) and _is_of(v, inner[1]) for k, v in item.items())
    if origin is tuple and Ellipsis not in inner:
        return len(item) == len(inner) and all(map(_is_of, item, inner))
    return not inner or all(_is_of(each, inner[0]) for each in item)


def _all_subclasses(cls: type[Value]) -> set[type[Value]]:
    return {cls}.union(*(_all_subclasses(sub) for sub in cls.__subclasses__()))
