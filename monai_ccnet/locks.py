"""One process at a time in a folder: others are told who works there, and what killed ones half wrote is removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from monai_ccnet.files import HALF_WRITTEN, TRACEBACK, shown

__all__ = ["FolderBusyError", "held", "hold", "release"]

_LOCKS: dict[str, FileLock] = {}  # a lock that nobody holds on to is released
_HOLDER = ".holder.json"


class FolderBusyError(Timeout, ValueError):
    """Another process works in a folder, and this one was told not to wait; the message says which."""

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__(os.fspath(folder))
        self.words = (
            f"{_holder_of(folder)} works in {folder}: wait for it (without --no-wait), or choose another folder."
        )

    def __str__(self) -> str:
        return self.words


@contextlib.contextmanager
def held(folder: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Let no other process of this package work in a folder until the block ends; within a process it nests.

    Files that a killed process had half written there are removed first.

    Args:
        folder: an existing folder.
        wait: whether to wait for another process, and say for whom, or else raise an error.

    Raises:
        FolderBusyError: if another process works there and ``wait`` is ``False``.
    """
    hold(folder, wait)
    try:
        yield
    finally:
        release(folder)


def hold(folder: str | os.PathLike, wait: bool = True) -> None:
    """Begin what :func:`release`, or the end of the process, ends; see :func:`held`."""
    path = os.path.abspath(Path(folder) / ".lock")
    lock = _LOCKS.setdefault(path, FileLock(path, is_singleton=True))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        if not wait:
            raise FolderBusyError(folder) from error
        print(f"Waiting for {_holder_of(folder)}, which works in {folder}; --no-wait leaves instead.", flush=True)
        lock.acquire()
    if lock.lock_counter == 1:
        _remove_half_written(Path(folder))
        who = {"process": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:200]}
        with contextlib.suppress(OSError):  # it only tells others whom they wait for
            (Path(folder) / _HOLDER).write_text(json.dumps({**who, "since": time.strftime("%F %T")}), encoding="utf-8")


def release(folder: str | os.PathLike) -> None:
    """End what :func:`hold` began; without it nothing happens."""
    lock = _LOCKS.get(os.path.abspath(Path(folder) / ".lock"))
    if lock is None or not lock.is_locked:
        return
    if lock.lock_counter == 1:
        with contextlib.suppress(OSError):
            (Path(folder) / _HOLDER).unlink(missing_ok=True)
    lock.release()


def _holder_of(folder: str | os.PathLike) -> str:
    """Return in words which process works in a folder, as far as it said so."""
    try:
        who = json.loads((Path(folder) / _HOLDER).read_text(encoding="utf-8"))
        process, host = int(who["process"]), shown(who["host"])[1:-1]
        return f"process {process} on {host} (since {shown(who['since'])[1:-1]}: {shown(who['command'])[1:-1]})"
    except (OSError, ValueError, TypeError, LookupError):  # it has only just begun or ended
        return "another process"


def _remove_half_written(folder: Path) -> None:
    """Remove what killed processes left in a folder, and in those below it that no lock of their own protects."""
    (folder / TRACEBACK).unlink(missing_ok=True)  # of the process before this one
    below = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    for place in (folder, *(each for each in below if not (each / ".lock").exists())):
        for left in place.glob(f".*{HALF_WRITTEN}"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
