"""Sizes: the paper's digits, and equality with networks and files that are really made."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ccnet.networks import build_network, file_bytes, network_size, save_weights


def _unet(*channels, spatial_dims=2):
    return {"_target_": "monai_ccnet.networks.PlainUNet", "spatial_dims": spatial_dims, "channels": list(channels)}


@pytest.mark.parametrize(
    ("channels", "log_weights"),
    [
        ((64, 128, 256, 512, 1024), 7.492),
        ((4, 8, 16, 32, 65), 5.089),
        ((20, 19, 25, 29, 33), 5.090),
        ((30, 60, 120, 240, 480), 6.834),
        ((30, 39, 59, 85, 119), 5.925),
        ((32, 64, 128, 256, 512), 6.890),
    ],
)
def test_log_weights_of_the_paper(channels, log_weights):
    assert math.log10(network_size(_unet(*channels)).weights) == pytest.approx(log_weights, abs=5.1e-4)


def test_full_width_to_the_digit():
    size = network_size(_unet(64, 128, 256, 512, 1024), (1, 1, 128, 128))
    assert size.weights == 31_023_744
    assert size.macs == 12_022_972_416


@settings(deadline=None, max_examples=20)
@given(
    channels=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    spatial_dims=st.sampled_from([2, 3]),
    bits=st.sampled_from([16, 32, 64]),
)
def test_counts_equal_those_of_a_network_really_made(channels, spatial_dims, bits, tmp_path_factory):
    network_def = _unet(*channels, spatial_dims=spatial_dims)
    network, size = build_network(network_def), network_size(network_def)
    path = tmp_path_factory.mktemp("size") / "model.pt"
    written = save_weights(network, path, bits)
    assert size.parameters == sum(p.numel() for p in network.parameters())
    assert size.weights == sum(p.numel() for p in network.parameters() if p.ndim > 2)
    assert written == os.path.getsize(path) == file_bytes(network_def, bits)
    assert size.file_bytes == file_bytes(network_def, 32)


def test_a_memory_format_changes_nothing_on_disk(tmp_path):
    # Wide enough that strides written along would need more bytes, and one more block of the file.
    network_def = {**_unet(26, 44, 79, 148, 258, spatial_dims=3), "out_channels": 3}
    network = build_network(network_def).to(memory_format=torch.channels_last_3d)
    assert save_weights(network, tmp_path / "model.pt") == file_bytes(network_def)


def test_multiply_adds_by_hand():
    size = network_size(_unet(2, 3), (1, 1, 8, 4))
    at_full, at_half = 32, 8
    stages = at_full * 9 * (1 * 2 + 2 * 2) + at_half * 9 * (2 * 3 + 3 * 3)
    decoder = at_half * 4 * 3 * 2 + at_full * 9 * (4 * 2 + 2 * 2) + at_full * 2
    assert size.macs == stages + decoder


def test_peak_activations_of_a_chain_by_hand():
    network_def = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 3, "kernel_size": 1}
    assert network_size(network_def, (1, 1, 10, 10)).activation_bytes == 4 * (100 + 300)


@pytest.mark.parametrize("bits", [16, 32])
def test_weights_load_back_without_running_code(tmp_path, bits):
    network = build_network(_unet(3, 5))
    save_weights(network, tmp_path / "model.pt", bits)
    other = build_network(_unet(3, 5))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3 if bits == 16 else 0, rtol=1e-3 if bits == 16 else 0)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"one of \[16, 32, 64\], got 8"):
        file_bytes(_unet(2, 2), 8)
