"""The plan of a narrower network: its config, its sizes and its predicted score."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from monai_ccnet.complexity.ceiling import LabelCeiling
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints.budgets import AccuracyFloor, Budget, DiskBudget, InfeasibleConstraintError
from monai_ccnet.constraints.outlook import Outlook
from monai_ccnet.constraints.scale import choose_scale
from monai_ccnet.degradation import DegradationModel, Prediction, WidthLaw
from monai_ccnet.files import shown
from monai_ccnet.networks.family import NetworkFamily
from monai_ccnet.networks.latency import LatencyComparison
from monai_ccnet.networks.scaling import scale_of
from monai_ccnet.networks.size import NetworkSize, disk_bytes
from monai_ccnet.scales import Scale, resolution_words, scale_words
from monai_ccnet.values import Value, check_numbers

__all__ = ["CompressionPlan", "floor_of", "planned_network_def"]


_RULES = {
    None: "one multiplier for all stages",
    "complexity": "a separate width for each stage, from the complexity at its scale",
    "taper": "widths that fall from stage to stage",
}


@dataclass(frozen=True)
class CompressionPlan(Value):
    """A narrower network: its config, its sizes and its predicted score.

    Attributes:
        network_def: the narrowed network's MONAI config.
        multipliers: channels per channel of the full-size network, one per stage, in (0, 1].
        channels: width of each stage in channels.
        size: exact sizes of the narrowed network.
        full_size: exact sizes of the full-size network at full resolution.
        predicted: predicted score relative to that of the full-size network at the same scale; ``None`` without a
            profile.
        constraint: constraint that the plan meets; of several, the binding one.
        layerwise: whether each stage has a multiplier of its own.
        complexity: complexity profile that the plan is based on; ``None`` without one.
        degradation: law that the plan is based on.
        family: family of the full-size network: the network at any width.
        constraints: all constraints that were given.
        allocation: rule that gave each stage its own multiplier; ``None`` for a uniform plan.
        latency: latencies of the full-size and the planned network, measured in turns; ``None`` without a latency
            budget.
        ceiling: what the training labels keep at each scale; ``None`` where it was not measured.
        image_size: exact sizes of the narrowed network for one image of the data set's median size; ``None`` without.
        probability: probability that a training that learns reaches :attr:`floor`; ``None`` where unknown.
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
    degradation: DegradationModel | WidthLaw
    family: NetworkFamily
    constraints: tuple[Budget | AccuracyFloor, ...] = ()
    allocation: str | None = None
    latency: LatencyComparison | None = None
    ceiling: LabelCeiling | None = None
    image_size: NetworkSize | None = None
    probability: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_def", dict(self.network_def))
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "constraints", tuple(self.constraints) or (self.constraint,))
        if scale_of(self.network_def) != self.family.scale:
            raise ValueError(
                f"the plan's network works at 1/{scale_words(scale_of(self.network_def))} and its family at "
                f"1/{scale_words(self.family.scale)}: plan again."
            )
        if not all(0 < multiplier <= 1 for multiplier in self.multipliers):
            raise ValueError(f"multipliers must lie in (0, 1], got {shown(self.multipliers)}.")
        if self.allocation not in _RULES:
            raise ValueError(f"allocation must be one of {', '.join(map(str, _RULES))}, got {shown(self.allocation)}.")
        check_numbers("a plan", 0, probability=self.probability)
        if len(self.channels) != len(self.multipliers):
            raise ValueError(
                f"each stage has one width and one multiplier, got {shown([self.channels, self.multipliers])}."
            )

    @classmethod
    def _upgraded(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Add the family and the law, which plans of release 0.1 do not hold."""
        if "family" not in content and {"network_def", "channels", "multipliers"} <= set(content):
            narrowed = NetworkFamily.of(content["network_def"])
            full = [
                round(width / share) for width, share in zip(content["channels"], content["multipliers"], strict=True)
            ]
            content["family"] = NetworkFamily.of(narrowed.at(full)).to_dict()
        if content.get("degradation") is None and "network_def" in content:
            content["degradation"] = DegradationModel.named("calibrated", content["network_def"]).to_dict()
        return content

    @property
    def full_channels(self) -> tuple[int, ...]:
        """Width of each stage of the full-size network."""
        return self.family.channels

    @property
    def scale(self) -> Scale:
        """Factor by which the network averages its input down: one number, or one for each axis."""
        return self.family.scale

    @property
    def stage_scales(self) -> tuple[int, ...]:
        """Factor by which each stage's resolution is below that of the images, along the most subsampled axis."""
        return self.family.stage_scales

    @property
    def compression(self) -> float:
        """Weights of the full-size network per weight of the narrowed one."""
        return self.full_size.weights / self.size.weights

    @property
    def bits_per_weight(self) -> int:
        """Number of bits at which its budget stores a weight; 32 without one."""
        return min((each.bits_per_weight for each in self.constraints if isinstance(each, DiskBudget)), default=32)

    @property
    def is_extrapolated(self) -> bool:
        """Whether the network is smaller than any that the law was fitted to, so that its prediction may not hold."""
        if self.predicted is None:
            return False
        if isinstance(self.degradation, WidthLaw):
            return self._outlook.margin(self.channels) < -0.01
        return self.compression > 1.01 * self._outlook.covered_compression

    @property
    def assumption(self) -> str | None:
        """Difference from the network that the law was measured on; ``None`` if there is none."""
        return self._outlook.assumption

    @functools.cached_property
    def _outlook(self) -> Outlook:
        """What can be said of the law without the data set."""
        return Outlook(self.family, self.allocation, None, self.degradation, self.full_size.weights)

    @property
    def floor(self) -> float:
        """The least relative score that the plan's probability is stated for: its floor, or 95 %."""
        return floor_of(self.constraints)

    @property
    def chance_of_failing(self) -> float | None:
        """Probability that a training does not learn; ``None`` where unknown."""
        law = self.degradation
        if not isinstance(law, WidthLaw) or self.assumption is not None or not self.channels:
            return None
        return law.chance_of_failing(self.family.width(self.channels, law.measure))

    def check_file_bytes(self, file_bytes: int, name: str) -> None:
        """Raise an error if a file of weights exceeds a disk budget of this plan.

        Args:
            file_bytes: size of the file, in bytes.
            name: name of the file, for the message.

        Raises:
            InfeasibleConstraintError: if it is too large.
        """
        for each in self.constraints:
            if isinstance(each, DiskBudget) and file_bytes > each.max_bytes:
                raise InfeasibleConstraintError(
                    f"{name} has {file_bytes:,} bytes, the budget is {each.max_bytes:,}: write it with "
                    f"monai_ccnet.networks.save_weights at {each.bits_per_weight} bits or fewer."
                )

    def __str__(self) -> str:
        full = "-".join(map(str, self.full_channels))
        lines = [
            f"Requested: {'; '.join(map(str, self.constraints))}."
            + (f" Binding constraint: {self.constraint}." if len(self.constraints) > 1 else ""),
            f"Plan: {_RULES[self.allocation]}, channels {'-'.join(map(str, self.channels))} instead of {full}."
            if self.channels
            else "Plan: the network as it is, since its widths are not known.",
            *self.scale_lines,
            f"Size: {self.size.weights:,} weights instead of {self.full_size.weights:,} "
            f"({self.compression:.1f}x fewer), a file of {self._stored_words}{self.size.file_bytes:,} bytes at 32 bits "
            f"instead of {self.full_size.file_bytes:,}.",
        ]
        lines += self._budget_lines
        if self.size.macs is not None and self.full_size.macs is not None and self.size.activation_bytes is not None:
            shape = " x ".join(map(str, self.size.input_shape or ()))
            lines.append(
                f"For an input of {shape}: {_millions(self.size.macs)} million multiply-adds instead of "
                f"{_millions(self.full_size.macs)} ({self.full_size.macs / self.size.macs:.1f}x fewer), "
                f"{self.size.activation_bytes / 1e6:.1f} MB of activations."
            )
        if self.image_size is not None and self.image_size.macs is not None:
            shape = " x ".join(map(str, (self.image_size.input_shape or ())[2:]))
            activation_bytes = self.image_size.activation_bytes or 0
            lines.append(
                f"For an image of the median size, {shape}: {_millions(self.image_size.macs)} million multiply-adds, "
                f"{activation_bytes / 1e6:.1f} MB of activations."
            )
        if self.latency is not None:
            lines.append(f"Latency, measured in turns:\n{self.latency}.")
        if self.predicted is not None:
            interval = "interval unknown"
            if self.predicted.low is not None and self.predicted.high is not None:
                interval = f"{self.predicted.level:.0%} interval {self.predicted.low:.1%} to {self.predicted.high:.1%}"
            metric = self.degradation.metric.upper()
            lines.append(
                f"Predicted: {self.predicted.score:.1%} of the full-size network's {metric} ({interval}), relative to "
                f"another training of it, according to {self.degradation.source or 'the given law'}."
            )
            if self.probability is not None:
                lines[-1] += f" P({metric} >= {self.floor:.3g} of full size) = {self.probability:.2f}."
            if (failing := self.chance_of_failing) is not None and failing >= 0.01:
                lines.append(f"A training of so narrow a network fails to learn in {failing:.0%} of cases.")
            if self.is_extrapolated:
                covered = self._outlook.covered_compression
                least = f"compressed more than {covered:.0f}x" if 1 < covered < math.inf else "so small"
                lines.append(f"Extrapolation: no network {least} was measured, and the prediction may not hold.")
            if self.assumption is not None:
                lines.append(self.assumption)
        return "\n".join(lines)

    @property
    def _stored_words(self) -> str:
        """The bytes of the file as its budget stores it, where that is at fewer than 32 bits."""
        bits = self.bits_per_weight
        with contextlib.suppress(ValueError, TypeError):  # a config that builds no network, as a damaged file may hold
            if bits < 32:
                return f"{disk_bytes(self.network_def, bits):,} bytes at {bits} bits, or "
        return ""

    @property
    def _budget_lines(self) -> list[str]:
        """What the file takes of each disk budget, and what the next width would need where all stages share one."""
        lines = []
        for each in self.constraints:
            if not isinstance(each, DiskBudget):
                continue
            try:
                needed = each.needed(self.network_def)
            except (ValueError, TypeError):  # a config that builds no network, as a damaged file may hold
                return []
            words = f"Of {each.max_bytes:,} bytes at {each.bits_per_weight} bits it takes {needed:,}"
            words += f"; {each.max_bytes - needed:,} are left" if needed <= each.max_bytes else ""
            if len(self.channels) == 1 and self.channels[0] < self.full_channels[0]:
                wider = (self.channels[0] + self.family.multiples[0],)
                words += f", and {wider[0]} channels would need {each.needed(self.family.at(wider)):,}"
            lines.append(f"{words}.")
        return lines

    @property
    def scale_lines(self) -> list[str]:
        """What is to be said of the working scale; nothing where the network works at 1 and nothing else is known."""
        if self.ceiling is not None:
            chosen, reason = choose_scale(self.ceiling, self.family.coarsest)
            if chosen == self.scale:
                return [f"Scale: {reason}."]
            if self.scale in (1, *self.ceiling.scales):
                kept = f"labels keep {self.ceiling.worst(self.scale):.4f} of their Dice there"
                return [f"Scale: {resolution_words(self.scale)}; {kept}. By themselves they would choose: {reason}."]
        return [] if self.scale == 1 else [f"Scale: works at {resolution_words(self.scale)}."]


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.0f}" if macs >= 1e7 else f"{macs / 1e6:.2g}"


def floor_of(constraints: Iterable[Budget | AccuracyFloor]) -> float:
    """Return the least relative score that constraints ask for, or 0.95, for which a plan's probability is stated."""
    return max((each.min_score for each in constraints if isinstance(each, AccuracyFloor)), default=0.95)


def planned_network_def(path: str | os.PathLike, trusted: Collection[str] = ()) -> dict[str, Any] | None:
    """Return the config of the network of a plan's file, ``None`` if there is no such file.

    Args:
        path: path of the file.
        trusted: dotted names of networks that it may name, as in :meth:`CompressionPlan.load`.
    """
    return CompressionPlan.load(path, trusted).network_def if os.path.isfile(path) else None
