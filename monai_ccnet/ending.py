"""How a process ends early: its last line says why and what to do, and its traceback goes to a file."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import tempfile
import traceback as tracebacks
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from monai_ccnet.files import TRACEBACK

__all__ = ["cause_of", "end_with_cause", "interrupt_in_order", "interruptible", "keep_traceback", "root_cause"]

_WRAPPERS = ("Failed to ", "applying transform ")  # what MONAI puts around the errors of configs and of transforms
_MEMORY = ("can't allocate memory", "out of memory", "DataLoader worker (pid")


def root_cause(error: BaseException) -> BaseException:
    """Return the error that MONAI's own errors of configs and transforms are wrapped around.

    >>> try:
    ...     try:
    ...         raise ValueError("no such width")
    ...     except ValueError as first:
    ...         raise RuntimeError("Failed to evaluate ConfigExpression") from first
    ... except RuntimeError as last:
    ...     root_cause(last)
    ValueError('no such width')
    """
    while isinstance(error, RuntimeError) and str(error).startswith(_WRAPPERS) and error.__cause__ is not None:
        error = error.__cause__
    return error


def cause_of(error: BaseException) -> str:
    """Return in words what an error comes from; where memory ran out, with what helps.

    >>> cause_of(MemoryError())
    'MemoryError: memory ran out: try a smaller --patch_size, --batch_size, --num_workers or --cache_rate.'
    """
    cause = root_cause(error)
    words = str(cause).strip()
    if isinstance(cause, MemoryError) or any(each in words for each in _MEMORY):
        said = f" ({words.splitlines()[0][:200]})" if words else ""
        return (
            f"{type(cause).__name__}: memory ran out{said}: try a smaller --patch_size, --batch_size, --num_workers or "
            "--cache_rate."
        )
    return f"{type(cause).__name__}: {words or 'without a message'}"


def keep_traceback(error: BaseException, folder: str | os.PathLike | None = None) -> str:
    """Write the traceback of an error to a file, and return in words where; nothing if it cannot be written.

    Args:
        error: the error.
        folder: folder for ``traceback.log``; a temporary one takes its place if it is not there or not writable.
    """
    text = "".join(tracebacks.format_exception(error))
    for place in (folder, tempfile.gettempdir()):
        if place is not None and os.path.isdir(place):
            path = Path(place) / (TRACEBACK if place is folder else f"traceback-{os.getpid()}.log")
            with contextlib.suppress(OSError):
                path.write_text(text, encoding="utf-8")
                return f" (traceback: {path})"
    return ""


def end_with_cause(folder: str | os.PathLike | None = None, traceback: bool = False) -> None:
    """Let this process, if it ends by an error, say the cause in its last line.

    Args:
        folder: folder for the file of the traceback.
        traceback: whether the traceback is shown on the screen instead.
    """
    shown = getattr(sys.excepthook, "replaced", sys.excepthook)

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if traceback or not isinstance(error, Exception):
            shown(kind, error, trace)
        where = "" if traceback else keep_traceback(error, folder)
        print(f"\nThe cause: {cause_of(error)}{where}", file=sys.stderr)

    show.replaced = shown  # type: ignore[attr-defined]
    sys.excepthook = show
    if not traceback:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block let Ctrl-C and SIGTERM end the process in order, with a last line that says how to go on.

    Signals that the process ignores, or that somebody else handles, stay as they are.
    """
    replaced = interrupt_in_order()
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def interrupt_in_order() -> dict[int, Any]:
    """Do what :func:`interruptible` does until the process ends, and return the handlers that were there before."""
    replaced: dict[int, Any] = {}
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker, whose parent says what there is to say
            raise KeyboardInterrupt
        words = _interrupted(frame)
        atexit.register(lambda: print(f"\nmonai-ccnet: {words}", file=sys.stderr))  # a sweep has redirected it by now
        raise SystemExit(128 + number)

    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    with contextlib.suppress(ValueError):  # of a thread other than the main one
        for number, default in defaults.items():
            if signal.getsignal(number) is default:
                replaced[number] = signal.signal(number, end)
    return replaced


def _interrupted(frame: FrameType | None) -> str:
    """Return what is said of an interruption, with the epoch of the training in whose call it came."""
    engines, trainer = sys.modules.get("ignite.engine"), None
    while frame is not None and engines is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, engines.Engine) and hasattr(found, "optimizer"):
            trainer = found
        frame = frame.f_back
    if trainer is None:
        return "interrupted. What is done is kept: the same command goes on from there."
    state = trainer.state
    if kept := getattr(trainer, "keeps_best_in", None):
        best = f"the best so far is in {kept}, and " if os.path.isfile(kept) else ""
        return f"interrupted in epoch {state.epoch} of {state.max_epochs}; {best}the same command begins anew."
    return f"interrupted in epoch {state.epoch} of {state.max_epochs}; the same command goes on from there."
