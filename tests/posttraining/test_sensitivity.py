"""Sensitivity: rows count what is really removed, and a layer that does not matter costs nothing."""

import csv

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import DiskBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.figures import draw_sensitivity, save_figure
from monai_ccnet.networks import build_network, network_size
from monai_ccnet.posttraining import layer_sensitivity, planned_weights, save_sensitivity

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [4, 6, 8]}
SHAPE = (1, 1, 16, 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(UNET).eval()


def likeness_to(network):
    """A score of 1 for the network itself, and less the more its logits change."""
    image = torch.randn(2, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(image)

    def evaluate(other):
        with torch.no_grad():
            return float(1 / (1 + (other(image) - logits).square().mean()))

    return evaluate


def test_weights_removed_by_hand(network):
    rows = layer_sensitivity(
        network, likeness_to(network), input_shape=SHAPE, draws=2, layers=["encoder.1.0.conv", "encoder.1.1.conv"]
    )
    assert [(row.layer, row.draw) for row in rows] == [
        ("encoder.1.0.conv", 0),
        ("encoder.1.0.conv", 1),
        ("encoder.1.1.conv", 0),
        ("encoder.1.1.conv", 1),
    ]
    assert all((row.channels, row.removed, row.full_score) == (6, 1, 1.0) for row in rows)
    # a filter of the second convolution reads 6, and 8 of the next stage and 6 of the decoder's read it, all 3x3
    assert [row.weights_removed for row in rows[::2]] == [9 * (4 + 6), 9 * (6 + 8 + 6)]
    assert all(0 < row.loss < 1 for row in rows)


def test_draws_differ_and_come_again(network):
    def losses(seed):
        rows = layer_sensitivity(
            network,
            likeness_to(network),
            input_shape=SHAPE,
            draws=5,
            layers=["encoder.2.1.conv"],
            rng=np.random.default_rng(seed),
        )
        return [row.loss for row in rows]

    assert len(set(losses(0))) > 1
    assert losses(0) == losses(0)


def test_filters_of_zeros_cost_nothing():
    network = build_network({**UNET, "norm": None}).eval()
    layer = network.get_submodule("encoder.1.1.conv")
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    rows = layer_sensitivity(network, likeness_to(network), input_shape=SHAPE, layers=["encoder.1.1.conv"])
    assert [row.loss for row in rows] == pytest.approx([0, 0, 0], abs=1e-9)


def test_what_a_plan_leaves_of_each_layer_adds_up():
    known = {
        "complexity": ComplexityProfile.published("lymph_node"),
        "degradation": DegradationModel.published("unet", metric="f1"),
    }
    plan = compress(UNET, DiskBudget(28_000), **known)
    weights = planned_weights(plan)
    assert sum(full for full, _ in weights.values()) == plan.full_size.weights
    assert sum(left for _, left in weights.values()) == plan.size.weights
    assert all(full >= left for full, left in weights.values())
    assert {"encoder.0.0.conv", "upsamplers.0", "head"} <= set(weights)


def test_table_and_picture(network, tmp_path):
    rows = layer_sensitivity(network, likeness_to(network), input_shape=SHAPE, draws=2)
    assert len(rows) == 2 * 12
    assert sum(row.weights_removed for row in rows[:2]) < sum(row.weights_removed for row in rows[10:12])
    save_sensitivity(tmp_path / "sensitivity.csv", rows)
    with open(tmp_path / "sensitivity.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(line["loss"]) for line in written] == [row.loss for row in rows]
    assert [line["layer"] for line in written] == [row.layer for row in rows]
    plan = compress(UNET, DiskBudget(28_000), layerwise=False)
    figure = draw_sensitivity(rows, {"uniform": plan})
    _, bars = figure.axes
    weights = [planned_weights(plan)[row.layer] for row in rows[::2]]
    assert list(bars.lines[0].get_ydata()) == [full / left for full, left in weights]
    save_figure(tmp_path / "sensitivity.png", figure)
    assert imread(tmp_path / "sensitivity.png").std() > 0.05
    assert len(draw_sensitivity(rows).axes) == 1
    assert network_size(network).weights == network_size(UNET).weights


def test_refusals(network):
    with pytest.raises(ValueError, match="draws must be at least 1"):
        layer_sensitivity(network, likeness_to(network), input_shape=SHAPE, draws=0)
    with pytest.raises(ValueError, match="no channel of 'head' can be removed; choose from: encoder"):
        layer_sensitivity(network, likeness_to(network), input_shape=SHAPE, layers=["head"])
    with pytest.raises(ValueError, match=r"must be above 0, got 0\.0: train it first"):
        layer_sensitivity(network, lambda network: 0.0, input_shape=SHAPE)
