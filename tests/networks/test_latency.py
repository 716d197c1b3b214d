"""Latency by a clock of the test's own, and once by a real one."""

import numpy as np
import pytest
import torch

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import (
    AccuracyFloor,
    CompressionPlan,
    DiskBudget,
    InfeasibleConstraintError,
    LatencyBudget,
    compress,
)
from monai_ccnet.constraints import budgets as budgets_module
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.networks import (
    Latency,
    LatencyComparison,
    PlainUNet,
    compare_latency,
    inner_def,
    measure_latency,
)
from monai_ccnet.networks.size import forward_macs

SHAPE = (1, 1, 16, 16)
UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [12, 20, 32]}
KNOWN = {
    "complexity": ComplexityProfile.published("lymph_node"),
    "degradation": DegradationModel.published("unet", metric="f1"),
}


class Clock:
    """A clock that only those move who say how long they take."""

    now = 0.0

    def __call__(self):
        return self.now

    def takes(self, *seconds):
        left = list(seconds)

        def call(image):
            assert image.shape == SHAPE
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_median_and_quartiles_of_the_runs_after_the_warm_up():
    clock = Clock()
    call = clock.takes(9, 9, 1, 2, 3, 4, 100)
    latency = measure_latency(call, SHAPE, min_seconds=0, min_runs=5, clock=clock)
    assert (latency.median_seconds, latency.low_seconds, latency.high_seconds, latency.runs) == (3, 2, 4, 5)
    assert Latency.from_dict(latency.to_dict()) == latency
    assert "3 s (quartiles 2 s to 4 s, 5 runs, cpu, " in str(latency)


@pytest.mark.parametrize(("limits", "runs"), [((10, 3, 100), 20), ((0, 3, 100), 3), ((10, 3, 7), 7)])
def test_it_runs_until_there_are_enough_runs_and_seconds(limits, runs):
    clock = Clock()
    min_seconds, min_runs, max_runs = limits
    given = {"min_seconds": min_seconds, "min_runs": min_runs, "max_runs": max_runs, "clock": clock}
    assert measure_latency(clock.takes(0.5), SHAPE, **given).runs == runs


def test_a_machine_that_slows_down_does_not_change_the_ratio():
    clock = Clock()
    slowing = [1.0, 1.0] + [1.3**step for step in range(9)]
    networks = {"full": clock.takes(*(6 * s for s in slowing)), "small": clock.takes(*slowing)}
    compared = compare_latency(networks, SHAPE, min_seconds=0, min_runs=9, clock=clock)
    assert compared.ratios == pytest.approx({"full": 1, "small": 6})
    assert compared.low_ratios["small"] == pytest.approx(compared.high_ratios["small"])
    assert compared.latencies["small"].high_seconds > 1.5 * compared.latencies["small"].low_seconds
    assert "6.00x as fast as full" in str(compared)
    assert LatencyComparison.from_dict(compared.to_dict()) == compared


def test_the_order_rotates_and_networks_stay_in_their_mode():
    order, network = [], PlainUNet(channels=(2, 2))
    calls = {name: (lambda image, name=name: order.append(name)) for name in "ab"}
    compare_latency({**calls, "network": network}, SHAPE, min_seconds=0, min_runs=3)
    assert order == ["a", "b"] * 2 + ["a", "b", "b", "a", "a", "b"]
    assert network.training


def test_a_real_clock_finds_the_wider_network_slower():
    networks = {"wide": {**UNET, "channels": [32, 64]}, "narrow": {**UNET, "channels": [2, 4]}}
    compared = compare_latency(networks, (1, 1, 64, 64), min_seconds=0.1)
    assert compared.ratios["narrow"] > 1.5
    assert compared.latencies["wide"].median_seconds > compared.latencies["narrow"].median_seconds > 0
    assert compared.latencies["wide"].threads == torch.get_num_threads()


def test_refusals():
    with pytest.raises(ValueError, match="no network"):
        compare_latency({}, SHAPE)
    with pytest.raises(ValueError, match="min_runs must be at least 1"):
        measure_latency(lambda image: None, SHAPE, min_runs=0)
    with pytest.raises(ValueError, match="a number of seconds above 0"):
        LatencyBudget(0, SHAPE)


@pytest.fixture
def machine(monkeypatch):
    """A machine that takes a nanosecond a multiply-add, give or take; it remembers what it was given."""
    rng, measured = np.random.default_rng(0), []

    def seconds(network_def, noise):
        measured.append(inner_def(network_def)["channels"])
        return forward_macs(network_def, SHAPE) * 1e-9 * rng.uniform(1 - noise, 1 + noise)

    def install(noise):
        def measure(network_def, input_shape, device):
            taken = seconds(network_def, noise)
            return Latency(taken, taken, taken, 5, input_shape, device, 1)

        def compare(networks, input_shape, device):
            latencies = {name: measure(each, input_shape, device) for name, each in networks.items()}
            ratios = {n: latencies["full size"].median_seconds / each.median_seconds for n, each in latencies.items()}
            return LatencyComparison(latencies, ratios, ratios, ratios)

        monkeypatch.setattr(budgets_module, "measure_latency", measure)
        monkeypatch.setattr(budgets_module, "compare_latency", compare)
        return measured

    return install


@pytest.mark.parametrize("layerwise", [True, False])
def test_on_a_quiet_machine_the_plan_is_that_of_the_multiply_adds(machine, layerwise):
    machine(0.0)
    budget = LatencyBudget(1e-3, SHAPE)
    plan = compress(UNET, budget, layerwise=layerwise, input_shape=SHAPE, **KNOWN)
    assert 0.6e6 < plan.size.macs <= 1e6
    assert plan.latency.ratios["narrowed"] == pytest.approx(plan.full_size.macs / plan.size.macs)
    assert plan.latency.latencies["narrowed"].median_seconds <= 1e-3
    assert "at most 1.00 ms on cpu for an input of 1 x 1 x 16 x 16" in str(plan)
    assert "as fast as full size" in str(plan)
    assert CompressionPlan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize("layerwise", [True, False])
def test_on_a_noisy_machine_the_plan_held_twice(machine, layerwise):
    measured = machine(0.3)
    for _ in range(2):
        plan = compress(UNET, LatencyBudget(1e-3, SHAPE), layerwise=layerwise, input_shape=SHAPE, **KNOWN)
        assert 0.3e6 < plan.size.macs <= 1.2e6
        assert measured.count(list(plan.channels)) >= 3
    assert len(measured) < 2 * 40


def test_beside_other_budgets_and_a_floor(machine):
    machine(0.0)
    given = {"input_shape": SHAPE, **KNOWN}
    latency, disk = LatencyBudget(1e-3, SHAPE), DiskBudget(10**7)
    assert compress(UNET, [disk, latency], **given).constraint == latency
    with pytest.raises(InfeasibleConstraintError, match=r"no width meets all: .*at most 1\.00 ms"):
        compress(UNET, [latency, AccuracyFloor(0.99)], **given)
    with pytest.raises(InfeasibleConstraintError, match=r"still needs \d+\.\d\d ms"):
        compress(UNET, LatencyBudget(1e-6, SHAPE), **given)


def test_a_plan_for_this_machine():
    full, shape = {**UNET, "channels": [32, 64, 128]}, (1, 1, 64, 64)
    budget = LatencyBudget(0.5 * measure_latency(full, shape).median_seconds, shape)
    plan = compress(full, budget, layerwise=False)
    assert plan.latency.ratios["narrowed"] > 1
    assert plan.channels != (32, 64, 128)
    assert budget == LatencyBudget.from_dict(budget.to_dict())
