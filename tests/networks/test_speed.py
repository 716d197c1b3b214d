import copy

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet

from monai_ccnet.networks import PlainUNet, at_precision, faster_steps
from monai_ccnet.networks.speed import _FoldedNorm

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
SHAPES = {2: (4, 1, 64, 96), 3: (2, 1, 32, 32, 32)}


def passed(network, image):
    """Output, gradient of the input and of each weight, and buffers after one training step's passes."""
    image = image.clone().requires_grad_()
    output = network(image)
    output.backward(torch.linspace(0, 1e4, output.numel()).cos().view_as(output).to(output))
    values = {"output": output, "input": image.grad}
    values |= {name: each.grad for name, each in network.named_parameters()}
    return values | dict(network.named_buffers())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "build",
    [
        lambda dims: PlainUNet(spatial_dims=dims, channels=(6, 10, 12), act="LEAKYRELU"),
        lambda dims: BasicUNet(spatial_dims=dims, features=(5, 6, 7, 8, 9, 5), norm="batch"),
        lambda dims: UNet(dims, 1, 2, channels=(4, 8), strides=(2,), norm="batch"),
    ],
)
def test_faster_steps_differ_by_rounding_alone(dims, precision, build):
    torch.manual_seed(0)
    network = at_precision(build(dims).to(memory_format=LAYOUTS[dims]).train(), precision)
    image, other = torch.randn(SHAPES[dims]), copy.deepcopy(network)
    exact = at_precision(copy.deepcopy(network).double(), "float32")
    expected, as_torch = passed(exact, image.double()), passed(network, image)
    with faster_steps(other):
        found = passed(other, image)
    for name, value in expected.items():
        if (
            value.double().norm() < 1e-6
        ):  # of a bias before a normalisation, which has no gradient but what rounding leaves
            continue
        errors = [(each[name].double() - value).norm() for each in (found, as_torch)]
        # No further from the exact value than torch's own calculation at that precision, but for chance.
        least = 1e-5 if precision == "float32" else 0.02
        assert errors[0] <= 4 * errors[1] + least * value.double().norm(), name


def test_few_channels_of_many_pixels_are_folded_and_nothing_else(monkeypatch):
    folded = []
    apply = _FoldedNorm.apply
    monkeypatch.setattr(_FoldedNorm, "apply", lambda x, *given: folded.append(tuple(x.shape)) or apply(x, *given))
    network = PlainUNet(channels=(8, 16, 8), act="LEAKYRELU").to(memory_format=torch.channels_last)
    with faster_steps(network):
        network(torch.zeros(4, 1, 64, 64))
        assert folded == [(256, 64 * 8)] * 4  # not those of 16 channels, nor those of 32 x 32 pixels and less
        network(torch.zeros(4, 1, 60, 52))  # pixels are no multiple of 64
        network.eval()(torch.zeros(4, 1, 64, 64))
        copy.deepcopy(network).train().bfloat16()(torch.zeros(4, 1, 64, 64, dtype=torch.bfloat16))
        assert len(folded) == 4
    network.train()(torch.zeros(4, 1, 64, 64))
    assert len(folded) == 4


def test_gradients_of_a_folded_normalisation_are_those_of_finite_differences():
    torch.manual_seed(0)
    rows = torch.randn(2, 64 * 2, dtype=torch.float64).requires_grad_()
    weight, bias = torch.randn(2, 2, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda *given: _FoldedNorm.apply(*given, 1e-5)[0], (rows, weight, bias))


def test_a_layer_that_does_not_train_is_switched_by_train_also_within():
    network = PlainUNet(channels=(4, 8))
    with faster_steps(network):
        network.pool.eval()
        assert network.train() is network
        assert all(each.training for each in network.modules())
        assert not any(each.training for each in network.eval().modules())
        assert all(each.training for each in network.train().modules())
    assert "train" not in vars(network)


def test_a_network_that_switches_in_its_own_way_keeps_it():
    class Frozen(torch.nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    network = torch.nn.Sequential(Frozen(4))
    with faster_steps(network):
        assert network.train().training
        assert not network[0].training


def test_layers_are_as_before_at_the_end_even_after_an_error():
    network = PlainUNet(channels=(4, 8))
    network.pool.forward = own = lambda x: x[..., ::2, ::2]
    with faster_steps(network):
        assert network.pool.forward is own
        assert sum("forward" in vars(each) for each in network.modules()) > 1
    with pytest.raises(RuntimeError, match="expected input"), faster_steps(network):
        network(torch.zeros(1, 3, 8, 8))
    assert [each for each in network.modules() if "forward" in vars(each)] == [network.pool]


def test_transposed_convolutions_of_every_kind_come_to_the_same():
    torch.manual_seed(0)
    kinds = [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": (2, 4), "stride": (2, 4), "bias": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 2, "stride": 2, "groups": 2},
        {"kernel_size": 2, "stride": 2, "dilation": 2},
    ]
    for kind in kinds:
        layer = torch.nn.ConvTranspose2d(4, 6, **kind)
        image = torch.randn(2, 4, 7, 5)
        with torch.autocast("cpu", torch.bfloat16):
            expected = layer(image)
            with faster_steps(layer):
                found = layer(image)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
