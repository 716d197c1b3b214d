"""A network that works at a fraction of its input's resolution, whatever network it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map

from monai_ccnet.files import shown
from monai_ccnet.networks.memory import on_meta
from monai_ccnet.scales import Scale, as_scale, per_axis, scale_words

__all__ = [
    "AtScale",
    "at_scale",
    "inner_def",
    "is_at_scale",
    "network_divisor",
    "scale_of",
    "uncompiled",
    "unwrapped",
]

_DIVISORS = (1, 2, 4, 8, 16, 32, 64, 128)


class AtScale(torch.nn.Module):
    """A network that averages its input down by a scale and interpolates its logits back up.

    The input is padded at its far ends, by repeating its edge, to a multiple of the scale and of what the network
    needs; the answer has the input's size. Of several outputs, as of deep supervision, each that is an image grows by
    the scale. The names in the state dict are those of the inner network, so that weights load in either; nothing in
    them tells the scale.

    Args:
        network: network of two or three spatial axes; in a config its ``_target_`` and arguments.
        scale: whole number from 1, or one for each spatial axis, such as ``[2, 2, 1]``.
        divisor: divisor of each axis of the network's input, or one for each. If ``None``, it is found by trying sizes
            on shapes alone.

    Raises:
        ValueError: if a scale or a divisor is no whole number from 1, or no divisor was found.

    >>> halved = AtScale(torch.nn.Conv2d(1, 3, kernel_size=1), scale=2)
    >>> halved(torch.zeros(1, 1, 5, 7)).shape, list(halved.state_dict())
    (torch.Size([1, 3, 5, 7]), ['weight', 'bias'])
    """

    def __init__(
        self, network: torch.nn.Module, scale: int | Sequence[int] = 1, divisor: int | Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if isinstance(network, AtScale):
            raise ValueError("the network works at a scale already: give its inner network.")
        self.network = network
        axes = _spatial_dims(network)
        self.scale = list(per_axis(scale, axes))
        found = _own_divisor(network, axes) if divisor is None else divisor
        self.divisor = list(per_axis(found, axes, "divisor"))
        self._register_state_dict_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inner network's answer for ``x``, ``(B, C, H, W[, D])``, at the size of ``x``."""
        size = list(x.shape[2:])
        if len(size) != len(self.scale):
            raise ValueError(f"the network takes inputs of {len(self.scale)} spatial axes, got {len(size)}.")
        ends: list[int] = []
        for length, scale, divisor in zip(size, self.scale, self.divisor):  # noqa: B905  # unknown to scripts
            multiple = scale * divisor
            ends = [0, (multiple - length % multiple) % multiple] + ends  # noqa: RUF005
        if max(ends) > 0:
            x = functional.pad(x, ends, mode="replicate")
        if max(self.scale) > 1:
            x = functional.avg_pool2d(x, self.scale) if len(size) == 2 else functional.avg_pool3d(x, self.scale)
        answer = self.network(x)
        if torch.jit.is_scripting():
            assert isinstance(answer, torch.Tensor)  # of several kinds, the one that a network gives in eval mode
            return self._restored(answer, list(x.shape[2:]), size)
        return self._each_restored(answer, list(x.shape[2:]), size)

    def _restored(self, answer: torch.Tensor, small: list[int], size: list[int]) -> torch.Tensor:
        """Return an answer, as large as the inner network's input or a whole fraction of it, grown and cropped."""
        axes = len(size)
        kept: list[int] = []
        for axis in range(axes):
            scale, length = self.scale[axis], answer.shape[2 + axis]
            padded = small[axis] * scale
            kept = kept + [(size[axis] * length * scale + padded - 1) // padded]  # noqa: RUF005
            needed = (kept[axis] + scale - 1) // scale + 1  # and one beyond, with which the last is blended
            if scale > 1 and needed < length:
                answer = answer.narrow(2 + axis, 0, needed)
        if max(self.scale) > 1:
            grown = [length * scale for length, scale in zip(answer.shape[2:], self.scale)]  # noqa: B905
            mode = "bilinear" if axes == 2 else "trilinear"
            if answer.dtype != torch.float64:
                answer = answer.float()
            answer = answer.contiguous()  # a few channels, last, take a CPU several times as long
            answer = functional.interpolate(answer, size=grown, mode=mode, align_corners=False)
        for axis in range(axes):
            if kept[axis] < answer.shape[2 + axis]:
                answer = answer.narrow(2 + axis, 0, kept[axis])
        return answer

    @torch.jit.unused
    def _each_restored(self, answer: Any, small: list[int], size: list[int]) -> Any:
        """Return an answer of any structure with each image in it restored."""
        axes = len(small)

        def restored(item: Any) -> Any:
            is_image = isinstance(item, torch.Tensor) and item.ndim in (axes + 2, axes + 3)
            if not is_image or any(whole % part for whole, part in zip(small, item.shape[-axes:], strict=True)):
                return item
            if item.ndim == axes + 3:  # several answers, stacked
                return self._restored(item.flatten(0, 1), small, size).unflatten(0, item.shape[:2])
            return self._restored(item, small, size)

        return tree_map(restored, answer)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the inner network's state dict; errors name its entries as it does."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)

    def extra_repr(self) -> str:
        """Return the scale and the divisor in words."""
        return f"scale={self.scale}, divisor={self.divisor}"


def _without_prefix(module: AtScale, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    """Name what the inner network holds as it does itself."""
    _rename(state_dict, f"{prefix}network.", prefix)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None and f"{prefix}network" in metadata:
        own = prefix.removesuffix(".")
        metadata[own] = metadata.pop(f"{prefix}network")
        _rename(metadata, f"{prefix}network.", prefix)


def _with_prefix(module: AtScale, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state_dict, prefix, f"{prefix}network.")  # a copy; what is told of versions is the caller's own


def _rename(names: Any, old: str, new: str) -> None:
    """Replace the beginning of names in place, in the order in which they are."""
    for name in list(names):
        value = names.pop(name)
        names[new + name.removeprefix(old) if name.startswith(old) else name] = value


def at_scale(network: torch.nn.Module, scale: int | Sequence[int]) -> torch.nn.Module:
    """Return a network that works at 1/``scale`` of its input: itself at 1, and as it is if it does so already.

    Raises:
        ValueError: if it works at another scale already.
    """
    if isinstance(network, AtScale):
        if tuple(network.scale) != per_axis(scale, len(network.scale)):
            raise ValueError(
                f"the network's config says that it works at 1/{scale_words(network.scale)}, and scale is "
                f"{scale_words(scale)}: give one of them."
            )
        return network
    return network if as_scale(scale) == 1 else AtScale(network, scale)


def unwrapped(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network within :class:`AtScale`, ``torch.compile`` and torch's two kinds of data parallelism."""
    network = uncompiled(network)
    return uncompiled(network.network) if isinstance(network, AtScale) else network


def uncompiled(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network within ``torch.compile`` and torch's two kinds of data parallelism; a scale stays."""
    while True:
        if isinstance(network, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), torch.nn.Module):  # of torch.compile
            network = inner
        else:
            return network


def network_divisor(network: torch.nn.Module) -> tuple[int, ...]:
    """Return the divisor of each axis of a network's input, found by trying sizes; within :class:`AtScale` its own.

    A network that takes inputs of one size alone has none that could be found, and gets 32.
    """
    network = uncompiled(network)
    if isinstance(network, AtScale):
        return tuple(network.divisor)
    axes = _spatial_dims(network)
    try:
        return _own_divisor(network, axes)
    except ValueError:
        return (32,) * axes


def _first_convolution(network: torch.nn.Module) -> _ConvNd:
    for module in network.modules():
        if isinstance(module, _ConvNd) and len(module.kernel_size) in (2, 3):
            return module
    raise ValueError(f"{type(network).__name__} has no convolution of two or three axes, so it cannot work at a scale.")


def _spatial_dims(network: torch.nn.Module) -> int:
    return len(_first_convolution(network).kernel_size)


def _own_divisor(network: torch.nn.Module, axes: int) -> tuple[int, ...]:
    """Return the divisor of each axis that a network of ours says, else the smallest with which it works.

    It works if it gives an answer of its input's size.
    """
    if type(network).__module__.startswith("monai_ccnet.") and hasattr(network, "divisor"):
        return (network.divisor,) * axes  # type: ignore[return-value]
    training, shapes = network.training, on_meta(network).eval()
    first = _first_convolution(network)

    def works(divisor: Sequence[int]) -> bool:
        sizes = ([_DIVISORS[-1] + odd * by for by in divisor] for odd in (1, 3))
        return all(
            _answers(shapes, torch.empty((1, first.in_channels, *size), dtype=first.weight.dtype, device="meta"))
            for size in sizes
        )

    try:
        common = next((by for by in _DIVISORS if works([by] * axes)), None)
        if common is None:
            raise ValueError(
                f"{type(network).__name__} takes no input whose axes are multiples of {_DIVISORS[-1]}: give AtScale "
                "the divisor of its input."
            )
        found = [common] * axes
        for axis in range(axes):
            smaller = ([*found[:axis], by, *found[axis + 1 :]] for by in _DIVISORS if by < common)
            found = next(filter(works, smaller), found)
    finally:
        network.train(training)
    return tuple(found)


def _answers(shapes: torch.nn.Module, image: torch.Tensor) -> bool:
    """Tell whether a network on meta gives an answer of the input's size."""
    try:
        with torch.no_grad():
            answer = shapes(image)
    except Exception:  # whatever it says, it does not take this size
        return False
    first = next((leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)), None)
    return first is not None and first.shape[-image.ndim + 2 :] == image.shape[2:]


def inner_def(network_def: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config of the network within :class:`AtScale`, or the config itself if it is of another network."""
    if not is_at_scale(network_def):
        return network_def
    inner = network_def.get("network")
    if not isinstance(inner, Mapping) or is_at_scale(inner):
        raise ValueError(f"AtScale holds the config of one network as its 'network', got {shown(inner)}.")
    return inner


def scale_of(network_def: Mapping[str, Any]) -> Scale:
    """Return the scale at which the network of a config works, 1 unless it is :class:`AtScale`'s."""
    return as_scale(network_def.get("scale", 1)) if is_at_scale(network_def) else 1


def is_at_scale(network_def: Mapping[str, Any]) -> bool:
    """Tell whether a config is that of :class:`AtScale`."""
    return network_def.get("_target_") in _NAMES


def wrapped_def(
    network_def: Mapping[str, Any], scale: int | Sequence[int], divisor: int | Sequence[int]
) -> dict[str, Any]:
    """Return the config of a network that works at 1/``scale``, in JSON types; the config itself at 1."""
    scale, divisor = as_scale(scale), as_scale(divisor, "divisor")
    if scale == 1:
        return dict(network_def)
    given = {"scale": scale, "divisor": divisor}
    plain = {key: value if isinstance(value, int) else list(value) for key, value in given.items()}
    return {"_target_": "monai_ccnet.networks.AtScale", **plain, "network": dict(network_def)}


_NAMES = ("monai_ccnet.networks.AtScale", f"{AtScale.__module__}.AtScale", "AtScale")
