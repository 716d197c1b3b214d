"""Errors, said so that the last line tells what went wrong and what to do."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["end_with_cause", "root_cause"]

_WRAPPERS = ("Failed to ", "applying transform ")  # what MONAI puts around the errors of configs and of transforms


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


def end_with_cause() -> None:
    """Let a process that ends by an error print the cause of it last, below MONAI's traceback of wrappers."""
    if getattr(sys.excepthook, "says_cause", False):
        return
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        shown(kind, error, traceback)
        cause = root_cause(error)
        if cause is not error:
            print(f"\nThe cause: {type(cause).__name__}: {cause}", file=sys.stderr)

    show.says_cause = True  # type: ignore[attr-defined]
    sys.excepthook = show
