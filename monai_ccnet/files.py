"""Atomic writing of files, JSON and tables: a file is never left half-written."""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = [
    "HALF_WRITTEN",
    "TRACEBACK",
    "atomically",
    "check_writable",
    "csv_rows",
    "file_digest",
    "files_of",
    "folder_atomically",
    "parse_json",
    "read_json",
    "relative_path",
    "shown",
    "write_json",
    "write_table",
]


@contextlib.contextmanager
def atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces ``path`` when the block ends, so that no reader sees a half-written file.

    Args:
        path: path of the file to write; missing parent folders are created.

    Raises:
        OSError: if the folder is not writable or the disk is full. After this or any other error in the block,
            ``path`` is unchanged.
    """
    path = Path(path)
    with _explained(path, _NOT_WRITABLE):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=HALF_WRITTEN, dir=path.parent)
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
            _sync(path.parent)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


TRACEBACK = "traceback.log"  # name of the file of an error's traceback
HALF_WRITTEN = ".partial"  # ending of what is being written, or was when its process was killed


def _sync(folder: Path) -> None:
    """Let a folder's new names survive a power cut, where its file system offers that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR} | _FULL


@contextlib.contextmanager
def _explained(path: Path, numbers: set[int]) -> Iterator[None]:
    """Add to an error of the file system which file could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
        remedy = (
            "free some space or raise the quota, then start again; finished work is kept"
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
    """Create a folder if needed and test that it is writable, before any work whose result goes there.

    Raises:
        OSError: if the folder is not writable; the message names it.
    """
    folder = Path(folder)
    with _explained(folder, _NOT_WRITABLE):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))


@contextlib.contextmanager
def folder_atomically(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty temporary folder that is renamed to ``folder`` when the block ends: it is complete or absent.

    Args:
        folder: path of the folder to fill; missing parent folders are created. If another process fills it first, that
            one is kept.

    Raises:
        OSError: if ``folder`` exists and is not empty when the block begins, or is not writable.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists and is not an empty folder: choose another one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=HALF_WRITTEN, dir=folder.parent))
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
    """Write ``content`` as JSON, atomically; NaN and infinity, which JSON does not have, raise an error."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomically(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike, remedy: str = "delete it and run again to recreate it") -> Any:
    """Read a JSON file; the error for an invalid one, or one with a key twice, names the file and the remedy."""
    try:
        return parse_json(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({str(error)[:200]}): {remedy}.") from error


_DEEPEST = 64  # levels of lists and dictionaries within each other


def parse_json(text: str) -> Any:
    """Return what a text of JSON says.

    Raises:
        ValueError: if it is not valid JSON, holds a key twice, a number that is none, or more than 64 levels.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twice)
    except RecursionError as error:
        raise ValueError(f"more than {_DEEPEST} levels") from error
    level, depth = [content], 0
    while level := [
        each
        for item in level
        if isinstance(item, (dict, list))
        for each in (item.values() if isinstance(item, dict) else item)
    ]:
        if (depth := depth + 1) > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels")
    return content


def shown(value: Any, length: int = 80) -> str:
    """Return a value as an error shows it, cut to a number of characters.

    >>> shown("a" * 100, length=10)
    "'aaaaaa..."
    """
    words = repr(value)
    return words if len(words) <= length else words[: length - 3] + "..."


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return found


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


@contextlib.contextmanager
def csv_rows(path: str | os.PathLike | None, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], Any]]:
    """Open a CSV file, atomically, and yield a function that writes one row.

    Args:
        path: path of the CSV file to write; ``None`` discards the rows.
        columns: names of the columns, written as the first row.
    """
    if path is None:
        yield lambda row: None
        return
    with atomically(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
        writer.writerow(columns)
        yield writer.writerow


def write_table(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table atomically, in the format of the file's extension: ``.csv``, ``.json`` or ``.md``.

    Raises:
        ValueError: if the extension is another one, or the table has no rows.
    """
    kind = Path(path).suffix
    if not rows or kind not in (".csv", ".json", ".md"):
        raise ValueError(f"a table of {len(rows)} rows cannot be written as {kind or path}: give .csv, .json or .md.")
    if kind == ".json":
        write_json(path, [dict(row) for row in rows])
        return
    if kind == ".csv":
        with csv_rows(path, list(rows[0])) as write_row:
            for row in rows:
                write_row(list(row.values()))
        return
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)]
    with atomically(path) as file:
        file.write("".join(f"| {' | '.join(line)} |\n" for line in lines).encode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def relative_path(path: Any, folder: str | os.PathLike | None) -> str:
    """Return the path of an image's file relative to its data set's folder; several files are joined by ``;``.

    A file outside the folder is given by its name alone, so that results can be shared.

    >>> relative_path("data/drive/imagesTr/1.png", "data/drive"), relative_path("/home/me/2.png", "data/drive")
    ('imagesTr/1.png', '2.png')
    """
    paths = path if isinstance(path, (list, tuple)) else [path]
    if folder is None:
        return ";".join(map(str, paths))
    root = Path(os.path.abspath(folder))
    absolute = [Path(os.path.abspath(each)) for each in paths]
    return ";".join(p.relative_to(root).as_posix() if p.is_relative_to(root) else p.name for p in absolute)


def files_of(path: str | os.PathLike) -> list[str]:
    """Return all files of an image: those in a folder, and those that a header's file names or belongs to.

    >>> files_of("a/scan.nii.gz")
    ['a/scan.nii.gz']
    """
    file = Path(path)
    if file.is_dir():
        return sorted(entry.path for entry in os.scandir(file) if entry.is_file())
    beside: list[Path] = []
    if file.suffix.lower() in (".hdr", ".img"):  # NIfTI in two files
        beside = [each for each in (file.with_suffix(".hdr"), file.with_suffix(".img")) if each != file]
    elif file.suffix.lower() in (".mhd", ".nhdr") and file.is_file():
        with open(file, "rb") as header:
            beside = [file.parent / os.fsdecode(name.strip()) for name in _DATA_FILE.findall(header.read(1 << 16))]
    return [str(path), *(str(each) for each in beside if each.is_file())]


_DATA_FILE = re.compile(rb"(?im)^(?:ElementDataFile\s*=|data ?file:)([^\r\n]+)")


def file_digest(*paths: str | os.PathLike) -> str:
    """Return the SHA-256 digest of a file's bytes, or of those of several files in their order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
