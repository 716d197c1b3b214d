"""What every value of this package shares: it is frozen, round-trips through JSON, and is never half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import IO, Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["Value", "atomically", "check_writable", "folder_atomically", "read_json", "write_json"]

ValueType = TypeVar("ValueType", bound="Value")
_TYPE_KEY = "value_type"


@contextlib.contextmanager
def atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` that takes its place when the block ends: a reader finds the old or the new, whole.

    Args:
        path: the file to write; missing parent folders are made.

    Raises:
        OSError: if the folder cannot be written to or the disk is full; ``path`` is then as it was before, as it is
            after any other error in the block.
    """
    path = Path(path)
    with _explained(path, _NOT_WRITABLE):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with _explained(path, _FULL), os.fdopen(descriptor, "wb") as file:
            watched = _Watched(file)
            try:
                yield watched  # type: ignore[misc]
            except Exception as error:
                if watched.error is not None and watched.error is not error:
                    raise watched.error from error  # torch.save hides the first error behind one of its own
                raise
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        with _explained(path, _NOT_WRITABLE):
            os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR} | _FULL


@contextlib.contextmanager
def _explained(path: Path, numbers: set[int]) -> Iterator[None]:
    """Say of an error of the file system which file could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
        remedy = (
            "free some space or raise the quota, and start again; what is done is kept"
            if error.errno in _FULL
            else "choose a folder that you may write to, such as another output_dir"
        )
        raise OSError(error.errno, f"{path} cannot be written, {error.strerror}: {remedy}.") from error


class _Watched:
    """A file that remembers the first error of writing to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def check_writable(folder: str | os.PathLike) -> None:
    """Make a folder if it is not there and write a file to it, so that no work is done whose result has no place.

    Raises:
        OSError: if it cannot be written to; the message names it.
    """
    folder = Path(folder)
    with _explained(folder, _NOT_WRITABLE):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))


@contextlib.contextmanager
def folder_atomically(folder: str | os.PathLike) -> Iterator[Path]:
    """Give an empty folder that takes the name ``folder`` when the block ends: it is whole, or it is not there.

    Args:
        folder: the folder to fill; missing parent folders are made. If another process fills it first, that one stays.

    Raises:
        OSError: if ``folder`` is there already and not empty when the block begins, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and is not an empty folder: choose another one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield beside
        beside.chmod(0o755)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder.is_dir() and any(folder.iterdir())):
                raise
            shutil.rmtree(beside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write ``content`` as JSON, atomically; NaN and infinity, which JSON does not know, are refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomically(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; a broken one is refused with its name."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it and let it be made again.") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


@dataclass(frozen=True)
class Value:
    """A frozen dataclass of plain numbers, strings, dicts, tuples and other values."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready types, with the name of the class beside them."""
        return {_TYPE_KEY: type(self).__name__} | {f.name: _encode(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls: type[ValueType], content: Mapping[str, Any]) -> ValueType:
        """Build the value that :meth:`to_dict` described.

        Raises:
            ValueError: if ``content`` describes another class, lacks or adds a field, or holds one of another kind.
        """
        if not isinstance(content, Mapping) or content.get(_TYPE_KEY) != cls.__name__:
            given = content.get(_TYPE_KEY) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"expected the JSON of a {cls.__name__}, got {given!r}.")
        given_names, names = set(content) - {_TYPE_KEY}, {f.name for f in fields(cls)}
        if given_names != names:
            raise ValueError(
                f"the JSON of a {cls.__name__} lacks {sorted(names - given_names)} "
                f"and has unknown {sorted(given_names - names)}: was it written by another version?"
            )
        try:
            value = cls(**{name: _decode(content[name]) for name in names})
        except (TypeError, AttributeError, LookupError, OverflowError) as error:
            raise ValueError(f"the JSON of a {cls.__name__} holds a field of the wrong kind: {error}") from error
        for name, hint in get_type_hints(cls).items():
            if not _is_of(getattr(value, name), hint):
                given = repr(content[name])
                raise ValueError(
                    f"field {name!r} of a {cls.__name__} must be {getattr(hint, '__name__', hint)}, got "
                    f"{given[:60]}{'...' if len(given) > 60 else ''}."
                )
        return value

    def save(self, path: str | os.PathLike) -> None:
        """Write the value as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls: type[ValueType], path: str | os.PathLike) -> ValueType:
        """Read a value that :meth:`save` wrote; nothing in the file is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not JSON, or not that of this class.
        """
        content = read_json(path)
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _encode(item: Any) -> Any:
    if isinstance(item, Value):
        return item.to_dict()
    if isinstance(item, Mapping):
        return {str(key): _encode(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_encode(value) for value in item]
    return item


def _decode(item: Any) -> Any:
    """Undo :func:`_encode`, but for tuples: each class makes its own of the lists it is given."""
    if isinstance(item, dict) and _TYPE_KEY in item:
        classes = {cls.__name__: cls for cls in _all_subclasses(Value)}
        if item[_TYPE_KEY] not in classes:
            raise ValueError(f"unknown value {item[_TYPE_KEY]!r}; known are {sorted(classes)}.")
        return classes[item[_TYPE_KEY]].from_dict(item)
    if isinstance(item, dict):
        return {key: _decode(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_decode(value) for value in item]
    return item


def _is_of(item: Any, hint: Any) -> bool:
    """Tell whether an item is of the kind that a field is annotated with; a whole number may be written as 2.0."""
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
