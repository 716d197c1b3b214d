"""Peak memory of a forward pass and of a training step, and multiply-adds, computed from shapes alone."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["copy_of", "follow_forward", "follow_training", "on_meta"]


def follow_forward(network: torch.nn.Module, input_shape: Sequence[int]) -> tuple[int, int]:
    """Count multiply-adds and peak memory of a forward pass in eval mode, without gradients.

    A tensor counts from its creation until nothing refers to it: the result of an in-place layer counts once, and a
    skip connection counts as long as it is kept. The input counts throughout, because the caller holds it; parameters
    and buffers do not count. Scratch memory of kernels is not seen: oneDNN on a CPU copies the input of some
    convolutions, and cuDNN on a GPU uses workspaces.

    Args:
        network: any network; it is neither run on data nor changed.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.

    Returns:
        Multiply-adds of the convolutions and matrix products (1 MAC = 2 FLOPs), and the bytes alive at the peak.

    >>> follow_forward(torch.nn.Conv2d(1, 3, kernel_size=1), (1, 1, 10, 10))
    (300, 1600)
    """
    network, image = on_meta(network).eval(), torch.empty(tuple(input_shape), device="meta")
    with torch.no_grad(), _Follower(network, image) as follower:
        network(image)
    return follower.flops // 2, follower.peak_bytes


def follow_training(network: torch.nn.Module, input_shape: Sequence[int]) -> int:
    """Return the peak memory of a training step in bytes.

    The count includes the input, all that the forward pass in train mode keeps for the backward pass, the gradients of
    activations while they are needed, and the gradients of the parameters once they exist. The backward pass starts
    from a gradient of the size of each output. The count excludes parameters and buffers, the loss's own tensors, the
    optimizer's state (for Adam, twice the parameters) and, as in :func:`follow_forward`, scratch memory of kernels.

    Raises:
        ValueError: raised by torch if the network cannot be trained on this input, for example because batch
            normalisation would have a single value per channel.

    >>> follow_training(torch.nn.Conv2d(1, 3, kernel_size=1), (1, 1, 10, 10))  # input, logits, their gradient, 6 more
    2824
    """
    network, image = on_meta(network).train(), torch.empty(tuple(input_shape), device="meta")
    with torch.enable_grad(), _Follower(network, image) as follower:
        outputs = [leaf for leaf in tree_leaves(network(image)) if isinstance(leaf, torch.Tensor)]
        outputs = [output for output in outputs if output.requires_grad]
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
    for parameter in network.parameters():
        parameter.grad = None
    return follower.peak_bytes


def on_meta(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a network with shapes but no values, or the network itself if it is already of that kind."""
    tensors = [*network.parameters(), *network.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return network
    shapes: dict[int, Any] = {}
    for tensor in tensors:
        shapes[id(tensor)] = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, torch.nn.Parameter):
            shapes[id(tensor)] = torch.nn.Parameter(shapes[id(tensor)], tensor.requires_grad)
    return copy_of(network, shapes)


def copy_of(network: torch.nn.Module, instead: dict[int, Any] | None = None) -> torch.nn.Module:
    """Return a copy of a network, also of one that keeps its last outputs (DynUNet), which torch cannot copy.

    Args:
        network: any network.
        instead: replacements of tensors in the copy, by the id of the original tensor.
    """
    held = (value for module in network.modules() for key, value in vars(module).items() if not key.startswith("_"))
    outputs = [leaf for leaf in tree_leaves(list(held)) if isinstance(leaf, torch.Tensor) and not leaf.is_leaf]
    return copy.deepcopy(network, {**{id(output): output.detach() for output in outputs}, **(instead or {})})


class _Follower(TorchDispatchMode):
    """Counts multiply-adds, and follows which storages are alive and the most bytes they hold together."""

    def __init__(self, network: torch.nn.Module, image: torch.Tensor) -> None:
        super().__init__()
        self._stored = [tensor.untyped_storage() for tensor in (*network.parameters(), *network.buffers())]
        self._alive: set[int] = set(map(id, self._stored))
        self._bytes = self.peak_bytes = self.flops = 0
        self._follow(image)

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self._alive:
            self._alive.add(id(storage))
            self._bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            weakref.finalize(storage, self._release, id(storage), storage.nbytes())

    def _release(self, key: int, released_bytes: int) -> None:
        self._alive.remove(key)
        self._bytes -= released_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = _SHAPES[func](*args, **kwargs) if func in _SHAPES else None
        if result is None:
            result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf)
        return result


# For these operations torch derives the shapes of the results from dozens of other operations on meta tensors. The
# functions below give the same shapes directly, about twenty times faster.


def _like_first(first: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.empty_like(first)


def _like_second(_: Any, second: torch.Tensor, *__: Any, **___: Any) -> torch.Tensor:
    return torch.empty_like(second)


def _gradients(mask: Sequence[bool], image: torch.Tensor, parameter_shape: Sequence[int]) -> tuple:
    """Return gradients of the input, the weight and the bias of a normalisation, as far as they are asked for."""
    shapes = (image.shape, parameter_shape, parameter_shape)
    return tuple(image.new_empty(shape) if asked else None for asked, shape in zip(mask, shapes, strict=True))


def _batch_norm(x: torch.Tensor, _w: Any, _b: Any, _m: Any, _v: Any, training: bool, *_: Any) -> tuple:
    values = x.shape[1] if training else 0
    return torch.empty_like(x), x.new_empty(values), x.new_empty(values)


def _layer_norm(x: torch.Tensor, shape: Sequence[int], *_: Any) -> tuple:
    values = (*x.shape[: -len(shape)], *(1,) * len(shape))
    return x.new_empty(x.shape), x.new_empty(values), x.new_empty(values)


def _group_norm(x: torch.Tensor, _w: Any, _b: Any, n: int, _c: Any, _s: Any, groups: int, *_: Any) -> tuple:
    return torch.empty_like(x), x.new_empty(n, groups), x.new_empty(n, groups)


def _upsample(x: torch.Tensor, size: Sequence[int], *_: Any) -> torch.Tensor:
    return x.new_empty((*x.shape[:2], *size))


def _elementwise(first: torch.Tensor, second: Any, *rest: Any, **scale: Any) -> torch.Tensor | None:
    """Return a tensor of two alike, ``None`` where shapes or types have to be reconciled first."""
    alike = isinstance(second, torch.Tensor) and (first.shape, first.dtype) == (second.shape, second.dtype)
    return torch.empty_like(first) if alike else None


def _linear(_: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **__: Any) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], columns.shape[1]))


_aten = torch.ops.aten
_SHAPES: dict[Any, Callable] = {
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_batch_norm_backward.default: lambda g, x, *rest: _gradients(rest[-1], x, x.shape[1:2]),
    _aten.native_layer_norm.default: _layer_norm,
    _aten.native_layer_norm_backward.default: lambda g, x, shape, *rest: _gradients(rest[-1], x, shape),
    _aten.native_group_norm.default: _group_norm,
    _aten.native_group_norm_backward.default: lambda g, x, *rest: _gradients(rest[-1], x, x.shape[1:2]),
    _aten.upsample_bilinear2d.default: _upsample,
    _aten.upsample_trilinear3d.default: _upsample,
    _aten.add.Tensor: _elementwise,
    _aten.mul.Tensor: _elementwise,
    _aten.addmm.default: _linear,
    _aten.gelu.default: _like_first,
    _aten.gelu_backward.default: _like_second,
    _aten.leaky_relu_.default: lambda x, *_: x,
    _aten.leaky_relu_backward.default: _like_second,
    _aten.threshold_backward.default: _like_second,
    _aten.sigmoid_backward.default: _like_second,
    _aten._softmax_backward_data.default: _like_second,
}
