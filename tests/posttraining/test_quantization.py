"""Quantization that really quantizes: the kernels are int8, the file is four times smaller, results stay close."""

import io

import pytest
import torch
from torch.ao.quantization import quantize_dynamic as stock_quantize_dynamic

from monai_ccnet.networks import build_network, kernel_axes, load_weights, save_weights
from monai_ccnet.posttraining import (
    check_quantized,
    export_network,
    load_exported,
    quantize_dynamic,
    quantize_onnx,
    quantize_weights,
)

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 16, 32], "out_channels": 2}


def _network(**options):
    torch.manual_seed(0)
    network = build_network({**UNET, **options})
    for _ in range(3):  # batch statistics of their own
        network(torch.randn(2, 1, *[32] * options.get("spatial_dims", 2)))
    return network.eval()


def _bytes(network):
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return len(file.getvalue())


def _error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("quantize", [quantize_weights, quantize_dynamic])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_kernel_is_int8_and_the_logits_stay_close(quantize, spatial_dims):
    network, image = _network(spatial_dims=spatial_dims), torch.randn(1, 1, *[32] * spatial_dims)
    small = quantize(network)
    assert check_quantized(small) == len(kernel_axes(network)) == 13
    assert 0 < _error(small(image), network(image)) < 0.05
    assert not small.training
    with pytest.raises(ValueError, match="13 of 13 kernels are not int8: encoder"):
        check_quantized(network)


def test_the_state_dict_is_four_times_smaller_and_loads_into_another_copy():
    network = _network(channels=[32, 64, 128])
    small = quantize_weights(network)
    assert _bytes(network) / _bytes(small) > 3.6
    other, image = (
        quantize_weights(_network(channels=[32, 64, 128], norm="INSTANCE").train()),
        torch.randn(1, 1, 16, 16),
    )
    other = quantize_weights(build_network({**UNET, "channels": [32, 64, 128]}))
    other.load_state_dict(small.state_dict())
    torch.testing.assert_close(other(image), small(image))


def test_int8_in_memory_computes_what_the_file_of_8_bits_does(tmp_path):
    network, image = _network(), torch.randn(1, 1, 32, 32)
    save_weights(network, tmp_path / "model.pt", 8)
    loaded = load_weights(build_network(UNET), tmp_path / "model.pt").eval()
    torch.testing.assert_close(loaded(image), quantize_weights(network)(image))


def test_a_layer_by_hand_and_by_integers():
    layer = torch.nn.Conv2d(3, 2, 3, bias=False)
    image = torch.rand(1, 3, 8, 8)  # from 0, as after a ReLU: where torch's own quantized convolutions go wrong
    small = quantize_dynamic(torch.nn.Sequential(layer))
    step, scale = image.max() / 255, layer.weight.abs().amax(dim=(1, 2, 3)) / 127
    codes = torch.round(layer.weight / scale.reshape(2, 1, 1, 1)).long()
    integers = torch.nn.functional.conv2d(torch.round(image / step).long(), codes)
    expected = integers * step * scale.reshape(1, 2, 1, 1)
    torch.testing.assert_close(small(image), expected, atol=1e-4, rtol=1e-4)


def test_the_stock_dynamic_quantization_is_found_out():
    with pytest.raises(ValueError, match="13 of 13 kernels are not int8"):
        check_quantized(stock_quantize_dynamic(_network()))


def test_a_network_without_kernels_is_refused():
    with pytest.raises(ValueError, match="0 of 0 kernels are not int8: none at all"):
        quantize_weights(torch.nn.Sequential(torch.nn.ReLU()))


@pytest.mark.parametrize("static", [True, False])
def test_onnx_runtime_computes_with_integers(tmp_path, static):
    network, images = _network(channels=[32, 64, 128]), torch.randn(4, 1, 32, 32)
    full = export_network(network, tmp_path / "model.onnx", (1, 1, 32, 32))
    written = quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", images.split(1) if static else None)
    assert full.file_bytes / written > (3 if static else 2)
    found = load_exported(tmp_path / "int8.onnx")(images)
    assert 0 < _error(found, network(images)) < 0.15
