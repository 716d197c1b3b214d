"""Precision: the arithmetic changes, the weights and the kind of the output do not."""

import copy

import pytest
import torch

from monai_ccnet.networks import CUMedVision, PlainUNet, at_precision, native_precision


@pytest.mark.parametrize("network_class", [PlainUNet, CUMedVision])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_is_near_float32(network_class, training):
    torch.manual_seed(0)
    network = network_class(channels=(4, 8, 16)).train(training)
    image = torch.randn(2, 1, 32, 32)
    expected = network(image)
    assert at_precision(network, "float32")(image).equal(expected)
    output = at_precision(network, "bfloat16")(image)
    assert output.dtype == torch.float32
    assert not output.equal(expected)
    torch.testing.assert_close(output, expected, atol=0.3, rtol=0.1)
    output.sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())


def test_a_copy_calculates_with_its_own_weights():
    network, image = at_precision(PlainUNet(channels=(4, 8)), "bfloat16").eval(), torch.randn(1, 1, 16, 16)
    other = copy.deepcopy(network)
    other.head.weight.data.zero_()
    other.head.bias.data.fill_(3)
    assert other(image).eq(3).all()
    assert at_precision(other, "float32")(image).eq(3).all()
    assert not network(image).eq(3).any()


def test_a_compiled_network_stays_compiled():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    network, image = torch.compile(PlainUNet(channels=(4, 8)).eval(), backend=backend), torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected = network(image)
        for precision in ("float32", "bfloat16", "float32"):
            torch._dynamo.reset()
            graphs.clear()
            output = at_precision(network, precision)(image)
            assert graphs
            assert output.dtype == torch.float32
            assert output.equal(expected) == (precision == "float32")


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="one of"):
        at_precision(PlainUNet(channels=(2, 2)), "int8")


@pytest.mark.parametrize(("size", "kernel"), [((2, 4, 3), 3), ((2, 2, 2), 3), ((3, 6, 6), 5), ((6, 6, 6), 3)])
def test_the_gradient_of_a_kernel_that_is_longer_than_its_input_is_whole(size, kernel):
    torch.manual_seed(0)
    for _ in range(10):  # without the remedy about one in ten is not even finite
        layer = torch.nn.Conv3d(7, 6, kernel, padding=kernel // 2).to(memory_format=torch.channels_last_3d)
        image = torch.randn(2, 7, *size).to(memory_format=torch.channels_last_3d)
        gradients = []
        for precision in ("float32", "bfloat16"):
            layer.zero_grad()
            at_precision(layer, precision)(image).square().sum().backward()
            gradients.append(layer.weight.grad.clone())
        assert torch.allclose(*gradients, rtol=0, atol=0.03 * float(gradients[0].abs().max()))


def test_auto_is_bfloat16_where_the_processor_calculates_it(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert native_precision("auto") == "float32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert native_precision("auto", torch.device("cpu")) == "bfloat16"
    assert native_precision("auto", "meta") == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert native_precision("auto", "cuda") == "bfloat16"
    assert native_precision("float16", "cuda") == "float16"
