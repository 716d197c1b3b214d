"""Weights of a network in a file, at 32, 16 or 8 bits each: written atomically, and sized in advance."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from torch.nn.modules.batchnorm import _NormBase
from torch.serialization import skip_data

from monai_ccnet.files import atomically
from monai_ccnet.networks.int8 import SCALES, kernel_axes, quantized
from monai_ccnet.networks.scaling import unwrapped

safetensors, _ = optional_import("safetensors.torch")

__all__ = [
    "STORAGE_TYPES",
    "WEIGHTS_FORMATS",
    "save_weights",
    "stored_state",
    "weights_format_of",
    "weights_name",
    "written_bytes",
]

# Data type in a checkpoint for each number of bits per weight. 64 bits are stored as 32, the precision of training. At
# 8 bits kernels are int8, and the few other numbers stay float32.
STORAGE_TYPES = {8: torch.int8, 16: torch.float16, 32: torch.float32, 64: torch.float32}

WEIGHTS_FORMATS = {"torch": ".pt", "safetensors": ".safetensors"}  # with the ending of a file


def save_weights(
    network: torch.nn.Module,
    path: str | os.PathLike,
    bits_per_weight: int = 32,
    half: torch.dtype = torch.float16,
) -> int:
    """Write a network's plain state dict, atomically, and return the bytes of the file.

    All tensors of one type are parts of one storage, since each storage costs some 200 bytes of frame. Plain
    ``torch.load(path, weights_only=True)`` reads it.

    Args:
        network: network to save; of a wrapped one its inner network, see :func:`unwrapped`.
        path: path of the file to write, such as ``model.pt``. One that ends in ``.safetensors`` is written in that
            format, by the package of that name.
        bits_per_weight: 32 or 64 store float32. 16 stores ``half``; ``load_state_dict`` casts back. 8 stores each
            kernel as int8 (:func:`~monai_ccnet.networks.quantized`) and the scales of all of them in one more tensor;
            :func:`~monai_ccnet.networks.load_weights` reads it, as does ``load_state_dict`` of any network of
            :func:`~monai_ccnet.networks.build_network`.
        half: type for 16 bits: ``torch.float16``, or ``torch.bfloat16``, which has float32's range and fewer digits.

    Raises:
        ValueError: if a number is not finite, or beyond the range of the type it is to be stored in.
    """
    network = unwrapped(network)
    state = stored_state(network, bits_per_weight, half)
    for (name, tensor), stored in zip(network.state_dict().items(), state.values(), strict=False):
        if not tensor.isfinite().all():
            raise ValueError(
                f"{name} holds numbers that are not finite: the training run diverged. Lower the learning rate, or "
                "check the images."
            )
        if stored.is_floating_point() and (tensor.isfinite().cpu() & ~stored.isfinite()).any():
            raise ValueError(
                f"{name} holds numbers up to {tensor.abs().max().item():.3g}, beyond the range of {stored.dtype}: "
                "store at 32 bits, or with half=torch.bfloat16."
            )
    with atomically(path) as file:
        _write(state, file, weights_format_of(path))
    return os.path.getsize(path)


def weights_format_of(path: str | os.PathLike) -> str:
    """Return the format in which :func:`save_weights` writes a file, a key of :data:`WEIGHTS_FORMATS`."""
    return "safetensors" if Path(path).suffix == WEIGHTS_FORMATS["safetensors"] else "torch"


def weights_name(weights_format: str, stem: str = "model") -> str:
    """Return the name of a file of weights in a format, a key of :data:`WEIGHTS_FORMATS`.

    >>> weights_name("torch"), weights_name("safetensors")
    ('model.pt', 'model.safetensors')
    """
    return stem + WEIGHTS_FORMATS[weights_format]


def stored_state(
    network: torch.nn.Module, bits_per_weight: int, half: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Return the state dict to be written; a tensor with two names is stored once."""
    if bits_per_weight not in STORAGE_TYPES:
        raise ValueError(f"bits_per_weight must be one of {sorted(STORAGE_TYPES)}, got {bits_per_weight}.")
    if half not in (torch.float16, torch.bfloat16):
        raise ValueError(f"half must be torch.float16 or torch.bfloat16, got {half}.")
    network = unwrapped(network)
    axes = kernel_axes(network) if bits_per_weight == 8 else {}
    one_of: dict[tuple, torch.Tensor] = {}
    scales: list[torch.Tensor] = []
    state = _as_plain_as_possible(network)
    for name, tensor in state.items():
        key, kept = (name in axes, *_identity(tensor)), tensor.to("meta" if tensor.is_meta else "cpu")
        if name in axes:
            if not (kept.is_meta or kept.isfinite().all()):
                raise ValueError(f"{name} holds numbers that are not finite, so int8 is impossible: train again.")
            kept, its_scales = quantized(kept, axes[name])
            scales.append(its_scales)
        elif tensor.is_floating_point():
            kept = kept.to(half if bits_per_weight == 16 else torch.float32)
        # A memory format would add a few bytes to the file.
        state[name] = one_of.setdefault(key, kept.contiguous())
    if scales:
        state[SCALES] = torch.cat(scales)
    return state


def _as_plain_as_possible(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state dict, with the modules' versions only where loading asks for them."""
    state: Any = network.state_dict()
    modules = dict(network.named_modules(remove_duplicate=False))
    versions = {
        name: stated
        for name, stated in state._metadata.items()
        if stated != {"version": 1} and not isinstance(modules.get(name), _NormBase)  # whose old version lacks a tensor
    }
    if not versions:
        return dict(state)
    state._metadata = versions
    return state


def written_bytes(network: torch.nn.Module, bits_per_weight: int, weights_format: str = "torch") -> int:
    """Return the exact bytes of the file that :func:`save_weights` would write for a network, which may be on meta.

    The format's own writer counts the bytes; torch's writes the headers and skips the weights.
    """
    counter = _ByteCounter()
    with skip_data():
        _write(stored_state(network, bits_per_weight), counter, weights_format)
    return counter.length


def _write(state: Any, file: Any, weights_format: str) -> None:
    if weights_format not in WEIGHTS_FORMATS:
        raise ValueError(f"weights_format must be one of {', '.join(WEIGHTS_FORMATS)}, got {weights_format!r}.")
    if weights_format == "torch":
        torch.save(_in_one_storage(state), file)
        return
    if hasattr(state, "_metadata"):
        raise ValueError(
            f"safetensors holds tensors alone, and {next(iter(state._metadata))} needs its version to be loaded: "
            "store it as torch."
        )
    # A tensor with two names is written twice, since the format forbids that tensors overlap.
    own = {
        name: torch.zeros(each.shape, dtype=each.dtype) if each.is_meta else each.clone()
        for name, each in state.items()
    }
    file.write(safetensors.save(own, metadata={"format": "pt"}))


def _in_one_storage(state: Any) -> Any:
    """Return a state dict whose tensors of one type are parts of one storage; those on meta as untouched memory."""
    parts: dict[torch.dtype, dict[tuple, torch.Tensor]] = {}
    for tensor in state.values():
        parts.setdefault(tensor.dtype, {})[_identity(tensor)] = tensor
    placed: dict[tuple, torch.Tensor] = {}
    for dtype, tensors in parts.items():
        lengths = [tensor.numel() for tensor in tensors.values()]
        if any(tensor.is_meta for tensor in tensors.values()):  # the device is part of the file
            whole = torch.empty(sum(lengths), dtype=dtype)
        else:
            whole = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
        for (key, tensor), part in zip(tensors.items(), whole.split(lengths), strict=True):
            placed[key] = part.view(tensor.shape)
    return like_state(state, {name: placed[_identity(tensor)] for name, tensor in state.items()})


def like_state(state: Any, tensors: Mapping[str, Any]) -> Any:
    """Return a state dict of other tensors, with the versions of modules that a given one carries, if any."""
    if not hasattr(state, "_metadata"):
        return dict(tensors)
    kept: Any = OrderedDict(tensors)
    kept._metadata = state._metadata
    return kept


def _identity(tensor: torch.Tensor) -> tuple:
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


class _ByteCounter(io.RawIOBase):
    """A file that keeps nothing but its length."""

    position = length = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        return self.position

    def write(self, chunk: Any) -> int:
        written = memoryview(chunk).nbytes
        self.position += written
        self.length = max(self.length, self.position)
        return written
