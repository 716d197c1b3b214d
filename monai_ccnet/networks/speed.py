"""Training steps of narrow networks that take less time on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["faster_steps"]

# Of glibc's mallopt(3), and the largest that its own adjustment would end at.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 * 2**20

# Batch normalisations are folded below so many channels, which would fill a vector register, and from so many pixels
# on, as for fewer the folding costs more than it saves.
_CHANNELS = 16
_PIXELS = 2**14
_ROW = 64  # pixels side by side


@contextlib.contextmanager
def faster_steps(network: torch.nn.Module) -> Iterator[None]:
    """Train a network within this context in less time on a CPU; what it calculates differs by rounding alone.

    The process keeps the memory of a step's activations for the next step. And layers at which torch 2.13 is slow are
    calculated in another way that comes to the same:

    - Batch normalisation of few channels: torch vectorises over channels, so that most of a vector register is empty.
      Here 64 pixels count as channels of their own, and their statistics are brought together.
    - ``network.train()``, which MONAI's engine calls at each step, returns at once where every layer trains already.
    - At ``bfloat16``, a transposed convolution whose stride is its kernel is one matrix product for each pixel, and
      pixels of two dimensions are pooled at ``float32``.

    Args:
        network: any network; its layers are as before at the end.
    """
    layers = [each for each in network.modules() if type(each) in _FORWARDS and "forward" not in vars(each)]
    for layer in layers:
        layer.forward = types.MethodType(_FORWARDS[type(layer)], layer)
    switched = "train" not in vars(network) and all(type(each).train is _TRAIN for each in network.modules())
    if switched:
        network.train = types.MethodType(_train, network)  # type: ignore[method-assign]
    try:
        with _kept_memory():
            yield
    finally:
        for layer in layers:
            del layer.forward
        if switched:
            del network.train


@contextlib.contextmanager
def _kept_memory() -> Iterator[None]:
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
        libc.malloc_trim(0)


def _train(self: Any, mode: bool = True) -> Any:
    return self if all(each.training == mode for each in self.modules()) else _TRAIN(self, mode)


def _at_bfloat16(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu").itemsize == 2


def _pool(self: Any, x: torch.Tensor) -> torch.Tensor:
    own = type(self).forward
    return own(self, x.float()).to(x.dtype) if _at_bfloat16(x) and not self.return_indices else own(self, x)


def _transposed_convolution(self: Any, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
    kernel, dims = self.kernel_size, x.ndim - 2
    is_tiling = kernel == self.stride and not any((*self.padding, *self.output_padding)) and self.groups == 1
    if not (is_tiling and set(self.dilation) == {1} and output_size is None and _at_bfloat16(x)):
        return type(self).forward(self, x, output_size)
    weight = self.weight.permute(*range(2, x.ndim), 1, 0).flatten(end_dim=-2)
    bias = None if self.bias is None else self.bias.repeat(len(weight) // self.out_channels)
    tiles = functional.linear(x.movedim(1, -1), weight, bias).unflatten(-1, (*kernel, self.out_channels))
    pairs = [axis for each in range(dims) for axis in (1 + each, 1 + dims + each)]
    size = [length * times for length, times in zip(x.shape[2:], kernel, strict=True)]
    return tiles.permute(0, *pairs, -1).reshape(len(x), *size, self.out_channels).movedim(-1, 1)


def _normalisation(self: Any, x: torch.Tensor) -> torch.Tensor:
    channels = x.shape[1]
    pixels = x.numel() // channels
    if (
        not (self.training and self.affine and self.track_running_stats and self.momentum is not None)
        or x.device.type != "cpu"
        or self.weight.dtype not in (torch.float32, torch.float64)  # in which statistics are brought together
        or channels >= _CHANNELS
        or pixels < _PIXELS
        or pixels % _ROW
        or not x.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    ):
        return type(self).forward(self, x)
    self.num_batches_tracked.add_(1)
    last = x.movedim(1, -1)
    rows, mean, variance = _FoldedNorm.apply(last.reshape(-1, _ROW * channels), self.weight, self.bias, self.eps)
    self.running_mean.lerp_(mean, self.momentum)
    self.running_var.lerp_(variance * (pixels / (pixels - 1)), self.momentum)
    return rows.view_as(last).movedim(-1, 1)


_TRAIN = torch.nn.Module.train
_FORWARDS: dict[type, Any] = {
    torch.nn.BatchNorm2d: _normalisation,
    torch.nn.BatchNorm3d: _normalisation,
    torch.nn.ConvTranspose2d: _transposed_convolution,
    torch.nn.ConvTranspose3d: _transposed_convolution,
    torch.nn.MaxPool2d: _pool,
}


class _FoldedNorm(torch.autograd.Function):
    """Normalised rows of 64 pixels, of shape ``(N, 64 C)``, and mean and variance of each channel."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        unused = torch.zeros(2, rows.shape[1], dtype=weight.dtype)  # without, statistics are as imprecise as the rows
        found = torch.batch_norm_update_stats(rows, unused[0], unused[1], 0.0)
        mean, variance = (each.view(_ROW, -1) for each in found)
        between = (mean - mean.mean(0)).square().mean(0)
        mean, variance = mean.mean(0), variance.mean(0) + between
        tiled = _tiled(mean, variance, weight, bias)
        y = functional.batch_norm(rows, tiled[0], tiled[1], tiled[2], tiled[3], eps=eps)
        ctx.save_for_backward(rows, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        rows, weight, mean, variance = ctx.saved_tensors
        grad, pixels = grad.contiguous(), len(rows) * _ROW
        tiled = _tiled(weight, mean, variance)
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            grad, rows, *tiled, None, None, False, ctx.eps, [False, True, True]
        )
        of_weight, of_bias = (each.view(_ROW, -1).sum(0) for each in sums)
        inverse = (variance + ctx.eps).rsqrt()
        # scale * (grad - of_bias / pixels) + slope * (rows - mean), rounded once: errors of bfloat16 that many pixels
        # share would add up to a gradient of the biases before.
        scale = weight * inverse
        slope = -scale * inverse * of_weight / pixels
        scales, slopes, shift = _tiled(scale, slope, -scale * of_bias / pixels - slope * mean)
        of_rows = torch.addcmul(shift, grad.to(shift), scales).addcmul_(rows.to(shift), slopes)
        return of_rows.to(rows), of_weight, of_bias, None


def _tiled(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each vector of ``C`` channels 64 times, of shape ``(64 C,)``."""
    return torch.stack(values).unsqueeze(1).expand(-1, _ROW, -1).flatten(1).unbind()
