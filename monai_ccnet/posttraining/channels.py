"""Groups of channels that can be removed from a network, found by following one forward pass on shapes alone."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from monai_ccnet.networks.memory import on_meta

__all__ = ["ChannelGroup", "Place", "check_plain", "follow_channels"]

# Names of torch's functions without their underscores. Homogeneous and curved ones keep channels in place; homogeneous
# ones also scale their output as their input is scaled by a number above 0.
_HOMOGENEOUS = {
    *("relu", "leaky_relu", "prelu", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
    *("feature_alpha_dropout", "max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d"),
    *("adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "interpolate", "pad", "clone"),
    *("contiguous", "float", "to", "neg", "detach", "max_pool2d_with_indices", "max_pool3d_with_indices"),
}
_CURVED = {
    "sigmoid",
    "tanh",
    "elu",
    "gelu",
    "silu",
    "selu",
    "celu",
    "mish",
    "hardswish",
    "hardtanh",
    "relu6",
    "softplus",
}
_BINARY = {"add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "multiply", "maximum", "minimum"}
_CONVOLUTIONS = {f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)}
_NORMS = {"batch_norm", "instance_norm", "group_norm"}
_CONCATENATIONS = {"cat", "concat", "concatenate"}


class Place(NamedTuple):
    """Positions of a group's channels in a layer: among its filters, its inputs, or its numbers per channel."""

    layer: str
    side: str  # "out", "in" or "each"
    positions: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of the same layers, each of which can be removed from all layers that make, normalise or read it.

    Attributes:
        layers: names of the convolutions whose filters make the channels; outputs of several are added up.
        places: positions of the channels in each layer that holds them; behind a concatenation these are shifted.
        norm: name of the normalisation that directly follows the only convolution; ``None`` if there is none.
        blocks: number of blocks into which group normalisation splits the channels; each must lose equally many.
        homogeneous: whether scaling a channel after its normalisation scales what reads it; ReLU and leaky ReLU allow
            this.
    """

    layers: tuple[str, ...]
    places: tuple[Place, ...]
    norm: str | None = None
    blocks: int = 1
    homogeneous: bool = True

    def __len__(self) -> int:
        return len(self.places[0].positions)


_REMEDIES = {
    WeightNorm: ("weight_norm", "torch.nn.utils.remove_weight_norm(layer)"),
    SpectralNorm: ("spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)"),
    BasePruningMethod: ("a mask of torch.nn.utils.prune", "torch.nn.utils.prune.remove(layer, name)"),
}


def check_plain(network: torch.nn.Module, allowed: tuple[type[torch.nn.Module], ...] = ()) -> None:
    """Refuse a network with layers that calculate their weights from other tensors, which removing channels would miss.

    Args:
        network: any network.
        allowed: parametrizations that do no harm.

    Raises:
        ValueError: with the name of the first such layer, what it has, and how to remove it.
    """
    for layer, module in network.named_modules():
        for what, remedy in _calculated(module, allowed):
            raise ValueError(
                f"layer {layer!r} of the network has {what}, so its weights are calculated from other tensors: remove "
                f"that from each such layer first, by {remedy}."
            )


def _calculated(module: torch.nn.Module, allowed: tuple[type[torch.nn.Module], ...]) -> Iterator[tuple[str, str]]:
    """Yield what calculates tensors of a layer, and the call that removes it."""
    if parametrize.is_parametrized(module):
        for name, steps in module.parametrizations.items():  # type: ignore[union-attr, operator]
            if not all(isinstance(step, allowed) for step in steps):
                kind = type(steps[0]).__name__.strip("_")
                remedy = f"torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r})"
                yield f"the parametrization {kind}", remedy
    for hook in module._forward_pre_hooks.values():
        yield from (found for hook_type, found in _REMEDIES.items() if isinstance(hook, hook_type))


def follow_channels(network: torch.nn.Module, input_shape: Sequence[int]) -> list[ChannelGroup]:
    """Return the groups of channels that can be removed from a network, in the order in which they are made.

    A forward pass in eval mode is followed on shapes: convolutions (transposed ones too) make channels and read them,
    normalisation, activation, pooling and resampling keep them, additions tie them together, concatenations put them
    side by side. The channels of the input and of all outputs stay. So do those that reach any other operation, such as
    a reshape or a grouped convolution.

    Args:
        network: any network; it is neither run on data nor changed.
        input_shape: shape of an input that the network can take, ``(B, C, H, W[, D])``.

    Raises:
        ValueError: if the network cannot take an input of this shape, no channel can be removed (the message names
            the operations that hold them), or a layer calculates its weights from others (:func:`check_plain`).

    >>> first, second = torch.nn.Conv2d(1, 5, 3), torch.nn.Conv2d(5, 2, 1)
    >>> (group,) = follow_channels(torch.nn.Sequential(first, torch.nn.ReLU(), second), (1, 1, 8, 8))
    >>> len(group), [(place.layer, place.side) for place in group.places]
    (5, [('0', 'out'), ('2', 'in')])
    """
    check_plain(network)
    training = network.training
    shapes, image = on_meta(network).eval(), torch.empty(tuple(input_shape), device="meta")
    with torch.no_grad(), contextlib.ExitStack() as stack, _Follower(image) as follower:
        for name, module in shapes.named_modules():
            stack.callback(module.register_forward_pre_hook(follower.enter(name)).remove)
            stack.callback(module.register_forward_hook(follower.leave).remove)
        try:
            outputs = shapes(image)
        except (RuntimeError, ValueError) as error:
            name = type(network).__name__
            raise ValueError(f"{name} cannot take an input of shape {tuple(input_shape)}: {error}") from error
    network.train(training)
    for output in tree_leaves(outputs):
        follower.freeze(follower.channels_of(output), "the output")
    if groups := list(follower.groups()):
        return groups
    raise ValueError(
        f"no channel of {type(network).__name__} can be removed: all are held by {', '.join(sorted(follower.holders))}."
    )


class _Follower(TorchFunctionMode):
    """Numbers each channel that is made, and notes where it is read, normed, added to another, or held."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self._running: list[tuple[str, torch.nn.Module]] = []
        self._tied: list[int] = []  # for each channel the one it is tied to, itself if it is the first
        self._numbered: dict[tuple[str, str, int], int] = {}
        self._places: dict[tuple[str, str, int], int] = {}  # layer, side, position -> channel, in order
        self._frozen: set[int] = set()
        self._curved: set[int] = set()
        self._blocked: list[tuple[tuple[int, ...], int]] = []
        self._channels: dict[int, tuple[int, ...]] = {}
        self._kept: list[torch.Tensor] = []  # keeps tensors alive, so that ids stay unique
        self._made_by: dict[int, str] = {}  # id of the output of a convolution -> its name
        self._norms: dict[str, tuple[int, str]] = {}  # convolution -> id of its output, normalisation
        self._reads: Counter[int] = Counter()
        self.holders: set[str] = set()
        self._note(image, self._new(image.shape[1]))
        self.freeze(self.channels_of(image), "the input")

    def enter(self, name: str) -> Callable:
        """Return a hook that says which layer runs now."""
        return lambda module, _: self._running.append((name, module))

    def leave(self, *_: Any) -> None:
        """Say that the layer has run."""
        self._running.pop()

    def channels_of(self, tensor: Any) -> tuple[int, ...]:
        """Return the numbers of a tensor's channels, none if it holds no features."""
        return self._channels.get(id(tensor), ())

    def freeze(self, channels: Iterable[int], holder: str) -> None:
        """Note that channels must stay."""
        channels = set(channels)
        self._frozen |= channels
        if channels:
            self.holders.add(holder)

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if self.channels_of(leaf)]
        if not (made and read):
            return result
        self._reads.update(map(id, read))
        name = func.__name__.strip("_")
        rule = next((rule for names, rule in self._rules if name in names), None)
        channels = rule(self, name, read, made[0], args, kwargs) if rule else None
        if channels is None:
            for tensor in read:
                self.freeze(self.channels_of(tensor), name)
            for tensor in made:
                if tensor.dim() > 1:
                    self._note(tensor, self._new(tensor.shape[1]))
                    self.freeze(self.channels_of(tensor), name)
        else:
            for tensor in made:
                self._note(tensor, channels)
        return result

    def _convolution(self, name: str, read: list, made: torch.Tensor, *_: Any) -> tuple[int, ...] | None:
        layer, module = self._running[-1]
        if not isinstance(module, _ConvNd) or module.groups != 1 or len(read) != 1:
            return None
        self._put(layer, "in", self.channels_of(read[0]))
        self._made_by[id(made)] = layer
        return self._put(layer, "out", self._new(made.shape[1]))

    def _norm(self, name: str, read: list, made: torch.Tensor, *_: Any) -> tuple[int, ...] | None:
        (layer, module), channels = self._running[-1], self.channels_of(read[0])
        if not isinstance(module, (_NormBase, torch.nn.GroupNorm)):
            return None
        if isinstance(module, torch.nn.GroupNorm) and module.num_groups > 1:
            self._blocked.append((channels, module.num_groups))
        if id(read[0]) in self._made_by:
            self._norms[self._made_by[id(read[0])]] = (id(read[0]), layer)
        return self._put(layer, "each", channels)

    def _keep(self, name: str, read: list, made: torch.Tensor, args: Any, kwargs: Any) -> tuple[int, ...] | None:
        channels = self.channels_of(read[0])
        if len(read) != 1 or made.dim() != read[0].dim() or made.shape[1] != len(channels):
            return None
        if name == "prelu" and (args[1] if len(args) > 1 else kwargs["weight"]).numel() > 1:
            layer, module = self._running[-1]
            if not isinstance(module, torch.nn.PReLU):
                return None
            self._put(layer, "each", channels)
            self._curved.update(channels)  # each has a slope of its own
        pads_with = kwargs.get("value", args[3] if len(args) > 3 else None) if name == "pad" else None
        if name in _CURVED or pads_with:
            self._curved.update(channels)
        return channels

    def _binary(self, name: str, read: list, made: torch.Tensor, args: Any, kwargs: Any) -> tuple[int, ...] | None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.numel() > 1]
        numbered = [self.channels_of(tensor) for tensor in tensors]
        wide = [channels for channels in numbered if len(channels) == made.shape[1]]
        if not wide or not all(numbered):
            return None
        for channels in numbered:
            if len(channels) != len(wide[0]):
                self.freeze(channels, f"{name} of one channel to all")
        self._curved.update(*wide)
        for channels in wide[1:]:
            for one, other in zip(wide[0], channels, strict=True):
                self._tie(one, other)
        return wide[0]

    def _concatenate(self, name: str, read: list, made: torch.Tensor, args: Any, kwargs: Any) -> tuple | None:
        parts = args[0] if args else kwargs["tensors"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if dim not in (1, 1 - made.dim()) or not all(self.channels_of(part) for part in parts):
            return None
        return sum((self.channels_of(part) for part in parts), ())

    _rules = (
        (_CONVOLUTIONS, _convolution),
        (_NORMS, _norm),
        (_HOMOGENEOUS | _CURVED, _keep),
        (_BINARY, _binary),
        (_CONCATENATIONS, _concatenate),
    )

    def groups(self) -> Iterator[ChannelGroup]:
        """Yield channels that share all their layers, unless one of them must stay."""
        places: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for place, channel in self._places.items():
            places[self._first(channel)].append(place)
        frozen, curved = ({self._first(channel) for channel in marked} for marked in (self._frozen, self._curved))
        alike: dict[tuple, list[int]] = defaultdict(list)
        for channel, found in places.items():
            if channel not in frozen:
                alike[tuple((layer, side) for layer, side, _ in found)].append(channel)
        for layers_and_sides, channels in alike.items():
            if not any(side == "in" for _, side in layers_and_sides):  # unused in eval mode, used in training
                self.holders.add("an auxiliary output")
                continue
            blocks = self._blocks(channels)
            if blocks is None:
                self.holders.add("group normalisation")
                continue
            positions = zip(*([position for *_, position in places[channel]] for channel in channels), strict=True)
            sources = tuple(dict.fromkeys(layer for layer, side in layers_and_sides if side == "out"))
            yield ChannelGroup(
                layers=sources,
                places=tuple(
                    Place(layer, side, tuple(where))
                    for (layer, side), where in zip(layers_and_sides, positions, strict=True)
                ),
                norm=self._norm_of(sources),
                blocks=blocks,
                homogeneous=not curved.intersection(channels),
            )

    def _blocks(self, channels: list[int]) -> int | None:
        """Return into how many blocks channels are split, or ``None`` if the blocks hold other channels too."""
        blocks, own = 1, set(channels)
        for normed, count in self._blocked:
            numbers = [self._first(channel) for channel in normed]
            if own.intersection(numbers):
                if numbers != channels:
                    return None
                blocks = math.lcm(blocks, count)
        return blocks

    def _norm_of(self, layers: tuple[str, ...]) -> str | None:
        output, norm = self._norms.get(layers[0], (0, None))
        return norm if len(layers) == 1 and self._reads[output] == 1 else None

    def _new(self, count: int) -> tuple[int, ...]:
        first = len(self._tied)
        self._tied.extend(range(first, first + count))
        return tuple(range(first, first + count))

    def _note(self, tensor: torch.Tensor, channels: tuple[int, ...]) -> None:
        self._kept.append(tensor)
        self._channels[id(tensor)] = channels

    def _put(self, layer: str, side: str, channels: tuple[int, ...]) -> tuple[int, ...]:
        for position, channel in enumerate(channels):
            self._tie(self._places.setdefault((layer, side, position), channel), channel)
        return channels

    def _tie(self, one: int, other: int) -> None:
        one, other = sorted((self._first(one), self._first(other)))
        self._tied[other] = one

    def _first(self, channel: int) -> int:
        while self._tied[channel] != channel:
            self._tied[channel] = channel = self._tied[self._tied[channel]]
        return channel
