"""How a process of our own begins."""

from __future__ import annotations

import gc
import importlib
import sys

__all__ = ["import_monai"]


def import_monai() -> None:
    """Import MONAI as a process begins, with no search for garbage meanwhile, nor ever after among what it imported.

    These searches take some 3 of 7 seconds, most of them as the process ends. What the process makes afterwards is
    collected as ever. It is for processes of our own alone, since it also keeps what else is there at that moment.
    """
    if "monai" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        importlib.import_module("monai.bundle")
        gc.freeze()
    finally:
        gc.enable()
