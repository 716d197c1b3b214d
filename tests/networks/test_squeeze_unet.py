"""The U-Net of fire modules: its size, its squeezes, what it exports to, plans for it, refusals."""

import io
import math

import pytest
import torch

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import DiskBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.networks import SqueezeUNet, build_network, narrow, network_size

FULL = {"_target_": "monai_ccnet.networks.SqueezeUNet"}


def test_full_width_has_the_weights_of_table_10():
    size = network_size(FULL)
    assert size.weights == 11_195_008
    assert math.log10(size.weights) == pytest.approx(7.049, abs=5e-4)
    assert network_size({**FULL, "squeeze_ratio": 0.125}).weights == 5_356_672


def test_weights_of_two_stages_by_hand():
    def fire(inputs, outputs):
        squeezed = math.floor(outputs / 4 + 0.5)
        return inputs * squeezed + squeezed * (outputs // 2) + 9 * squeezed * math.ceil(outputs / 2)

    expected = 9 * 6 + fire(6, 6) + fire(6, 10) + fire(10, 10) + 4 * 10 * 6 + fire(12, 6) + fire(6, 6) + 6
    assert network_size({**FULL, "channels": [6, 10], "squeeze_ratio": 0.25}).weights == expected


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("multiplier", [1, 0.5, 0.0625])
def test_narrowed_it_runs_and_its_weights_fall_with_the_square(spatial_dims, multiplier):
    full = {**FULL, "spatial_dims": spatial_dims, "channels": [16, 32, 64], "out_channels": 3}
    narrowed = narrow(full, multiplier)
    image = torch.randn(2, 1, *(8, 16, 12)[:spatial_dims])
    assert build_network(narrowed)(image).shape == (2, 3, *image.shape[2:])
    ratio = network_size(narrowed).weights / network_size(full).weights
    assert multiplier**2 * 0.9 < ratio < multiplier**2 * 1.5


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_eval_mode_scripts_traces_and_exports(spatial_dims):
    network = SqueezeUNet(spatial_dims=spatial_dims, channels=(4, 6, 8), out_channels=2).eval()
    image = torch.randn(1, 1, *[16] * spatial_dims)
    expected = network(image)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), expected)
        torch.testing.assert_close(torch.jit.trace(network, image)(image), expected)
        torch.testing.assert_close(torch.export.export(network, (image,)).module()(image), expected)


def test_onnx_computes_the_same():
    onnxruntime = pytest.importorskip("onnxruntime")
    network, image = SqueezeUNet(channels=(4, 6), out_channels=2).eval(), torch.randn(1, 1, 8, 8)
    file = io.BytesIO()
    torch.onnx.export(network, (image,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layerwise", [True, False])
def test_a_plan_fits_the_budget(layerwise):
    known = {
        "complexity": ComplexityProfile.published("lymph_node"),
        "degradation": DegradationModel.published("unet", metric="f1"),
    }
    full = {**FULL, "channels": [16, 32, 64]}
    plan = compress(full, DiskBudget(120_000), layerwise=layerwise, **known)
    assert 90_000 < plan.size.file_bytes <= 120_000
    wider = [min(width + 1, most) for width, most in zip(plan.channels, full["channels"], strict=True)]
    assert network_size({**full, "channels": wider}).file_bytes > 110_000


@pytest.mark.parametrize("ratio", [0, 1.5])
def test_a_squeeze_widens_nothing(ratio):
    with pytest.raises(ValueError, match=r"squeeze_ratio must lie in \(0, 1\]"):
        SqueezeUNet(channels=(2, 2), squeeze_ratio=ratio)
