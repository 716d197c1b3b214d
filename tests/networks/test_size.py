"""Sizes: the paper's digits, and equality with networks and files that are really made."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from monai_ccnet.networks import (
    build_network,
    file_bytes,
    follow_forward,
    follow_training,
    linear_memory_multiplier,
    narrow,
    network_size,
    save_weights,
)
from monai_ccnet.networks import memory as memory_module

NETS = "monai.networks.nets."
IN_OUT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
FOLLOWED = {
    "PlainUNet": ({"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 12, 16]}, (2, 1, 64, 64)),
    "BasicUNet": ({"_target_": NETS + "BasicUNet", **IN_OUT, "features": [4, 4, 8, 16, 24, 4]}, (1, 1, 64, 48)),
    "DynUNet": (
        {
            "_target_": NETS + "DynUNet",
            **IN_OUT,
            "strides": [1, 2, 2],
            "kernel_size": [3, 3, 3],
            "upsample_kernel_size": [2, 2],
            "filters": [8, 12, 16],
            "deep_supervision": True,
        },
        (1, 1, 64, 64),
    ),
    "AttentionUnet": (
        {"_target_": NETS + "AttentionUnet", **IN_OUT, "channels": [8, 12, 16], "strides": [2, 2]},
        (2, 1, 64, 64),
    ),
    "SegResNet": ({"_target_": NETS + "SegResNet", **IN_OUT, "init_filters": 8}, (1, 1, 64, 64)),
    "UNETR": (
        {
            "_target_": NETS + "UNETR",
            **IN_OUT,
            "img_size": 64,
            "feature_size": 4,
            "hidden_size": 24,
            "mlp_dim": 32,
            "num_heads": 2,
        },
        (1, 1, 64, 64),
    ),
}


def _backward(output):
    outputs = output if isinstance(output, (list, tuple)) else [output]
    torch.autograd.backward(list(outputs), [torch.empty_like(each) for each in outputs])


def _tracked_by_torch(network_def, shape, train):
    """Return torch's own account of the peak, less what is stored, in bytes."""
    with FakeTensorMode():
        network, image, tracker = build_network(network_def).train(train), torch.empty(shape), MemTracker()
        tracker.track_external(network, image)
        with tracker:
            if train:
                _backward(network(image))
            else:
                with torch.no_grad():
                    network(image)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return sum(count for kind, count in peak.items() if str(kind) == "Total") - network_size(network_def).state_bytes


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
    bits=st.sampled_from([8, 16, 32, 64]),
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


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", FOLLOWED)
def test_peaks_agree_with_torchs_memory_tracker(name, train):
    network_def, shape = FOLLOWED[name]
    size = network_size(network_def, shape)
    ours = size.training_bytes if train else size.activation_bytes
    assert ours == pytest.approx(_tracked_by_torch(network_def, shape, train), rel=0.1)


@pytest.mark.parametrize("name", FOLLOWED)
def test_shapes_known_beforehand_are_those_that_torch_finds(name, monkeypatch):
    network_def, shape = FOLLOWED[name]
    network = build_network(network_def, device="meta")
    ours = (*follow_forward(network, shape), follow_training(network, shape))
    monkeypatch.setattr(memory_module, "_SHAPES", {})
    assert (*follow_forward(network, shape), follow_training(network, shape)) == ours
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), flops:
        network.eval()(torch.empty(shape, device="meta"))
    assert ours[0] == flops.get_total_flops() // 2


def test_what_is_written_in_place_is_counted_once_and_the_input_throughout():
    image, features = 4 * 100, 4 * 300
    layers = [torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(3, 1, 1)]
    assert follow_forward(torch.nn.Sequential(*layers), (1, 1, 10, 10))[1] == image + features + image
    layers[1] = torch.nn.ReLU(inplace=False)
    assert follow_forward(torch.nn.Sequential(*layers), (1, 1, 10, 10))[1] == image + 2 * features


def test_a_training_step_by_hand():
    # Kept: image, features, their activation and the logits with their gradient; then the activation's gradient, as
    # large as itself, while the gradients of the last layer (3 weights and 1 bias) are there already.
    layers = [torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU(), torch.nn.Conv2d(3, 1, 1)]
    image, features = 4 * 100, 4 * 300
    peak = follow_training(torch.nn.Sequential(*layers), (1, 1, 10, 10))
    assert image + 2 * features + 2 * image + features + 4 * 4 == pytest.approx(peak, rel=0.3)
    assert peak > follow_forward(torch.nn.Sequential(*layers), (1, 1, 10, 10))[1]


def test_a_network_that_is_really_there_is_followed_the_same_and_left_as_it_was():
    network_def, shape = FOLLOWED["DynUNet"]
    network = build_network(network_def).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ours = (*follow_forward(network, shape), follow_training(network, shape))
    size = network_size(network_def, shape)
    assert ours == (size.macs, size.activation_bytes, size.training_bytes)
    assert network.training
    assert all(parameter.grad is None and not parameter.is_meta for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_an_image_that_can_be_segmented_but_not_trained_on():
    size = network_size(_unet(2, 3, 4), (1, 1, 4, 4))  # batch normalisation over one value
    assert size.activation_bytes > 0
    assert size.training_bytes is None


def test_tensors_that_a_network_holds_under_two_names_are_counted_and_written_once(tmp_path):
    network_def, _ = FOLLOWED["DynUNet"]
    network, size = build_network(network_def), network_size(network_def)
    assert len(network.state_dict()) > len(list(network.parameters()))
    assert size.state_bytes == 4 * size.parameters
    for bits in (8, 16, 32):
        assert save_weights(network, tmp_path / "model.pt", bits) == file_bytes(network_def, bits)
    assert file_bytes(network_def, 16) < 0.8 * file_bytes(network_def, 32)


@pytest.mark.parametrize(("length", "worst"), [(128, 4.2), (512, 1.23)])
def test_how_far_off_the_papers_linear_multiplier_is_for_memory(length, worst):
    full_def, shape = {"_target_": "monai_ccnet.networks.PlainUNet"}, (1, 1, length, length)

    def needed(network_def):
        size = network_size(network_def, shape)
        return size.state_bytes + size.activation_bytes, size.activation_bytes

    full, full_activations = needed(full_def)
    off = {}
    for multiplier in (0.5, 0.25, 0.0625):
        total, activations = needed(narrow(full_def, multiplier))
        assert activations / full_activations == pytest.approx(multiplier, rel=0.06)  # activations alone are linear
        off[multiplier] = linear_memory_multiplier(multiplier * full, full) / (total / full)
    # The weights fall with the square, so that the network of the linear multiplier leaves most of the budget unused.
    assert 1 < off[0.5] < off[0.25] < off[0.0625] == pytest.approx(worst, rel=0.05)


@pytest.mark.parametrize("bits", [16, 32])
def test_weights_load_back_without_running_code(tmp_path, bits):
    network = build_network(_unet(3, 5))
    save_weights(network, tmp_path / "model.pt", bits)
    other = build_network(_unet(3, 5))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3 if bits == 16 else 0, rtol=1e-3 if bits == 16 else 0)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"one of \[8, 16, 32, 64\], got 4"):
        file_bytes(_unet(2, 2), 4)
