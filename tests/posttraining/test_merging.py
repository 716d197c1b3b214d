"""Merging: where one filter is another times a number, nothing is lost; elsewhere less than without."""

import pytest
import torch
from torch import nn

from monai_ccnet.networks import build_network
from monai_ccnet.posttraining import (
    follow_channels,
    most_similar,
    prune_share,
    without_channels,
    without_channels_merged,
)

NETS = "monai.networks.nets."
IN_OUT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
UNETS = {
    "batch": {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [4, 6, 8], "norm": "BATCH"},
    "none": {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [4, 6, 8], "norm": None},
    "3-D": {"_target_": "monai_ccnet.networks.PlainUNet", "spatial_dims": 3, "channels": [3, 4, 5]},
    "CUMedVision": {"_target_": "monai_ccnet.networks.CUMedVision", "channels": [4, 6, 8]},
    "UCUNet": {"_target_": "monai_ccnet.networks.UCUNet", "channels": [4, 6, 8]},
    "affine instance": {"_target_": NETS + "BasicUNet", **IN_OUT, "features": [4, 4, 6, 8, 10, 4]},
    "plain instance": {"_target_": NETS + "UNet", **IN_OUT, "channels": [4, 6, 8], "strides": [2, 2]},
}


def image_for(network_def):
    size = 32 if network_def["_target_"].endswith("BasicUNet") else 16
    return torch.randn(2, 1, *(size,) * (3 if network_def.get("spatial_dims") == 3 else 2))


def trained(network_def):
    torch.manual_seed(0)
    network = build_network(network_def)
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if "Norm" in type(module).__name__ and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.modules.conv._ConvNd) and module.bias is not None:
            nn.init.normal_(module.bias)
    return network.double().eval()


def make_multiples(network, group, scale, gamma_sign=1):
    """Let the last channel of a group be its first times a number, whatever each one's normalisation is."""
    layer = network.get_submodule(group.layers[0])
    dim = 1 if layer.transposed else 0
    norm = network.get_submodule(group.norm) if group.norm else None
    with torch.no_grad():
        weight = layer.weight.transpose(0, dim)
        if norm is None:
            weight[-1] = scale * weight[0]
            layer.bias[-1] = scale * layer.bias[0]
            return
        weight[-1] = gamma_sign * 3 * weight[0]
        if layer.bias is not None:
            layer.bias[-1] = gamma_sign * 3 * layer.bias[0]
        if not norm.affine:
            return
        if norm.running_var is None:
            norm.weight[-1], norm.bias[-1] = scale * norm.weight[0], scale * norm.bias[0]
            return
        sigma = (norm.running_var + norm.eps).sqrt()
        norm.weight[-1] = gamma_sign * scale * norm.weight[0] / sigma[0] * sigma[-1] / 3
        centred = norm.bias[0] - norm.weight[0] / sigma[0] * norm.running_mean[0]
        norm.bias[-1] = scale * centred + norm.weight[-1] / sigma[-1] * norm.running_mean[-1]


@pytest.mark.parametrize("name", UNETS)
def test_a_multiple_of_another_filter_is_made_up_for_exactly(name):
    """Every layer at once: each loses a channel that another is in all but scale, and no logit changes.

    Instance normalisation forgets a scale but for its epsilon.
    """
    tolerance = 1e-3 if "instance" in name else 1e-9
    network, image = trained(UNETS[name]), image_for(UNETS[name]).double()
    groups = follow_channels(network.float(), image.shape)  # which are followed in single precision
    network.double()
    for group in groups:
        make_multiples(network, group, scale=0.7)
    removed = [[len(group) - 1] if len(group) > 1 else [] for group in groups]
    merged, cut = (remove(network, groups, removed) for remove in (without_channels_merged, without_channels))
    assert torch.allclose(
        merged(image), network(image), rtol=0, atol=tolerance * float(network(image).detach().abs().max())
    )
    assert not torch.allclose(cut(image), network(image), rtol=0.01)
    assert [p.shape for p in merged.parameters()] == [p.shape for p in cut.parameters()]


def test_a_negative_gamma_turns_the_filter_round():
    network, image = trained(UNETS["batch"]), torch.randn(2, 1, 16, 16).double()
    groups = follow_channels(network.float(), image.shape)
    network.double()
    make_multiples(network, groups[0], scale=0.7, gamma_sign=-1)
    merged = without_channels_merged(network, groups[:1], [[3]])
    assert torch.allclose(merged(image), network(image))


def test_a_negative_multiple_is_not_merged():
    filters = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    (merge,) = most_similar(filters, torch.zeros(3), kept=[0, 1], removed=[2])
    assert merge.scale > 0
    assert merge.similarity < 0
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    with torch.no_grad():
        network[0].weight[1] = -network[0].weight[0]
    groups = follow_channels(network, (1, 1, 8, 8))
    merged, cut = (remove(network, groups, [[1]]) for remove in (without_channels_merged, without_channels))
    assert torch.equal(merged[2].weight, cut[2].weight)


def test_the_bias_decides_between_filters_that_are_as_similar():
    filters, biases = torch.ones(3, 2), torch.tensor([5.0, 1.0, 1.2])
    assert most_similar(filters, biases, kept=[0, 1], removed=[2])[0].kept == 1
    assert most_similar(filters * torch.tensor([[1.0], [1.0], [4.0]]), biases * 4, [0, 1], [2])[0].scale == 4


def test_a_filter_of_zeros_is_merged_with_no_effect():
    (merge,) = most_similar(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(2), kept=[0], removed=[1])
    assert (merge.scale, merge.similarity) == (0, 0)


@pytest.mark.parametrize("name", ["batch", "affine instance"])
def test_merging_loses_less_than_removing(name):
    """Of filters drawn in pairs that are nearly multiples of one another."""
    network, image = trained(UNETS[name]).float(), image_for(UNETS[name])
    groups = follow_channels(network, image.shape)
    for group in groups:
        make_multiples(network, group, scale=0.7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    removed = [[len(group) - 1] if len(group) > 1 else [] for group in groups]
    merged, cut = (remove(network, groups, removed) for remove in (without_channels_merged, without_channels))
    lost = [(other(image) - network(image)).square().mean() for other in (merged, cut)]
    assert lost[0] < 0.5 * lost[1]


def test_sums_and_group_normalisation_are_removed_without_merging():
    network_def = {"_target_": NETS + "SegResNet", **IN_OUT, "init_filters": 8, "norm": ("GROUP", {"num_groups": 4})}
    network = trained(network_def).float()
    shares = {"share": 0.3, "input_shape": (1, 1, 16, 16)}
    merged, cut = (prune_share(network, merge=merge, **shares) for merge in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), cut.parameters(), strict=True))


def test_refusals():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    groups = follow_channels(network, (1, 1, 8, 8))
    with pytest.raises(ValueError, match="similarity_weight must lie in"):
        without_channels_merged(network, groups, [[0]], similarity_weight=2)
