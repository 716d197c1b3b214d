"""The U-Net: shapes, start, export, refusals."""

import math

import pytest
import torch

from monai_ccnet.networks import PlainUNet


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"norm": None}, {"norm": "INSTANCE", "act": "PRELU", "dropout": 0.2}, {"channels": (3, 2)}]
)
def test_logits_have_the_shape_of_the_image(spatial_dims, options):
    network = PlainUNet(
        **{"spatial_dims": spatial_dims, "in_channels": 2, "out_channels": 3, "channels": (4, 5, 3)} | options
    )
    image = torch.randn(2, 2, *(8, 16, 24)[:spatial_dims])
    assert network(image).shape == (2, 3, *image.shape[2:])


def test_eval_mode_scripts_traces_and_exports():
    network = PlainUNet(channels=(4, 6, 8), out_channels=2).eval()
    image = torch.randn(1, 1, 32, 32)
    expected = network(image)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), expected)
        torch.testing.assert_close(torch.jit.trace(network, image)(image), expected)
        torch.testing.assert_close(torch.export.export(network, (image,)).module()(image), expected)


def test_kernels_start_from_he_and_keep_the_variance_without_normalisation():
    torch.manual_seed(0)
    network = PlainUNet(channels=(32, 64), norm=None)
    kernel = network.encoder[1][0].conv.weight
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.05)
    logits = network(torch.randn(4, 1, 64, 64))
    assert 0.1 < logits.std().item() < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"channels": (4,)}, "at least 2 widths"),
        ({"channels": (4, 0)}, "at least 1"),
        ({"out_channels": 0}, "at least 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        PlainUNet(**options)


def test_an_image_that_does_not_divide_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"must be divisible by 4, got \(32, 30\): pad the images.*DivisiblePadd"):
        PlainUNet(channels=(2, 2, 2))(torch.zeros(1, 1, 32, 30))
