"""A budget or a floor -> the plan of a narrower network.

Every budget is solved against the true count of the narrowed network, never against a formula for it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.degradation import DegradationModel, Prediction, inverse_log_compression
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.narrowing import check_input_shape, default_input_shape, widths_of, with_widths
from monai_ccnet.networks.size import STORAGE_TYPES, NetworkSize, disk_bytes, kernel_weights, memory_bytes, network_size
from monai_ccnet.values import Value

__all__ = [
    "AccuracyFloor",
    "CompressionPlan",
    "DiskBudget",
    "InfeasibleConstraintError",
    "MemoryBudget",
    "compress",
    "compress_once",
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
        return disk_bytes(network_def, self.bits_per_weight, self.count)

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
        return memory_bytes(network_def, self.input_shape)

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

    A uniform plan has one multiplier, to the nearest width that the network can have, and its predicted score comes
    from the complexity at the input's scale and the true number of weights. In a layer-wise plan (sections 4.1 and 4.2
    of the paper) every stage loses the same share of the score at the complexity of its own scale, widths rounded up,
    and the plan's predicted score is that of its most degraded stage.

    A network whose stages all follow from one width (SegResNet, SegResNetDS, MedNeXt, SwinUNETR, UNETR) has a uniform
    plan whatever ``layerwise`` says, and the plan says so: ``plan.layerwise`` is ``False``.

    Args:
        network_def: the full-size network's MONAI config, with references resolved.
        constraint: a :class:`DiskBudget`, a :class:`MemoryBudget` or an :class:`AccuracyFloor`.
        complexity: profile of the data set; a uniform plan for a budget needs none.
        degradation: how fast the network loses accuracy; must hold for the profile's settings.
        layerwise: whether each stage gets a multiplier of its own, where it has a width of its own.
        input_shape: ``(B, C, H, W[, D])`` for which multiply-adds and memory are stated; if ``None``, one image of the
            paper's 128 x 128 patches or of 64 x 64 x 64 in 3-D, or of the next size that the network takes.

    Raises:
        InfeasibleConstraintError: if no width meets the constraint, with the smallest size that can be had.
        ValueError: if the profile or the model is missing, their settings differ, a scale is missing, or the network
            cannot take an input of the shape given.

    >>> unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    >>> compress(unet, DiskBudget(1_000_000, bits_per_weight=64, count="weights"), layerwise=False).channels
    (4, 8, 16, 32, 65)
    """
    network_def = network_def_of(network_def)
    stages = widths_of(network_def)
    layerwise = layerwise and stages.layerwise
    scales = stages.scales if layerwise else (1,)
    input_shape = tuple(input_shape) if input_shape is not None else default_input_shape(network_def)
    check_input_shape(network_def, input_shape)
    losses = _losses_per_decade(complexity, degradation, scales)
    if losses is None and (layerwise or isinstance(constraint, AccuracyFloor)):
        raise ValueError(
            "a layer-wise plan and an accuracy floor need complexity= (measure_dataset) and degradation= "
            "(DegradationModel); without them a budget can be planned with layerwise=False."
        )
    full_size = network_size(network_def, input_shape)
    curvature = degradation.curvature if degradation is not None else 0.0

    def uniform(decades: float) -> Channels:
        return stages.nearest([10.0**-decades] * len(stages.widths))

    def layered(loss: float) -> Channels:
        assert losses is not None
        compressions = [inverse_log_compression(loss / per_decade, curvature) for per_decade in losses]
        return stages.nearest([compression**-0.5 for compression in compressions], up=True)

    def compression_of(channels: Channels) -> float:
        return max(1.0, full_size.weights / kernel_weights(with_widths(network_def, channels)))

    channels_at, smallest = layered if layerwise else uniform, stages.nearest([0.0] * len(stages.widths))
    if not isinstance(constraint, AccuracyFloor):

        def needed_bytes(channels: Channels) -> int:
            return constraint.needed_bytes(with_widths(network_def, channels))

        budget, least_bytes = constraint.max_bytes, needed_bytes(smallest)
        if least_bytes > budget:
            raise InfeasibleConstraintError(
                f"no width fits: asked for {constraint}, and with {'-'.join(map(str, smallest))} channels the network "
                f"still needs {least_bytes:,} bytes. Allow as much, or take fewer stages."
            )

        def excess(channels: Channels) -> float:
            """Return decades above the budget: nearly a line, when what no width can save is taken off first."""
            return math.log10((needed_bytes(channels) - least_bytes + 0.5) / (budget - least_bytes + 0.5))

        channels = _crossing(channels_at, excess, smallest)[1]
    elif layerwise:
        channels = layered(1 - constraint.min_score)
    else:
        assert degradation is not None
        assert complexity is not None
        model, at_input, floor = degradation, complexity.at(1), constraint.min_score
        channels = _crossing(uniform, lambda c: model.predict(at_input, compression_of(c)) - floor, smallest)[0]

    narrowed = with_widths(network_def, channels)
    size = network_size(narrowed, input_shape)
    multipliers = tuple(width / base for width, base in zip(channels, stages.widths, strict=True))
    predicted = None
    if degradation is not None and complexity is not None:
        cases = [(complexity.at(1), max(1.0, full_size.weights / size.weights))]
        if layerwise:
            cases = [(complexity.at(scale), share**-2) for scale, share in zip(scales, multipliers, strict=True)]
        predicted = min((degradation.predict_interval(*case) for case in cases), key=lambda p: p.score)
    return CompressionPlan(
        network_def=narrowed,
        multipliers=multipliers,
        channels=channels,
        size=size,
        full_size=full_size,
        predicted=predicted,
        constraint=constraint,
        layerwise=layerwise,
        complexity=complexity,
        degradation=degradation,
    )


def compress_once(
    path: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraint: DiskBudget | MemoryBudget | AccuracyFloor,
    *,
    layerwise: bool = True,
    input_shape: Sequence[int] | None = None,
    **known: Any,
) -> CompressionPlan:
    """Return the plan that a file holds if it was made for all that is given, else make and save one.

    Args:
        path: the file, such as ``plan.json``.
        network_def: as in :func:`compress`, which makes a new one, as are the others.
        constraint: what the plan is for.
        layerwise: whether each stage gets a multiplier of its own.
        input_shape: for which multiply-adds and activations are stated; ``None`` is content with any.
        known: ``complexity`` and ``degradation``.
    """
    network_def = network_def_of(network_def)
    if os.path.exists(path):
        plan, stages = CompressionPlan.load(path), widths_of(network_def)
        full = tuple(round(width / share) for width, share in zip(plan.channels, plan.multipliers, strict=True))
        made_for = (plan.constraint, plan.layerwise, plan.complexity, plan.degradation, full)
        asked = (constraint, layerwise and stages.layerwise, known.get("complexity"), known.get("degradation"))
        if (
            made_for == (*asked, stages.widths)
            and plan.network_def == json.loads(json.dumps(with_widths(network_def, plan.channels)))  # lists for tuples
            and (input_shape is None or tuple(input_shape) == plan.size.input_shape)
        ):
            return plan
    plan = compress(network_def, constraint, layerwise=layerwise, input_shape=input_shape, **known)
    plan.save(path)
    return plan


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


def _crossing(
    channels_at: Callable[[float], Channels], height: Callable[[Channels], float], smallest: Channels
) -> tuple[Channels, Channels]:
    """Return the last channels at which a falling height is above 0 and the first at which it is not.

    The channels fall as ``x`` grows from 0, at last to the smallest. If the height is never above 0, or always, both
    are the widest or both the smallest. Heights are found by building networks, so a few must do: the next is where the
    line through the last two is 0, or in the middle if three lines did not halve the interval.
    """
    known: dict[Channels, float] = {}

    def height_at(x: float) -> float:
        channels = channels_at(x)
        if channels not in known:
            known[channels] = height(channels)
        return known[channels]

    low, high = 0.0, 1.0
    if height_at(low) <= 0:
        return channels_at(low), channels_at(low)
    while channels_at(high) != smallest:
        high *= 2
    high = _reaches(channels_at, low, high)[1]
    if height_at(high) > 0:
        return smallest, smallest
    before, last, lines, length = low, high, 0, high - low
    while True:
        wide, narrow = channels_at(low), channels_at(high)
        next_narrower = _leaves(channels_at, low, high)
        if channels_at(next_narrower) == narrow:
            return wide, narrow
        next_wider = _reaches(channels_at, next_narrower, high)[0]
        x, rise = (low + high) / 2, height_at(last) - height_at(before)
        if lines < 3 and rise != 0:
            x = last - height_at(last) * (last - before) / rise
        x = min(max(x, next_narrower), next_wider)
        before, last, lines = last, x, lines + 1
        low, high = (x, high) if height_at(x) > 0 else (low, x)
        if high - low < length / 2:
            lines, length = 0, high - low


def _leaves(channels_at: Callable[[float], Channels], low: float, high: float) -> float:
    """Return the first x at which the channels are others than at the low end."""
    wide = channels_at(low)
    return _edge(lambda x: channels_at(x) != wide, low, high)[1]


def _edge(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return the last x at which a condition does not hold yet and the first at which it does, by bisection."""
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _reaches(channels_at: Callable[[float], Channels], low: float, high: float) -> tuple[float, float]:
    """Return the last x at which the channels are others than at the high end, and the first at which they are not."""
    narrow = channels_at(high)
    return _edge(lambda x: channels_at(x) == narrow, low, high)
