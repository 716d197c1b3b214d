"""A budget or a floor -> the plan of a narrower network.

Every budget is solved against the true count of the narrowed network, never against a formula for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.degradation import DegradationModel, Prediction, inverse_log_compression
from monai_ccnet.networks.narrowing import network_def_of, rounded, widths_of
from monai_ccnet.networks.size import STORAGE_TYPES, NetworkSize, file_bytes, network_size
from monai_ccnet.values import Value

__all__ = [
    "AccuracyFloor",
    "CompressionPlan",
    "DiskBudget",
    "InfeasibleConstraintError",
    "MemoryBudget",
    "compress",
]

Channels = tuple[int, ...]


class InfeasibleConstraintError(ValueError):
    """No width of the network meets the constraint; the message says what can be had."""


@dataclass(frozen=True)
class DiskBudget(Value):
    """The most bytes a network may take on disk.

    Two numbers must both keep to it: the count of weights at ``bits_per_weight`` bits each, and the bytes of the file
    that is really written (at 16 bits or at 32, never more), frame, biases and normalisation included.

    Attributes:
        max_bytes: the budget in bytes.
        bits_per_weight: 16, 32 or 64.
        count: ``"parameters"``, all that is trainable, or ``"weights"``, kernels alone as in the paper.
    """

    max_bytes: int
    bits_per_weight: int = 32
    count: str = "parameters"

    def __post_init__(self) -> None:
        _check_bytes("a disk budget", self.max_bytes)
        if self.bits_per_weight not in STORAGE_TYPES:
            raise ValueError(f"bits_per_weight must be one of {sorted(STORAGE_TYPES)}, got {self.bits_per_weight!r}.")
        if self.count not in ("parameters", "weights"):
            raise ValueError(f"count must be 'parameters' or 'weights', got {self.count!r}.")

    def needed_bytes(self, network_def: Mapping[str, Any]) -> int:
        """Return what a network needs of this budget."""
        size = network_size(network_def)
        counted = math.ceil(getattr(size, self.count) * self.bits_per_weight / 8)
        return max(
            counted, file_bytes(network_def, self.bits_per_weight) if self.bits_per_weight < 32 else size.file_bytes
        )

    def __str__(self) -> str:
        return f"at most {self.max_bytes:,} bytes on disk ({self.count} at {self.bits_per_weight} bits, and the file)"


@dataclass(frozen=True)
class MemoryBudget(Value):
    """The most bytes that a network and the tensors of a forward pass may take in memory, in eval mode at 32 bits.

    Attributes:
        max_bytes: the budget in bytes.
        input_shape: ``(B, C, H, W[, D])`` of the input.
    """

    max_bytes: int
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_bytes("a memory budget", self.max_bytes)
        object.__setattr__(self, "input_shape", tuple(self.input_shape))

    def needed_bytes(self, network_def: Mapping[str, Any]) -> int:
        """Return what a network needs of this budget: its state, and the tensors alive together at the peak."""
        size = network_size(network_def, self.input_shape)
        return size.state_bytes + (size.activation_bytes or 0)

    def __str__(self) -> str:
        return f"at most {self.max_bytes:,} bytes in memory for an input of {' x '.join(map(str, self.input_shape))}"


def _check_bytes(what: str, max_bytes: Any) -> None:
    if not (isinstance(max_bytes, (int, float)) and math.isfinite(max_bytes) and max_bytes > 0):
        raise ValueError(f"{what} must be a number of bytes above 0, got {max_bytes!r}.")


@dataclass(frozen=True)
class AccuracyFloor(Value):
    """The least score that must be kept, relative to the full-size network's.

    Attributes:
        min_score: above 0 and at most 1, which is the full-size network's own score.
    """

    min_score: float

    def __post_init__(self) -> None:
        if not (isinstance(self.min_score, (int, float)) and self.min_score > 0):
            raise ValueError(f"a floor must be a relative score above 0 and at most 1, got {self.min_score!r}.")
        if self.min_score > 1:
            raise InfeasibleConstraintError(
                f"no network keeps {self.min_score} of the full-size network's score: the highest that can be had is "
                "1.0, that of the full-size network itself. Give the floor relative to it, such as 0.95."
            )

    def __str__(self) -> str:
        return f"at least {self.min_score:.1%} of the full-size network's score"


@dataclass(frozen=True)
class CompressionPlan(Value):
    """A narrower network: what it is, how large it is, and what it is expected to reach.

    Attributes:
        network_def: the narrowed network's MONAI config.
        multipliers: channels left per channel of the full-size network, one a stage, in (0, 1].
        channels: width of each stage.
        size: exact sizes of the narrowed network.
        full_size: exact sizes of the full-size network.
        predicted: score relative to the full-size network's; ``None`` where no model and profile were given.
        constraint: what the plan was made for.
        layerwise: whether each stage has a multiplier of its own.
        complexity: the profile that the plan rests on, if any.
        degradation: the model that the plan rests on, if any.
    """

    network_def: dict[str, Any]
    multipliers: tuple[float, ...]
    channels: tuple[int, ...]
    size: NetworkSize
    full_size: NetworkSize
    predicted: Prediction | None
    constraint: DiskBudget | MemoryBudget | AccuracyFloor
    layerwise: bool
    complexity: ComplexityProfile | None
    degradation: DegradationModel | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_def", dict(self.network_def))
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "channels", tuple(self.channels))
        if not all(0 < multiplier <= 1 for multiplier in self.multipliers):
            raise ValueError(f"multipliers must lie in (0, 1], got {self.multipliers}.")

    @property
    def compression(self) -> float:
        """Weights of the full-size network per weight of the narrowed one."""
        return self.full_size.weights / self.size.weights

    def __str__(self) -> str:
        full = "-".join(str(round(c / m)) for c, m in zip(self.channels, self.multipliers, strict=True))
        lines = [
            f"Asked for: {self.constraint}.",
            f"Plan: {'a width of its own for each stage' if self.layerwise else 'one multiplier for all stages'}, "
            f"channels {'-'.join(map(str, self.channels))} instead of {full}.",
            f"Size: {self.size.weights:,} weights instead of {self.full_size.weights:,} "
            f"({self.compression:.1f}x fewer), a file of {self.size.file_bytes:,} bytes at 32 bits instead of "
            f"{self.full_size.file_bytes:,}.",
        ]
        if self.size.macs is not None and self.full_size.macs is not None and self.size.activation_bytes is not None:
            shape = " x ".join(map(str, self.size.input_shape or ()))
            lines.append(
                f"For an input of {shape}: {self.size.macs / 1e6:,.0f} million multiply-adds instead of "
                f"{self.full_size.macs / 1e6:,.0f} ({self.full_size.macs / self.size.macs:.1f}x fewer), "
                f"{self.size.activation_bytes / 1e6:.1f} MB of activations."
            )
        if self.predicted is not None and self.degradation is not None:
            interval = "no interval is known"
            if self.predicted.low is not None and self.predicted.high is not None:
                interval = f"{self.predicted.level:.0%} interval {self.predicted.low:.1%} to {self.predicted.high:.1%}"
            lines.append(
                f"Predicted: {self.predicted.score:.1%} of the full-size network's {self.degradation.metric.upper()} "
                f"({interval}), by {self.degradation.source or 'the model given'}."
            )
        return "\n".join(lines)


def compress(
    network_def: Mapping[str, Any],
    constraint: DiskBudget | MemoryBudget | AccuracyFloor,
    *,
    complexity: ComplexityProfile | None = None,
    degradation: DegradationModel | None = None,
    layerwise: bool = True,
    input_shape: Sequence[int] | None = None,
) -> CompressionPlan:
    """Plan the narrowest network that keeps to a floor, or the widest that fits a budget.

    A uniform plan has one multiplier, to the nearest channel, and its predicted score comes from the complexity at
    the input's scale and the true number of weights. In a layer-wise plan (sections 4.1 and 4.2 of the paper) every
    stage loses the same share of the score at the complexity of its own scale, channels rounded up, and the plan's
    predicted score is that of its most degraded stage.

    Args:
        network_def: the full-size network's MONAI config, with references resolved.
        constraint: a :class:`DiskBudget`, a :class:`MemoryBudget` or an :class:`AccuracyFloor`.
        complexity: profile of the data set; a uniform plan for a budget needs none.
        degradation: how fast the network loses accuracy; must hold for the profile's settings.
        layerwise: whether each stage gets a multiplier of its own.
        input_shape: ``(B, C, H, W[, D])`` for which multiply-adds and activations are stated; one image of the paper's
            128 x 128 patches, or of 64 x 64 x 64 in 3-D, if ``None``.

    Raises:
        InfeasibleConstraintError: if no width meets the constraint, with the smallest size that can be had.
        ValueError: if the profile or the model is missing, their settings differ, or a scale is missing.

    >>> unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    >>> compress(unet, DiskBudget(1_000_000, bits_per_weight=64, count="weights"), layerwise=False).channels
    (4, 8, 16, 32, 65)
    """
    network_def = network_def_of(network_def)
    argument, full, scales = widths_of(network_def)
    full_size = network_size(network_def, input_shape := input_shape or _default_input_shape(network_def))
    losses = _losses_per_decade(complexity, degradation, scales)
    if losses is None and (layerwise or isinstance(constraint, AccuracyFloor)):
        raise ValueError(
            "a layer-wise plan and an accuracy floor need complexity= (measure_dataset) and degradation= "
            "(DegradationModel); without them a budget can be planned with layerwise=False."
        )
    curvature = degradation.curvature if degradation is not None else 0.0

    def with_channels(channels: Channels) -> dict[str, Any]:
        return {**network_def, argument: list(channels)}

    def uniform(share: float) -> Channels:
        return tuple(rounded(width * share) for width in full)

    def layered(loss: float) -> Channels:
        assert losses is not None
        compressions = [inverse_log_compression(loss / per_decade, curvature) for per_decade in losses]
        return tuple(
            max(1, math.ceil(width / math.sqrt(compression) - 1e-9))
            for width, compression in zip(full, compressions, strict=True)
        )

    def compression_of(channels: Channels) -> float:
        return max(1.0, full_size.weights / network_size(with_channels(channels)).weights)

    if not isinstance(constraint, AccuracyFloor):

        def fits(channels: Channels) -> bool:
            return constraint.needed_bytes(with_channels(channels)) <= constraint.max_bytes

        if not fits(smallest := (1,) * len(full)):
            raise InfeasibleConstraintError(
                f"no width fits: asked for {constraint}, and with one channel a stage the network still needs "
                f"{constraint.needed_bytes(with_channels(smallest)):,} bytes. Allow as much, or take fewer stages."
            )
        channels = _widest(layered, fits) if layerwise else _widest(lambda x: uniform(10.0**-x), fits)
    elif layerwise:
        channels = layered(1 - constraint.min_score)
    else:
        assert degradation is not None
        assert complexity is not None
        model, at_input = degradation, complexity.at(1)

        def falls_below(channels: Channels) -> bool:
            return model.predict(at_input, compression_of(channels)) < constraint.min_score

        channels = _narrowest(lambda x: uniform(10.0**-x), falls_below)

    narrowed = with_channels(channels)
    multipliers = tuple(width / base for width, base in zip(channels, full, strict=True))
    predicted = None
    if degradation is not None and complexity is not None:
        stages = [(complexity.at(scale), multiplier**-2) for scale, multiplier in zip(scales, multipliers, strict=True)]
        cases = stages if layerwise else [(complexity.at(1), compression_of(channels))]
        predicted = min((degradation.predict_interval(*case) for case in cases), key=lambda p: p.score)
    return CompressionPlan(
        network_def=narrowed,
        multipliers=multipliers,
        channels=channels,
        size=network_size(narrowed, input_shape),
        full_size=full_size,
        predicted=predicted,
        constraint=constraint,
        layerwise=layerwise,
        complexity=complexity,
        degradation=degradation,
    )


def _losses_per_decade(
    complexity: ComplexityProfile | None, degradation: DegradationModel | None, scales: Sequence[int]
) -> list[float] | None:
    """Return the loss of score per decade of weights of each stage, ``None`` without a profile or a model."""
    if complexity is None or degradation is None:
        return None
    degradation.check_settings(complexity.settings)
    if missing := sorted(set(scales) - set(complexity.scales)):
        raise ValueError(
            f"the network has stages at the scales {tuple(scales)}, the profile of {complexity.dataset!r} only "
            f"{complexity.scales}: measure the data set again with scale {', '.join(map(str, missing))} too."
        )
    losses = [degradation.loss_per_decade(complexity.at(scale)) for scale in scales]
    if min(losses) <= 0:
        raise ValueError(
            f"the model predicts no loss at all ({min(losses):.4g} per decade of weights) for the complexities "
            f"{complexity.mean}: they lie outside what it was fitted on. Fit a model that covers them."
        )
    return losses


def _default_input_shape(network_def: Mapping[str, Any]) -> tuple[int, ...]:
    patch = (64,) * 3 if network_def.get("spatial_dims", 2) == 3 else (128,) * 2
    return (1, network_def.get("in_channels", 1), *patch)


def _widest(channels_at: Callable[[float], Channels], fits: Callable[[Channels], bool]) -> Channels:
    """Return the channels at the smallest ``x >= 0`` that fit; they fall as ``x`` grows, and at last fit."""
    if fits(channels_at(0.0)):
        return channels_at(0.0)
    return _crossing(channels_at, fits)[1]


def _narrowest(channels_at: Callable[[float], Channels], too_narrow: Callable[[Channels], bool]) -> Channels:
    """Return the channels at the largest ``x >= 0`` that are not yet too narrow; they fall as ``x`` grows."""
    if too_narrow(channels_at(0.0)):
        return channels_at(0.0)
    if not too_narrow((1,) * len(channels_at(0.0))):
        return (1,) * len(channels_at(0.0))
    return _crossing(channels_at, too_narrow)[0]


def _crossing(channels_at: Callable[[float], Channels], holds: Callable[[Channels], bool]) -> tuple[Channels, Channels]:
    """Return the last channels for which ``holds`` is false and the first for which it is true, by bisection.

    Networks are counted once for each width met on the way, some twenty times in all.
    """
    known: dict[Channels, bool] = {}

    def check(channels: Channels) -> bool:
        if channels not in known:
            known[channels] = holds(channels)
        return known[channels]

    low, high = 0.0, 1.0
    while not check(channels_at(high)):
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if check(channels_at(middle)) else (middle, high)
    return channels_at(low), channels_at(high)
