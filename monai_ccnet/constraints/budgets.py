"""Budgets that a network must not exceed, and floors for the score that it must keep."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ccnet.files import shown
from monai_ccnet.networks.latency import Latency, LatencyComparison, compare_latency, measure_latency
from monai_ccnet.networks.size import Countable, disk_bytes, forward_macs, memory_bytes
from monai_ccnet.networks.storage import STORAGE_TYPES, WEIGHTS_FORMATS
from monai_ccnet.values import Value, check_shape_of

__all__ = [
    "AccuracyFloor",
    "Budget",
    "ComputeBudget",
    "DiskBudget",
    "InfeasibleConstraintError",
    "LatencyBudget",
    "MemoryBudget",
]


class InfeasibleConstraintError(ValueError):
    """No width of the network meets the constraint; the message says what is possible."""


class Budget(Value, ABC):
    """An upper limit on a size or a time that grows with the width of a network."""

    @property
    @abstractmethod
    def limit(self) -> float:
        """The largest amount allowed."""

    @abstractmethod
    def needed(self, network_def: Countable) -> float:
        """Return the amount that a network, given as its config or itself, needs, in the unit of the limit."""

    @abstractmethod
    def words(self, amount: float) -> str:
        """Return an amount with its unit."""

    def holds_again(self, network_def: Countable) -> bool:
        """Return whether a network that fitted still fits when measured again; counted sizes always do."""
        return True


@dataclass(frozen=True)
class DiskBudget(Budget):
    """The largest number of bytes that a network may take on disk.

    Two sizes must both be within the budget: the counted weights at ``bits_per_weight`` bits each, and the file that is
    written (at 8, 16 or 32 bits), with its headers, biases and normalisation.

    Attributes:
        max_bytes: the budget in bytes.
        bits_per_weight: number of bits of a weight: 8, 16, 32 or 64.
        count: kind of weights that count: ``"parameters"``, all trainable ones, or ``"weights"``, kernels alone as in
            the paper.
        weights_format: format of the file, ``"torch"`` or ``"safetensors"``, whose frames differ.
    """

    max_bytes: int
    bits_per_weight: int = 32
    count: str = "parameters"
    weights_format: str = "torch"

    def __post_init__(self) -> None:
        _check_amount("a disk budget", self.max_bytes, "bytes")
        if self.bits_per_weight not in STORAGE_TYPES:
            raise ValueError(
                f"bits_per_weight must be one of {sorted(STORAGE_TYPES)}, got {shown(self.bits_per_weight)}."
            )
        if self.count not in ("parameters", "weights"):
            raise ValueError(f"count must be 'parameters' or 'weights', got {shown(self.count)}.")
        if self.weights_format not in WEIGHTS_FORMATS:
            raise ValueError(
                f"weights_format must be one of {', '.join(WEIGHTS_FORMATS)}, got {shown(self.weights_format)}."
            )

    @property
    def limit(self) -> float:
        """The largest number of bytes allowed."""
        return self.max_bytes

    def needed(self, network_def: Countable) -> float:
        """Return the bytes that a network needs of this budget."""
        return disk_bytes(network_def, self.bits_per_weight, self.count, self.weights_format)

    def words(self, amount: float) -> str:
        """Return a number of bytes in words."""
        return f"{amount:,.0f} bytes"

    def __str__(self) -> str:
        kind = "file" if self.weights_format == "torch" else f"{self.weights_format} file"
        return f"at most {self.max_bytes:,} bytes on disk ({self.count} at {self.bits_per_weight} bits, and the {kind})"


@dataclass(frozen=True)
class MemoryBudget(Budget):
    """The largest number of bytes that a network and a forward pass may take in memory, in eval mode at 32 bits.

    Attributes:
        max_bytes: the budget in bytes.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
    """

    max_bytes: int
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_amount("a memory budget", self.max_bytes, "bytes")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        check_shape_of("a budget", self.input_shape)

    @property
    def limit(self) -> float:
        """The largest number of bytes allowed."""
        return self.max_bytes

    def needed(self, network_def: Countable) -> float:
        """Return the bytes of a network's state and of the tensors alive together at the peak."""
        return memory_bytes(network_def, self.input_shape)

    def words(self, amount: float) -> str:
        """Return a number of bytes in words."""
        return f"{amount:,.0f} bytes"

    def __str__(self) -> str:
        return f"at most {self.max_bytes:,} bytes in memory for an input of {' x '.join(map(str, self.input_shape))}"


@dataclass(frozen=True)
class ComputeBudget(Budget):
    """The largest number of multiply-adds that a forward pass may take.

    Attributes:
        max_macs: the budget in multiply-adds (1 MAC = 2 FLOPs).
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
    """

    max_macs: int
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_amount("a compute budget", self.max_macs, "multiply-adds")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        check_shape_of("a budget", self.input_shape)

    @property
    def limit(self) -> float:
        """The largest number of multiply-adds allowed."""
        return self.max_macs

    def needed(self, network_def: Countable) -> float:
        """Return the multiply-adds of a network's forward pass."""
        return forward_macs(network_def, self.input_shape)

    def words(self, amount: float) -> str:
        """Return a number of multiply-adds in words."""
        return f"{amount / 1e6:,.1f} million multiply-adds" if amount >= 1e5 else f"{amount:,.0f} multiply-adds"

    def __str__(self) -> str:
        return f"at most {self.words(self.max_macs)} for an input of {' x '.join(map(str, self.input_shape))}"


@dataclass(frozen=True)
class LatencyBudget(Budget):
    """The longest time that a forward pass may take on this machine, in eval mode.

    The third quartile of the runs must be within the budget, so three of four runs are. Each network is measured once
    per budget. The chosen one is measured again; if it then exceeds the budget, a narrower one is chosen.

    Attributes:
        max_seconds: the budget in seconds.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
        device: name of the device on which networks are measured, such as ``"cpu"`` or ``"cuda"``.
    """

    max_seconds: float
    input_shape: tuple[int, ...]
    device: str = "cpu"

    def __post_init__(self) -> None:
        _check_amount("a latency budget", self.max_seconds, "seconds")
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        check_shape_of("a budget", self.input_shape)
        object.__setattr__(self, "_measured", {})  # not a field, so neither compared nor written

    @property
    def limit(self) -> float:
        """The longest time allowed, in seconds."""
        return self.max_seconds

    def needed(self, network_def: Countable) -> float:
        """Return the third quartile of a network's measured times, in seconds."""
        return self.latency(network_def).high_seconds

    def latency(self, network_def: Countable) -> Latency:
        """Return the measured latency of a network for this budget."""
        measured, key = self._measured, json.dumps(network_def, sort_keys=True, default=repr)  # type: ignore[attr-defined]
        if key not in measured:
            measured[key] = measure_latency(network_def, self.input_shape, device=self.device)
        return measured[key]

    def compared(self, full_size: Mapping[str, Any], narrowed: Mapping[str, Any]) -> LatencyComparison:
        """Measure two networks in turns."""
        networks = {"full size": full_size, "narrowed": narrowed}
        return compare_latency(networks, self.input_shape, device=self.device)

    def holds_again(self, network_def: Countable) -> bool:
        """Measure a network again, keep the slower of the two measurements, and return whether that still fits."""
        before = self.latency(network_def)
        again = measure_latency(network_def, self.input_shape, device=self.device)
        key = json.dumps(network_def, sort_keys=True, default=repr)
        self._measured[key] = max(before, again, key=lambda latency: latency.high_seconds)  # type: ignore[attr-defined]
        return again.high_seconds <= self.max_seconds

    def words(self, amount: float) -> str:
        """Return a number of seconds in words."""
        return f"{1000 * amount:,.2f} ms"

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        return f"at most {self.words(self.max_seconds)} on {self.device} for an input of {shape}"


def _check_amount(what: str, amount: Any, unit: str) -> None:
    if not (isinstance(amount, (int, float)) and math.isfinite(amount) and amount > 0):
        raise ValueError(f"{what} must be a number of {unit} above 0, got {shown(amount)}.")


@dataclass(frozen=True)
class AccuracyFloor(Value):
    """The least score that must be kept, relative to the full-size network's.

    Attributes:
        min_score: least relative score, above 0 and at most 1, the full-size network's own score.
        confidence: probability with which a training is to reach it; ``None`` if the prediction alone is to.
    """

    min_score: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.min_score, (int, float)) and self.min_score > 0):
            raise ValueError(f"a floor must be a relative score above 0 and at most 1, got {shown(self.min_score)}.")
        if self.min_score > 1:
            raise InfeasibleConstraintError(
                f"a floor of {shown(self.min_score)} is above the full-size network's own score, which is 1.0: give a "
                "score relative to it, such as 0.95."
            )
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie in (0, 1), got {shown(self.confidence)}.")

    def __str__(self) -> str:
        surely = "" if self.confidence is None else f", with a probability of {self.confidence:g}"
        return f"at least {self.min_score:.1%} of the full-size network's score{surely}"
