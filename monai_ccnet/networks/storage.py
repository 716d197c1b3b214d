"""Weights of a network in a file, at 32, 16 or 8 bits each: written atomically, read back, and sized in advance."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.serialization import skip_data

from monai_ccnet.files import atomically

__all__ = [
    "STORAGE_TYPES",
    "dequantized",
    "float_state",
    "kernel_axes",
    "load_weights",
    "quantized",
    "reads_int8",
    "save_weights",
    "unwrapped",
    "written_bytes",
]

# Data type in a checkpoint for each number of bits per weight. 64 bits are stored as 32, the precision of training. At
# 8 bits kernels are int8, and the few other numbers stay float32.
STORAGE_TYPES = {8: torch.int8, 16: torch.float16, 32: torch.float32, 64: torch.float32}

_SCALES = "int8_scales"


def save_weights(
    network: torch.nn.Module,
    path: str | os.PathLike,
    bits_per_weight: int = 32,
    half: torch.dtype = torch.float16,
) -> int:
    """Write a network's plain state dict, atomically, and return the bytes of the file.

    Args:
        network: network to save; of a wrapped one its inner network, see :func:`unwrapped`.
        path: path of the file to write, such as ``model.pt``.
        bits_per_weight: 32 or 64 store float32. 16 stores ``half``; ``load_state_dict`` casts back. 8 stores each
            kernel as int8 (:func:`quantized`) and the scales of all of them in one more tensor; :func:`load_weights`
            reads it, as does ``load_state_dict`` of any network of :func:`~monai_ccnet.networks.build_network`.
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
        torch.save(state, file)
    return os.path.getsize(path)


def unwrapped(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network within the wrappers of ``torch.compile``, DataParallel and DistributedDataParallel, if any."""
    while True:
        if isinstance(network, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), torch.nn.Module):  # of torch.compile
            network = inner
        else:
            return network


def load_weights(network: torch.nn.Module, path: str | os.PathLike) -> torch.nn.Module:
    """Load what :func:`save_weights` wrote, at any number of bits, into a network of the same config; no code is run.

    Args:
        network: network of that config, also a wrapped one (:func:`unwrapped`).
        path: path of the file.

    Returns:
        The network, changed in place.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no file of weights, or holds those of another network, or some that are not finite.
    """
    state, inner = _read_state(path), reads_int8(unwrapped(network))
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_complex():
            raise ValueError(f"{os.fspath(path)}: {name} holds complex numbers, and weights are real.")
        if isinstance(tensor, torch.Tensor) and not tensor.to(_range_of(tensor)).isfinite().all():
            raise ValueError(
                f"{os.fspath(path)}: {name} holds numbers that are not finite: the training run diverged, train again."
            )
    try:
        inner.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = "; ".join(_differences(inner.state_dict(), state)) or str(error)
        raise ValueError(
            f"{os.fspath(path)} holds the weights of another network than this {type(inner).__name__}: {reason}. Build "
            "the network of the config, or of the plan, with which they were trained."
        ) from error
    return network


def _read_state(path: str | os.PathLike) -> dict[str, Any]:
    """Return the state dict of a file."""
    name, remedy = os.fspath(path), "give a file that save_weights wrote, such as the model.pt of a training run"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {name}: {remedy}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch passes on the errors of pickle, zip and its own reader
        raise ValueError(
            f"{name} ({os.path.getsize(path):,} bytes) is no file of weights, or was cut off, or holds more than "
            f"tensors: {remedy}."
        ) from error
    if not isinstance(state, Mapping) or not state:
        empty = "" if not isinstance(state, Mapping) else " without entries"
        raise ValueError(f"{name} holds no state dict but a value of type {type(state).__name__}{empty}: {remedy}.")
    for key, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) and not str(key).endswith("_extra_state"):
            raise ValueError(
                f"{name} holds no state dict: its entry {key!r} is no tensor but of type {type(tensor).__name__}. Of a "
                "checkpoint save the state dict of the network alone, as by save_weights."
            )
    return dict(state)


def _differences(mine: Mapping[str, Any], its: Mapping[str, Any]) -> list[str]:
    """Return in words the first three keys or shapes in which the state dict of a file differs from a network's."""
    words = [f"the file lacks {name}" for name in mine if name not in its]
    words += [f"the network has no {name}" for name in its if name not in mine and name != _SCALES]
    for name in mine:
        if name in its and its[name].shape != mine[name].shape:
            words.append(
                f"{name} has shape {tuple(its[name].shape)} in the file, {tuple(mine[name].shape)} in the network"
            )
    return words[:3]


def _range_of(tensor: torch.Tensor) -> torch.dtype:
    """Return the type by which it is judged whether numbers are finite: networks calculate in float32 at most."""
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def reads_int8(network: torch.nn.Module) -> torch.nn.Module:
    """Let a network's ``load_state_dict`` take int8 kernels too; the network is changed in place and returned."""
    network.register_load_state_dict_pre_hook(_dequantize)  # twice is harmless: the second finds no int8
    return network


def quantized(kernel: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a kernel as int8, symmetric about 0, and the scale of each output channel.

    Args:
        kernel: kernel of a convolution or a linear layer, in floating point.
        axis: axis of its output channels.

    Returns:
        Codes from -127 to 127, int8, of the kernel's shape; and scales, float32, one per output channel. A weight is
        its code times the scale of its channel, with an error of at most half a scale.

    >>> codes, scales = quantized(torch.tensor([[0.5, -1.0], [0.0, 0.0]]), axis=0)
    >>> codes.tolist(), dequantized(codes, scales, axis=0).round(decimals=2).tolist()
    ([[64, -127], [0, 0]], [[0.5, -1.0], [0.0, 0.0]])
    """
    kernel = kernel.detach().float()
    others = [other for other in range(kernel.ndim) if other != axis]
    scales = kernel.abs().amax(dim=others) / 127
    codes = (kernel / _along(scales.where(scales > 0, 1.0), axis, kernel.ndim)).round()
    return codes.to(torch.int8), scales


def dequantized(codes: torch.Tensor, scales: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the float32 kernel that :func:`quantized` made int8."""
    return codes.float() * _along(scales, axis, codes.ndim)


def kernel_axes(network: torch.nn.Module) -> dict[str, int]:
    """Return the axis of the output channels of each kernel of a network, by its name in the state dict."""
    return {
        f"{name}.weight" if name else "weight": int(isinstance(module, _ConvTransposeNd))
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, (_ConvNd, torch.nn.Linear))
    }


def stored_state(
    network: torch.nn.Module, bits_per_weight: int, half: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Return the state dict to be written; a tensor with two names is stored once."""
    if bits_per_weight not in STORAGE_TYPES:
        raise ValueError(f"bits_per_weight must be one of {sorted(STORAGE_TYPES)}, got {bits_per_weight}.")
    if half not in (torch.float16, torch.bfloat16):
        raise ValueError(f"half must be torch.float16 or torch.bfloat16, got {half}.")
    state, axes = network.state_dict(), kernel_axes(network) if bits_per_weight == 8 else {}
    one_of: dict[tuple, torch.Tensor] = {}
    scales: list[torch.Tensor] = []
    for name, tensor in state.items():  # the state dict itself is kept, since it carries the modules' versions
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
        state[_SCALES] = torch.cat(scales)
    return state


def written_bytes(network: torch.nn.Module, bits_per_weight: int) -> int:
    """Return the exact bytes of the file that :func:`save_weights` would write for a network, which may be on meta.

    torch's own writer counts the bytes: it writes the headers and skips the weights.
    """
    state = stored_state(network, bits_per_weight)
    # The device is part of the file, so tensors are on the CPU; untouched memory is never really allocated.
    on_cpu = {_identity(tensor): torch.empty_like(tensor, device="cpu") for tensor in state.values()}
    for name, tensor in state.items():
        state[name] = on_cpu[_identity(tensor)]
    counter = _ByteCounter()
    with skip_data():
        torch.save(state, counter)  # type: ignore[arg-type]
    return counter.length


def _dequantize(
    network: torch.nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Turn the int8 kernels of a state dict into float32, in place, before it is loaded."""
    try:
        floats = float_state(network, state_dict, prefix)
    except ValueError as error:
        error_msgs.append(str(error))
        return
    state_dict.pop(prefix + _SCALES, None)
    state_dict.update(floats)


def float_state(network: torch.nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a state dict with its int8 kernels, if any, converted to float32.

    Args:
        network: network that tells which kernels are transposed; its widths may differ from the state dict's.
        state_dict: state dict as :func:`save_weights` writes it.
        prefix: prefix of the network's names in the state dict.

    Raises:
        ValueError: if there are more or fewer scales than output channels, or int8 kernels without any.
    """
    state = dict(state_dict)
    scales = state.pop(prefix + _SCALES, None)
    axes = {prefix + name: axis for name, axis in kernel_axes(network).items()}
    stored = {name: axes[name] for name, each in state.items() if name in axes and each.dtype == torch.int8}
    counts = [state[name].shape[axis] for name, axis in stored.items()]
    if scales is None:
        if stored:
            raise ValueError(
                f"kernels such as {next(iter(stored))} are int8, and their scales, {_SCALES}, are missing."
            )
        return state
    if sum(counts) != len(scales):
        raise ValueError(f"the kernels have {sum(counts)} output channels, the file has {len(scales)} int8 scales.")
    for (name, axis), its_scales in zip(stored.items(), scales.split(counts), strict=True):
        state[name] = dequantized(state[name], its_scales, axis)
    return state


def _along(scales: torch.Tensor, axis: int, dimensions: int) -> torch.Tensor:
    return scales.reshape([-1 if other == axis else 1 for other in range(dimensions)])


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
