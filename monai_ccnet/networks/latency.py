"""Latency of networks measured on this machine, alone or compared in turns, with the spread over the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_ccnet.networks.building import build_network
from monai_ccnet.values import Value, check_numbers

__all__ = ["Latency", "LatencyComparison", "compare_latency", "measure_latency"]

# A config, a network, or anything that takes an image, such as a program that was exported and loaded again.
Timed = Mapping[str, Any] | torch.nn.Module | Callable[[torch.Tensor], Any]

_WARM_UP_RUNS = 2


@dataclass(frozen=True)
class Latency(Value):
    """Seconds that a forward pass takes, in eval mode and without gradients.

    Attributes:
        median_seconds: median time of the runs, in seconds.
        low_seconds: first quartile, in seconds: a quarter of the runs took less.
        high_seconds: third quartile, in seconds: a quarter of the runs took more.
        runs: number of runs, without the warm-up.
        input_shape: shape of the input, ``(B, C, H, W[, D])``.
        device: name of the torch device, such as ``"cpu"``.
        threads: number of threads that torch used on the CPU.
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
        check_numbers(
            "a latency",
            0,
            median_seconds=self.median_seconds,
            low_seconds=self.low_seconds,
            high_seconds=self.high_seconds,
        )
        check_numbers("a latency", 1, runs=self.runs, threads=self.threads)

    def __str__(self) -> str:
        return (
            f"{_words(self.median_seconds)} (quartiles {_words(self.low_seconds)} to {_words(self.high_seconds)}, "
            f"{self.runs} runs, {self.device}, {self.threads} thread{'s' if self.threads > 1 else ''})"
        )


@dataclass(frozen=True)
class LatencyComparison(Value):
    """Latencies of networks measured in turns, so that other load on the machine affected all of them alike.

    Attributes:
        latencies: latency of each network, by its name.
        ratios: speed of each network relative to the first one, by its name: the median over the rounds of the first
            one's seconds divided by its own; 1 for the first one.
        low_ratios: first quartiles of these ratios.
        high_ratios: third quartiles of these ratios.
    """

    latencies: dict[str, Latency]
    ratios: dict[str, float]
    low_ratios: dict[str, float]
    high_ratios: dict[str, float]

    def __post_init__(self) -> None:
        if not self.latencies or any(
            set(each) != set(self.latencies) for each in (self.ratios, self.low_ratios, self.high_ratios)
        ):
            raise ValueError("a comparison of latencies needs at least one network, and ratios of each.")

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
    """Measure how long a forward pass takes on this machine.

    After a warm-up the network runs at least ``min_runs`` times and for at least ``min_seconds``. The median and the
    quartiles are reported, because a single disturbed run would distort the mean.

    Args:
        network: MONAI config of the network, the network itself, or any callable that takes an image.
        input_shape: shape of the random image, ``(B, C, H, W[, D])``.
        device: device on which the network runs; any other callable gets its image on it.
        min_seconds: least total time of the runs, in seconds, unless ``max_runs`` is reached before.
        min_runs: least number of runs.
        max_runs: greatest number of runs.
        clock: function that returns the time in seconds.

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
    """Measure several networks in turns: each round runs every network once, in rotating order.

    Measured one after the other, two networks would also differ by other load on the machine. In turns they share it,
    and the ratios are taken within each round.

    Args:
        networks: networks by name, each as in :func:`measure_latency`; the others are compared with the first.
        input_shape: shape of the random image, ``(B, C, H, W[, D])``.
        device: device on which the networks run.
        min_seconds: least total time of all runs, in seconds, unless ``max_runs`` rounds are reached before.
        min_runs: least number of rounds.
        max_runs: greatest number of rounds.
        clock: function that returns the time in seconds.
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

    torch's own ``Timer`` is not used: it measures one statement at a time and warms up anew for every run.
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
    return np.maximum(rounds, 1e-9)  # finer than any clock; keeps ratios finite


def _latency(seconds: np.ndarray, input_shape: Sequence[int], device: str | torch.device) -> Latency:
    low, median, high = np.percentile(seconds, (25, 50, 75)).tolist()
    return Latency(median, low, high, len(seconds), tuple(input_shape), str(device), torch.get_num_threads())


def _words(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
