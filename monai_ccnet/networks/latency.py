"""How long a network takes on the machine at hand, alone or side by side with others, with the spread of the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_ccnet.networks.building import build_network
from monai_ccnet.values import Value

__all__ = ["Latency", "LatencyComparison", "compare_latency", "measure_latency"]

# A config, a network, or anything that takes an image, such as a program that was exported and loaded again.
Timed = Mapping[str, Any] | torch.nn.Module | Callable[[torch.Tensor], Any]

_WARM_UP_RUNS = 2


@dataclass(frozen=True)
class Latency(Value):
    """Seconds that a forward pass takes, in eval mode and without gradients.

    Attributes:
        median_seconds: of all runs.
        low_seconds: the first quartile: a quarter of the runs took less.
        high_seconds: the third quartile: a quarter of the runs took more.
        runs: how many there were, the warm-up not among them.
        input_shape: ``(B, C, H, W[, D])``.
        device: such as ``"cpu"``.
        threads: that torch calculates with on the CPU.
    """

    median_seconds: float
    low_seconds: float
    high_seconds: float
    runs: int
    input_shape: tuple[int, ...]
    device: str
    threads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))

    def __str__(self) -> str:
        return (
            f"{_words(self.median_seconds)} (quartiles {_words(self.low_seconds)} to {_words(self.high_seconds)}, "
            f"{self.runs} runs, {self.device}, {self.threads} thread{'s' if self.threads > 1 else ''})"
        )


@dataclass(frozen=True)
class LatencyComparison(Value):
    """Networks measured in turns, so that whatever else the machine did fell on all of them.

    Attributes:
        latencies: of each network, by name.
        ratios: by name, how often faster than the first one a network is: the median over the rounds of the first
            one's seconds divided by its own; 1 for the first one.
        low_ratios: first quartiles of the same.
        high_ratios: third quartiles of the same.
    """

    latencies: dict[str, Latency]
    ratios: dict[str, float]
    low_ratios: dict[str, float]
    high_ratios: dict[str, float]

    def __str__(self) -> str:
        first = next(iter(self.latencies))
        return "\n".join(
            f"{name}: {latency}"
            + (
                ""
                if name == first
                else f", {self.ratios[name]:.2f}x as fast as {first} "
                f"({self.low_ratios[name]:.2f}x to {self.high_ratios[name]:.2f}x)"
            )
            for name, latency in self.latencies.items()
        )


def measure_latency(
    network: Timed,
    input_shape: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    min_seconds: float = 0.3,
    min_runs: int = 5,
    max_runs: int = 1000,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Measure how long a forward pass takes here and now.

    After a warm-up there are as many runs as make both ``min_runs`` and ``min_seconds``. The median and the quartiles
    are reported: the mean would follow the one run in which the machine did something else.

    Args:
        network: its MONAI config, the network itself, or any callable that takes an image.
        input_shape: ``(B, C, H, W[, D])`` of the image, which is random.
        device: where a network calculates; a callable that is no network gets its image there.
        min_seconds: that the runs take together at least, unless there are ``max_runs`` before.
        min_runs: number of runs at least.
        max_runs: number of runs at most.
        clock: returns seconds.

    >>> latency = measure_latency({"_target_": "monai_ccnet.networks.PlainUNet", "channels": [2, 2]}, (1, 1, 8, 8))
    >>> latency.low_seconds <= latency.median_seconds <= latency.high_seconds
    True
    """
    seconds = _seconds([network], input_shape, torch.device(device), min_seconds, min_runs, max_runs, clock)
    return _latency(seconds[:, 0], input_shape, device)


def compare_latency(
    networks: Mapping[str, Timed],
    input_shape: Sequence[int],
    *,
    device: str | torch.device = "cpu",
    min_seconds: float = 1.0,
    min_runs: int = 7,
    max_runs: int = 1000,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyComparison:
    """Measure several networks in turns, one run of each a round, in an order that rotates.

    Two networks that are measured one after the other differ by what the machine did meanwhile too. In turns they share
    it, and the ratio is taken within each round.

    Args:
        networks: by name, each as in :func:`measure_latency`; the first is what the others are compared with.
        input_shape: ``(B, C, H, W[, D])`` of the image.
        device: where the networks calculate.
        min_seconds: that all runs take together at least, unless there are ``max_runs`` before.
        min_runs: number of rounds at least.
        max_runs: number of rounds at most.
        clock: returns seconds.
    """
    if not networks:
        raise ValueError("no network to measure: give at least one by its name.")
    limits = (min_seconds, min_runs, max_runs)
    seconds = _seconds(list(networks.values()), input_shape, torch.device(device), *limits, clock)
    ratios = np.percentile(seconds[:, :1] / seconds, (25, 50, 75), axis=0)
    low, middle, high = (dict(zip(networks, row.tolist(), strict=True)) for row in ratios)
    latencies = {name: _latency(column, input_shape, device) for name, column in zip(networks, seconds.T, strict=True)}
    return LatencyComparison(latencies, ratios=middle, low_ratios=low, high_ratios=high)


def _seconds(
    networks: Sequence[Timed],
    input_shape: Sequence[int],
    device: torch.device,
    min_seconds: float,
    min_runs: int,
    max_runs: int,
    clock: Callable[[], float],
) -> np.ndarray:
    """Return the seconds of each run, ``(rounds, networks)``.

    torch's own ``Timer`` measures one statement at a time, and warms up anew whenever it is asked for one run.
    """
    if not 1 <= min_runs <= max_runs:
        raise ValueError(f"min_runs must be at least 1 and at most max_runs, got {min_runs} and {max_runs}.")
    made = [build_network(each, device) if isinstance(each, Mapping) else each for each in networks]
    modes = [(each, each.training) for each in made if isinstance(each, torch.nn.Module)]
    image = torch.rand(tuple(input_shape), device=device)
    rounds: list[list[float]] = []

    def seconds_of(call: Callable[[torch.Tensor], Any]) -> float:
        start = clock()
        call(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - start

    try:
        for network, _ in modes:
            network.to(device).eval()
        with torch.inference_mode():
            for _ in range(_WARM_UP_RUNS):
                for each in made:
                    seconds_of(each)
            begin = clock()
            while len(rounds) < max_runs and (len(rounds) < min_runs or clock() - begin < min_seconds):
                order = [(len(rounds) + index) % len(made) for index in range(len(made))]
                taken = {index: seconds_of(made[index]) for index in order}
                rounds.append([taken[index] for index in range(len(made))])
    finally:
        for network, training in modes:
            network.train(training)
    return np.maximum(rounds, 1e-9)  # no clock is finer


def _latency(seconds: np.ndarray, input_shape: Sequence[int], device: str | torch.device) -> Latency:
    low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
    return Latency(median, low, high, len(seconds), tuple(input_shape), str(device), torch.get_num_threads())


def _words(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
