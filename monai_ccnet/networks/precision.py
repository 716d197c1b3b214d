"""Arithmetic at a lower precision, on any device."""

from __future__ import annotations

import contextlib
import functools
import types
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["PRECISIONS", "at_precision", "native_precision"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _Float32WhereThin(TorchFunctionMode):
    """Calculate a 3-D convolution in ``float32`` where its input is shorter than its kernel along the first axis.

    There torch 2.13 on CPUs leaves part of the kernel's gradient unwritten at lower precision, if tensors are
    channels-last: what was in memory before is taken for it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv3d and args[0].shape[2] < args[1].shape[2]:
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def native_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """Return the precision at which a network is trained.

    Args:
        precision: a key of :data:`PRECISIONS`; or ``"auto"``, which is ``"bfloat16"`` where the device calculates it
            natively.
        device: device of the training.
    """
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    if kind == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # torch has no public way to ask
        asked = (getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        is_native = kind == "cpu" and any(asked)
    return "bfloat16" if is_native else "float32"


def at_precision(network: torch.nn.Module, precision: str) -> torch.nn.Module:
    """Make a network calculate at a precision, by torch's autocast; its weights and its output stay ``float32``.

    MONAI's own ``amp`` is for GPUs alone. Here ``bfloat16`` serves recent CPUs as well, where it trains wide networks
    about twice as fast.

    Args:
        network: any network; it is changed in place and returned.
        precision: name of the precision: ``"float32"`` (no autocast), ``"bfloat16"`` or ``"float16"``.

    Raises:
        ValueError: if the precision is another one.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {sorted(PRECISIONS)}, got {precision!r}.")
    earlier = network.__dict__.pop("forward", None)
    own = getattr(earlier, "own_forward", earlier)  # one such as torch.compile's wrapper has
    if own is not None:
        network.forward = own
    if precision != "float32":
        kind = PRECISIONS[precision]

        @functools.wraps(type(network).forward)
        def cast_forward(self: torch.nn.Module, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            thin = _Float32WhereThin() if x.device.type == "cpu" and x.ndim == 5 else contextlib.nullcontext()
            with torch.autocast(x.device.type, kind), thin:
                output = own(x, *args, **kwargs) if own else type(self).forward(self, x, *args, **kwargs)
            return output.float() if isinstance(output, torch.Tensor) else [each.float() for each in output]

        cast_forward.own_forward = own  # type: ignore[attr-defined]
        network.forward = types.MethodType(cast_forward, network)  # a copy of the network binds it to itself
    return network
