"""How large a network is: weights, parameters, file bytes, multiply-adds and activations, without allocating it."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd
from torch.serialization import skip_data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from monai_ccnet.networks.narrowing import build_network
from monai_ccnet.values import Value, atomically

__all__ = ["STORAGE_TYPES", "NetworkSize", "file_bytes", "network_size", "save_weights"]

# What a checkpoint holds for each number of bits a weight. Nothing is gained by storing more than was trained.
STORAGE_TYPES = {16: torch.float16, 32: torch.float32, 64: torch.float32}


@dataclass(frozen=True)
class NetworkSize(Value):
    """What a network needs.

    Attributes:
        weights: numbers in the kernels of convolutions and linear layers: the paper's theta.
        parameters: all trainable numbers.
        state_bytes: bytes of its parameters and buffers in memory at 32 bits a weight.
        file_bytes: bytes of its state dict on disk at 32 bits a weight, as :func:`save_weights` writes it.
        macs: multiply-adds of a forward pass (1 MAC = 2 FLOPs); ``None`` without an input shape.
        activation_bytes: peak bytes of the tensors alive in a forward pass in eval mode, input included and weights
            not; ``None`` without an input shape.
        input_shape: ``(B, C, H, W[, D])`` that the last two hold for.
    """

    weights: int
    parameters: int
    state_bytes: int
    file_bytes: int
    macs: int | None
    activation_bytes: int | None
    input_shape: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.input_shape is not None:
            object.__setattr__(self, "input_shape", tuple(self.input_shape))


def network_size(network_def: Mapping[str, Any], input_shape: Sequence[int] | None = None) -> NetworkSize:
    """Count what a network needs, on shapes alone: nothing is allocated and nothing computed.

    Args:
        network_def: the network's MONAI config, with references resolved.
        input_shape: ``(B, C, H, W[, D])``, for multiply-adds and activations.

    >>> size = network_size({"_target_": "monai_ccnet.networks.PlainUNet"}, input_shape=(1, 1, 128, 128))
    >>> size.weights, size.parameters, round(size.macs / 1e9, 2)
    (31023744, 31042369, 12.02)
    """
    network = build_network(network_def, device="meta").eval()
    macs = activation_bytes = None
    if input_shape is not None:
        image = torch.empty(tuple(input_shape), device="meta")
        flops, live = FlopCounterMode(display=False), _LiveTensors(image)
        with torch.no_grad(), flops, live:
            network(image)
        macs, activation_bytes = flops.get_total_flops() // 2, live.peak_bytes
    kernels = {
        id(module.weight): module.weight.numel()
        for module in network.modules()
        if isinstance(module, (_ConvNd, torch.nn.Linear))
    }
    return NetworkSize(
        weights=sum(kernels.values()),
        parameters=sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        state_bytes=sum(tensor.nbytes for tensor in _stored(network, 32).values()),
        file_bytes=_file_bytes(network, 32),
        macs=macs,
        activation_bytes=activation_bytes,
        input_shape=None if input_shape is None else tuple(input_shape),
    )


def file_bytes(network_def: Mapping[str, Any], bits_per_weight: int = 32) -> int:
    """Return the exact bytes of the file that :func:`save_weights` would write for a network."""
    return _file_bytes(build_network(network_def, device="meta"), bits_per_weight)


def save_weights(network: torch.nn.Module, path: str | os.PathLike, bits_per_weight: int = 32) -> int:
    """Write a network's plain state dict, atomically, and return the bytes of the file.

    Args:
        network: a network; of one that is wrapped for several processes, its inner network.
        path: the file, such as ``model.pt``.
        bits_per_weight: 32 or 64 store float32, 16 stores float16; ``load_state_dict`` casts back.
    """
    if isinstance(network, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        network = network.module
    state = _stored(network, bits_per_weight)
    with atomically(path) as file:
        torch.save(state, file)
    return os.path.getsize(path)


def _stored(network: torch.nn.Module, bits_per_weight: int) -> dict[str, torch.Tensor]:
    if bits_per_weight not in STORAGE_TYPES:
        raise ValueError(f"bits_per_weight must be one of {sorted(STORAGE_TYPES)}, got {bits_per_weight}.")
    state = network.state_dict()
    for name, tensor in state.items():  # the state dict itself is kept, for it carries the modules' versions
        stored = tensor.to("meta" if tensor.is_meta else "cpu", _dtype_on_disk(tensor, bits_per_weight))
        state[name] = stored.contiguous()  # a memory format would be written along, in a few bytes more
    return state


def _dtype_on_disk(tensor: torch.Tensor, bits_per_weight: int) -> torch.dtype:
    return STORAGE_TYPES[bits_per_weight] if tensor.is_floating_point() else tensor.dtype


def _file_bytes(network: torch.nn.Module, bits_per_weight: int) -> int:
    """Let torch's own writer count: the file's frame is written, the weights' bytes are only skipped over."""
    state = _stored(network, bits_per_weight)
    for name, tensor in state.items():
        state[name] = torch.empty_like(tensor, device="cpu")
    counter = _ByteCounter()
    with skip_data():
        torch.save(state, counter)  # type: ignore[arg-type]
    return counter.length


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


class _LiveTensors(TorchDispatchMode):
    """Follows which storages are alive while a network runs, and the most bytes they hold together."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self._alive: dict[int, weakref.finalize] = {}
        self._bytes = self.peak_bytes = 0
        self._follow(image)

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self._alive:
            self._bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            self._alive[id(storage)] = weakref.finalize(storage, self._release, id(storage), storage.nbytes())

    def _release(self, key: int, released_bytes: int) -> None:
        del self._alive[key]
        self._bytes -= released_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf)
        return result
