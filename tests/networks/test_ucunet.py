"""UCU-Net: its size beside the U-Net's and CUMedVision's, and what it is made of."""

import math

import pytest
import torch

from monai_ccnet.networks import PlainUNet, UCUNet, network_size

FULL = {"_target_": "monai_ccnet.networks.UCUNet"}


def test_full_width_to_the_digit():
    size = network_size(FULL)
    assert size.weights == 31_173_278
    assert math.log10(size.weights) == pytest.approx(7.494, abs=5e-4)


def test_it_is_the_unet_and_the_branches_of_cumedvision():
    unet = network_size({"_target_": "monai_ccnet.networks.PlainUNet"}).weights
    branches = sum(width * (2 * scale) ** 2 + 9 + 1 for width, scale in ((128, 2), (256, 4), (512, 8)))
    assert network_size(FULL).weights == unet + branches


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_without_its_branches_it_is_the_unet(spatial_dims):
    options = {"spatial_dims": spatial_dims, "channels": (2, 3, 4, 5)}
    network, unet = UCUNet(**options).eval(), PlainUNet(**options).eval()
    with torch.no_grad():
        for branch in network.branches:
            branch[2].weight.zero_()
            branch[2].bias.zero_()
    unet.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("branches.")})
    image = torch.randn(1, 1, *[16] * spatial_dims)
    torch.testing.assert_close(network(image), unet(image))


def test_two_stages_have_no_scale_to_fuse():
    with pytest.raises(ValueError, match="at least 3 widths"):
        UCUNet(channels=(4, 8))
