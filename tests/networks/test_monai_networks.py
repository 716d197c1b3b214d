"""MONAI's own networks, narrowed by their config: built, counted, run, exported; inputs that cannot work refused."""

import io
import math
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from monai_ccnet.networks import (
    WIDTHS,
    NetworkFamily,
    build_network,
    check_input_shape,
    default_input_shape,
    divisor_of,
    narrow,
    network_size,
)

SMALL = {
    "UNet": {"channels": [8, 12, 16], "strides": [2, 2], "num_res_units": 1},
    "AttentionUnet": {"channels": [8, 12, 16], "strides": [2, 2]},
    "BasicUNet": {"features": [8, 8, 12, 16, 20, 8]},
    "BasicUNetPlusPlus": {"features": [8, 8, 12, 16, 20, 8]},
    "DynUNet": {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 12, 16]},
    "SegResNet": {
        "init_filters": 16,
        "blocks_down": [1] * 3,
        "blocks_up": [1] * 2,
        "norm": ["GROUP", {"num_groups": 4}],
    },
    "SegResNetDS": {"init_filters": 8, "blocks_down": [1, 1, 1]},
    "MedNeXt": {
        "init_filters": 8,
        "kernel_size": 3,
        "blocks_down": [1, 1],
        "blocks_up": [1, 1],
        "blocks_bottleneck": 1,
    },
    "SwinUNETR": {"feature_size": 24, "depths": [1] * 4},
    "UNETR": {"feature_size": 8, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4, "img_size": 32},
    "FlexibleUNet": {"backbone": "resnet10", "decoder_channels": [32, 24, 16, 12, 8]},
}
SCRIPTS = set(SMALL) - {"MedNeXt", "SwinUNETR"}  # those two trace, at full width as well
OURS = {"PlannedByNNUNet", "PlainUNet", "CUMedVision", "UCUNet", "SqueezeUNet"}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the images are tiny: threads would mostly wait for each other
    yield
    torch.set_num_threads(threads)


def config(name, spatial_dims=2, **changes):
    return {
        "_target_": f"monai.networks.nets.{name}",
        "spatial_dims": spatial_dims,
        "in_channels": 1,
        "out_channels": 2,
        **SMALL[name],
        **changes,
    }


def image_for(name, spatial_dims=2):
    return torch.randn(1, 1, *(64 if name == "SwinUNETR" else 32,) * spatial_dims)


def logits(output):
    return output[-1] if isinstance(output, (list, tuple)) else output


def test_every_network_of_the_table_is_tested_here_or_beside():
    assert set(SMALL) | OURS == set(WIDTHS)


@pytest.mark.parametrize("multiplier", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("name", SMALL)
def test_narrowed_networks_build_count_run_and_script(name, multiplier):
    network_def = narrow(config(name), multiplier)
    network, image = build_network(network_def).eval(), image_for(name)
    size = network_size(network_def)
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())
    kernels = {id(m.weight): m.weight for m in network.modules() if isinstance(m, (_ConvNd, nn.Linear))}
    assert size.weights == sum(weight.numel() for weight in kernels.values())
    with torch.no_grad(), torch.jit.optimized_execution(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = logits(network(image))
        assert expected.shape == (1, 2, *image.shape[2:])
        scripted = torch.jit.script(network) if name in SCRIPTS else torch.jit.trace(network, image, check_trace=False)
        torch.testing.assert_close(logits(scripted(image)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_narrowed_networks_export_to_onnx(name):
    network, file = build_network(narrow(config(name), 0.5)).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (image_for(name),), file, dynamo=False)
    onnx.checker.check_model(onnx.load_from_string(file.getvalue()))


@pytest.mark.parametrize("name", SMALL)
def test_three_dimensions(name):
    network_def = narrow(config(name, spatial_dims=3), 0.5)
    shape = tuple(image_for(name, 3).shape)
    size, network = network_size(network_def, shape), build_network(network_def, device="meta").eval()
    assert logits(network(torch.empty(shape, device="meta"))).shape == (1, 2, *shape[2:])
    assert size.macs > 0
    assert size.activation_bytes < (size.training_bytes or float("inf"))


@pytest.mark.parametrize("name", SMALL)
def test_an_input_that_does_not_divide_is_refused_before_any_forward_pass(name):
    network_def, divisor = config(name), divisor_of(config(name))
    *most, last = image_for(name).shape
    wrong = (*most, last + 1)
    if divisor == (1, 1):
        network = build_network(network_def, device="meta").eval()
        assert logits(network(torch.empty(wrong, device="meta"))).shape[2:] == wrong[2:]
    else:
        with pytest.raises(ValueError, match=rf"must be divisible by {divisor[0]} for .*{name}, got .*DivisiblePadd"):
            network_size(network_def, wrong)


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"UNETR"}))
def test_the_divisor_is_enough_and_half_of_it_is_not(name):
    network_def, divisor = config(name), divisor_of(config(name))
    network = build_network(network_def, device="meta").eval()
    shape = (1, 1, *(5 * by * (32 if by == 1 else 1) for by in divisor))
    assert logits(network(torch.empty(shape, device="meta"))).shape[2:] == shape[2:]
    if divisor[0] > 1:
        shape = (*shape[:2], *(length + by // 2 for length, by in zip(shape[2:], divisor, strict=True)))
        try:
            works = logits(network(torch.empty(shape, device="meta"))).shape[2:] == shape[2:]
        except (RuntimeError, ValueError):
            works = False
        assert not works


@pytest.mark.parametrize(
    ("name", "changes", "divisor"),
    [
        ("DynUNet", {"kernel_size": [3] * 3, "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2]]}, (4, 4, 2)),
        ("UNet", {"strides": [[1, 2, 2], 2]}, (2, 4, 4)),
        ("AttentionUnet", {"strides": [[1, 2, 2], [2, 1, 2]]}, (2, 2, 4)),
        ("SegResNetDS", {"blocks_down": [1] * 4, "resolution": [1, 1, 5]}, (8, 8, 2)),
        ("FlexibleUNet", {"backbone": "efficientnet-b0", "is_pad": False}, (32, 32, 32)),
        ("FlexibleUNet", {"backbone": "efficientnet-b0"}, (2, 2, 2)),
        ("SwinUNETR", {}, (32, 32, 32)),
    ],
)
def test_divisors_follow_strides_axis_by_axis(name, changes, divisor):
    network_def = config(name, spatial_dims=3, **changes)
    if name == "DynUNet":
        network_def["upsample_kernel_size"] = changes["strides"][1:]
    assert divisor_of(network_def) == divisor
    network = build_network(narrow(network_def, 0.5), device="meta").eval()
    size = tuple(by * math.ceil(33 / by) for by in divisor)
    assert network(torch.empty(1, 1, *size, device="meta")).shape[2:] == size
    if len(set(divisor)) > 1:
        with pytest.raises(ValueError, match=str(divisor).replace("(", r"\(").replace(")", r"\)")):
            check_input_shape(network_def, (1, 1, *(length + 1 for length in size)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("UNet", (1, 1, 32, 32, 32), r"takes an input of shape \(B, 1, H, W\)"),
        ("UNet", (1, 3, 32, 32), r"takes an input of shape \(B, 1, H, W\), got \(1, 3, 32, 32\)"),
        ("UNETR", (1, 1, 64, 64), r"takes inputs of size \(32, 32\) only, got \(64, 64\)"),
        ("BasicUNet", (1, 1, 8, 8), r"cannot take an input of shape \(1, 1, 8, 8\)"),
        ("SwinUNETR", (1, 1, 32, 32), r"cannot take an input of shape \(1, 1, 32, 32\): Expected more than 1 spatial"),
    ],
)
def test_other_inputs_that_cannot_work(name, shape, message):
    with pytest.raises(ValueError, match=message):
        network_size(config(name), shape)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_the_default_input_suits_the_network(name, spatial_dims):
    network_def = config(name, spatial_dims)
    check_input_shape(network_def, default_input_shape(network_def))


def test_scales_are_where_the_widths_appear():
    # Widths that occur once, so that an output of so many channels belongs to one stage.
    cases = [
        config("UNet", channels=[11, 13, 17, 19], strides=[2, 3, 2], num_res_units=2),
        config("UNet", channels=[11, 13, 17], strides=[1, 2]),
        config("AttentionUnet", channels=[11, 13, 17], strides=[2, 3]),
        config("DynUNet", filters=[11, 13, 17], strides=[2, 1, 2], upsample_kernel_size=[1, 2]),
        config("FlexibleUNet", decoder_channels=[37, 29, 23, 19, 17]),
    ]
    for network_def in cases:
        seen = {}
        network = build_network(network_def, device="meta").eval()

        def note(module, inputs, output, seen=seen):
            seen.setdefault(output.shape[1], set()).add(96 // output.shape[2])

        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.register_forward_hook(note)
        network(torch.empty(1, 1, 96, 96, device="meta"))
        stages = NetworkFamily.of(network_def)
        assert [seen[width] for width in stages.channels] == [{scale} for scale in stages.scales], network_def[
            "_target_"
        ]
