"""What compression yields: a narrower network, its sizes, and what it is expected to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.budgets import AccuracyFloor, Budget
from monai_ccnet.degradation import DegradationModel, Prediction
from monai_ccnet.networks.latency import LatencyComparison
from monai_ccnet.networks.size import NetworkSize
from monai_ccnet.values import Value

__all__ = ["CompressionPlan"]


_RULES = {
    None: "one multiplier for all stages",
    "complexity": "a width of its own for each stage by the complexity at its scale",
    "taper": "widths that fall from stage to stage",
}


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
        constraint: what the plan was made for; of several constraints the one that binds.
        layerwise: whether each stage has a multiplier of its own.
        complexity: the profile that the plan rests on, if any.
        degradation: the model that the plan rests on, if any.
        constraints: all that was asked for.
        allocation: the rule by which each stage got its own multiplier; ``None`` for a uniform plan.
        latency: of a plan for a latency budget, both networks measured in turns once it was made.
    """

    network_def: dict[str, Any]
    multipliers: tuple[float, ...]
    channels: tuple[int, ...]
    size: NetworkSize
    full_size: NetworkSize
    predicted: Prediction | None
    constraint: Budget | AccuracyFloor
    layerwise: bool
    complexity: ComplexityProfile | None
    degradation: DegradationModel | None
    constraints: tuple[Budget | AccuracyFloor, ...] = ()
    allocation: str | None = None
    latency: LatencyComparison | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_def", dict(self.network_def))
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "constraints", tuple(self.constraints) or (self.constraint,))
        if not all(0 < multiplier <= 1 for multiplier in self.multipliers):
            raise ValueError(f"multipliers must lie in (0, 1], got {self.multipliers}.")
        if len(self.channels) != len(self.multipliers):
            raise ValueError(f"each stage has one width and one multiplier, got {self.channels}, {self.multipliers}.")

    @property
    def compression(self) -> float:
        """Weights of the full-size network per weight of the narrowed one."""
        return self.full_size.weights / self.size.weights

    @property
    def is_extrapolated(self) -> bool:
        """Whether the network is smaller than any that the model was fitted to, so that its prediction may not hold."""
        if self.degradation is None:
            return False
        return self.compression > 1.01 * self.degradation.covered_compression(self.full_size.weights)

    def __str__(self) -> str:
        full = "-".join(str(round(c / m)) for c, m in zip(self.channels, self.multipliers, strict=True))
        lines = [
            f"Asked for: {'; '.join(map(str, self.constraints))}."
            + (f" What binds is {self.constraint}." if len(self.constraints) > 1 else ""),
            f"Plan: {_RULES[self.allocation]}, channels {'-'.join(map(str, self.channels))} instead of {full}.",
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
        if self.latency is not None:
            lines.append(f"Measured in turns:\n{self.latency}.")
        if self.predicted is not None and self.degradation is not None:
            interval = "no interval is known"
            if self.predicted.low is not None and self.predicted.high is not None:
                interval = f"{self.predicted.level:.0%} interval {self.predicted.low:.1%} to {self.predicted.high:.1%}"
            lines.append(
                f"Predicted: {self.predicted.score:.1%} of the full-size network's {self.degradation.metric.upper()} "
                f"({interval}), by {self.degradation.source or 'the model given'}."
            )
            if self.is_extrapolated:
                covered = self.degradation.covered_compression(self.full_size.weights)
                least = f"beyond {covered:.0f}x fewer weights than these" if covered > 1 else "as small as these"
                lines.append(f"This is an extrapolation: nothing {least} was measured, and the interval may not hold.")
        return "\n".join(lines)
