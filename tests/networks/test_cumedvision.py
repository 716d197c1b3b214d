"""CUMedVision: its known size and its convolutions."""

import math

import pytest
import torch

from monai_ccnet.networks import CUMedVision, network_size

FULL = {"_target_": "monai_ccnet.networks.CUMedVision", "in_channels": 3, "out_channels": 2}


def test_full_width_to_the_digit():
    size = network_size(FULL)
    assert (size.weights, size.parameters) == (7_931_704, 7_939_786)
    assert math.log10(size.parameters) == pytest.approx(6.900, abs=5e-4)


def test_weights_by_hand():
    stages = 9 * (3 * 64 + 64**2 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 2 * 512**2)
    branches = sum(width * 2 * (2 * scale) ** 2 + 9 * 2 * 2 + 2 * 2 for width, scale in ((128, 2), (256, 4), (512, 8)))
    assert network_size(FULL).weights == stages + branches


def test_three_dimensions_count_cubes():
    size = network_size({**FULL, "spatial_dims": 3, "channels": [2, 3]})
    assert size.weights == 27 * (3 * 2 + 2 * 2 + 2 * 3 + 3 * 3) + 3 * 2 * 4**3 + 27 * 2 * 2 + 2 * 2


def test_stages_have_two_two_three_and_three_convolutions():
    network = CUMedVision(channels=(2, 3, 4, 5))
    assert [len(network.first), *map(len, network.stages)] == [2, 2, 3, 3]


def test_the_first_stage_is_used_by_the_others_alone():
    network = CUMedVision(channels=(2, 3, 4)).eval()
    image = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        expected = network(image)
        for branch in network.branches:
            branch[2].weight.zero_()
        assert expected.std() > 0
        assert network(image).std() == 0
