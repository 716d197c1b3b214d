import sys

import pytest
import torch

from monai_ccnet.constraints import DiskBudget, InfeasibleConstraintError, compress
from monai_ccnet.networks import (
    WIDTHS,
    NetworkFamily,
    Widths,
    build_network,
    find_widths,
    network_size,
    save_weights,
    spatial_dims_of,
)
from monai_ccnet.networks.size import disk_bytes
from monai_ccnet.networks.widths import tied_values

N = "monai.networks.nets."
SMALL = {"in_channels": 1, "out_channels": 2}
TWO_D = {"spatial_dims": 2, **SMALL}
LEVELS = {"channels": [32, 64, 64], "attention_levels": [False] * 3, "num_res_blocks": [1] * 3, "norm_num_groups": 16}

# Networks that are in no table, with the argument that narrows them and the step by which it can change.
FOUND = [
    ({"_target_": N + "RegUNet", "spatial_dims": 3, "in_channels": 1, "num_channel_initial": 16, "depth": 3}, 1),
    ({"_target_": N + "Quicknat", "num_classes": 5, "num_channels": 1, "num_filters": 64}, 1),
    ({"_target_": N + "ViTAutoEnc", "in_channels": 1, "img_size": [32, 32, 32], "patch_size": [16, 16, 16]}, 12),
    ({"_target_": N + "SegResNetVAE", "input_image_size": [32, 32, 32], **SMALL, "init_filters": 16}, 8),
    ({"_target_": N + "SegResNetDS2", **SMALL}, 1),
    ({"_target_": N + "DenseNet121", **TWO_D}, 1),
    ({"_target_": N + "AutoEncoder", **TWO_D, "channels": [16, 32, 64], "strides": [2, 2, 2]}, 1),
    ({"_target_": N + "AutoencoderKL", **TWO_D, "latent_channels": 4, **LEVELS}, 16),
    ({"_target_": N + "SPADEAutoencoderKL", "label_nc": 3, **TWO_D, "latent_channels": 4, **LEVELS}, 16),
    ({"_target_": N + "VQVAE", **TWO_D}, 1),
    (
        {
            "_target_": N + "LocalNet",
            "spatial_dims": 3,
            "in_channels": 2,
            "out_channels": 3,
            "num_channel_initial": 16,
            "extract_levels": [0, 1, 2],
            "out_kernel_initializer": "kaiming_uniform",
            "out_activation": None,
        },
        1,
    ),
    (
        {
            "_target_": N + "GlobalNet",
            "image_size": [32] * 3,
            "spatial_dims": 3,
            "in_channels": 2,
            "depth": 3,
            "num_channel_initial": 16,
        },
        1,
    ),
    (
        {"_target_": N + "ViT", "in_channels": 1, "img_size": [32] * 3, "patch_size": [16] * 3},
        1,
    ),  # its answer stays as wide
    (
        {
            "_target_": N + "ResNet",
            "block": "basic",
            "layers": [1] * 4,
            "block_inplanes": [16, 32, 64, 128],
            "spatial_dims": 2,
            "n_input_channels": 1,
        },
        1,
    ),
    (
        {
            "_target_": N + "Classifier",
            "in_shape": [1, 64, 64],
            "classes": 2,
            "channels": [8, 16, 32],
            "strides": [2, 2, 2],
        },
        1,
    ),
]


@pytest.mark.parametrize(("network_def", "step"), FOUND, ids=lambda each: str(each))
def test_widths_are_found_and_the_counts_are_those_of_the_network_that_is_built(network_def, step):
    assert network_def["_target_"].rsplit(".", 1)[-1] not in WIDTHS
    entry = find_widths(network_def)
    assert entry.multiple == step
    family = NetworkFamily.of(network_def, "auto")
    halves = family.nearest([0.5] * len(family.channels))
    assert halves != family.channels
    narrower = family.at(halves)
    built = build_network(narrower)
    parameters = sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)
    assert network_size(narrower).parameters == parameters
    assert parameters < 0.9 * network_size(network_def).parameters


@pytest.mark.parametrize(
    ("network_def", "argument"),
    [
        ({"_target_": N + "BasicUNet", "spatial_dims": 2}, "features"),
        ({"_target_": N + "SegResNet", "spatial_dims": 2, "init_filters": 32}, "init_filters"),
        ({"_target_": N + "MedNeXt"}, "init_filters"),
    ],
)
def test_what_is_found_is_what_the_table_says(network_def, argument):
    entry, family = find_widths(network_def), NetworkFamily.of(network_def)
    assert entry.argument == argument == family.argument
    assert entry.multiple == family.multiples[0]


def test_a_plan_by_what_was_found_keeps_to_the_budget():
    network_def = {"_target_": N + "Quicknat", "num_classes": 5, "num_channels": 1, "num_filters": 64}
    plan = compress(network_def, DiskBudget(200_000), widths="auto", layerwise=False)
    assert disk_bytes(plan.network_def) <= 200_000 < disk_bytes({**network_def, "num_filters": plan.channels[0] + 1})
    assert plan.predicted.low is None, "no such network was measured"


TIED = """
import torch
from torch import nn
class Tied(nn.Module):
    embed_dim = None
    def __init__(self, in_channels=1, img_size=(16, 16), feature_size=8, embed_dim=(16, 32), num_heads=(2, 4)):
        super().__init__()
        assert [width % heads for width, heads in zip(embed_dim, num_heads)] == [0, 0]
        self.down = nn.Sequential(nn.Conv2d(1, embed_dim[0], 2, 2), nn.Conv2d(embed_dim[0], embed_dim[1], 2, 2))
        self.up = nn.ConvTranspose2d(4 * feature_size, feature_size, 4, 4)
        self.place = nn.Parameter(torch.zeros(1, embed_dim[1], 4, 4))
        self.out = nn.Conv2d(feature_size, 2, 1)
    def forward(self, x):
        return self.out(self.up(self.down(x) + self.place))
class Fixed(Tied):
    def __init__(self, in_channels=1, img_size=(16, 16), feature_size=8):
        super().__init__(in_channels, img_size, feature_size)
        self.embed_dim = [16, 32]
"""


@pytest.fixture
def tied(tmp_path, monkeypatch):
    """Return the config of a network whose two widths move together or not at all, and takes one size of input."""
    (tmp_path / "their_networks.py").write_text(TIED)
    monkeypatch.syspath_prepend(tmp_path)
    yield {"_target_": "their_networks.Tied", "embed_dim": [16, 32]}
    sys.modules.pop("their_networks", None)


def test_widths_that_need_each_other_are_found_together_and_planned_to_the_byte(tied, tmp_path):
    entry = find_widths(tied)
    assert (entry.argument, entry.tied, entry.multiple) == ("feature_size", {"embed_dim": [2, 4]}, 1)
    assert (entry.least, entry.input_size) == (1, "img_size")
    family = NetworkFamily.of(tied, "auto")
    as_data = {"argument": "feature_size", "scales": [1], "tied": {"embed_dim": [2, 4]}, "input_size": "img_size"}
    assert NetworkFamily.of(tied, as_data).at((3,)) == family.at((3,))
    assert NetworkFamily.from_dict(family.to_dict(), trusted=["their_networks.Tied"]) == family
    for width in (family.smallest[0], 3, 8):
        narrowed = family.at((width,))
        assert (narrowed["feature_size"], narrowed["embed_dim"]) == (width, [2 * width, 4 * width])
        network = build_network(narrowed)
        assert network(torch.zeros(family.input_shape)).shape == (1, 2, 16, 16)
        save_weights(network, tmp_path / "model.pt")
        assert (tmp_path / "model.pt").stat().st_size == family.size((width,)).file_bytes
    assert family.at(family.channels) == {**tied, "feature_size": 8}
    plan = compress(tied, DiskBudget(6_000), widths="auto", scale=2)
    assert plan.size.input_shape == (1, 1, 32, 32)
    assert disk_bytes(plan.network_def) <= 6_000


def test_what_is_tied_has_to_hold_for_the_full_network(tied):
    with pytest.raises(ValueError, match=r"'embed_dim' of .* is \[16, 32\], but tied to 'feature_size' .* \[8, 32\]"):
        NetworkFamily.of(tied, {"argument": "feature_size", "scales": [1], "tied": {"embed_dim": [1, 4]}})
    with pytest.raises(ValueError, match="as whole numbers from 1"):
        Widths("feature_size", [1], tied={"embed_dim": [0.5]})
    with pytest.raises(TypeError, match="beside one argument"):
        Widths(("one", "two"), [1], tied={"three": 1})
    with pytest.raises(ValueError, match="one number for each of 2 widths"):
        tied_values({"other": [1, 2, 3]}, [4, 8])


def test_widths_that_a_class_fixes_are_named_and_its_scale_is_open(tied):
    fixed = {"_target_": "their_networks.Fixed"}
    with pytest.raises(ValueError, match=r"by halving: feature_size. Its class itself fixes embed_dim \[16, 32\]"):
        find_widths(fixed)
    family = NetworkFamily.as_it_is(fixed)
    assert (family.divisor, family.has_fixed_size, family.input_shape_at(2)) == ((16, 16), True, (1, 1, 32, 32))
    with pytest.raises(InfeasibleConstraintError, match=r"file\): the network still needs .* at least that\.$"):
        compress(fixed, DiskBudget(20_000), scale=2)
    plan = compress(fixed, DiskBudget(30_000), scale=2)
    assert plan.size.macs == network_size(fixed, (1, 1, 16, 16)).macs
    assert build_network(plan.network_def)(torch.zeros(1, 1, 24, 24)).shape == (1, 2, 24, 24)


def test_several_of_one_width_are_moved_together_where_that_saves_clearly_more():
    entry = find_widths({"_target_": N + "ViTAutoEnc", "in_channels": 1, "img_size": [32] * 3, "patch_size": [16] * 3})
    assert (entry.argument, entry.tied, entry.multiple) == ("hidden_size", {"mlp_dim": 4}, 12)
    entry = find_widths({"_target_": N + "VQVAE", **TWO_D})
    assert (entry.argument, entry.tied) == ("channels", {"num_res_channels": [1, 1, 1]})


def test_what_cannot_be_narrowed_says_what_was_tried_and_what_can_be_had():
    with pytest.raises(ValueError, match=r"HoVerNet narrows it, alone or with .*; tried by halving: none.*fewer bits"):
        find_widths({"_target_": N + "HoVerNet"})
    with pytest.raises(ValueError, match=r"widths must be 'auto' or"):
        NetworkFamily.of({"_target_": N + "Quicknat"}, "automatic")


def test_spatial_axes_are_found_from_the_convolutions():
    assert spatial_dims_of({"_target_": N + "VNet"}) == 3
    assert spatial_dims_of({"_target_": N + "Quicknat"}) == 2
    assert spatial_dims_of({"_target_": N + "BasicUNet", "spatial_dims": 2}) == 2
    with pytest.raises(ValueError, match="has no convolution"):
        spatial_dims_of({"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2})


def test_a_range_that_is_read_while_a_network_is_built_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "reads_a_range.py").write_text(
        "import torch\n"
        "class Reads(torch.nn.Module):\n"
        "    def __init__(self, channels=8):\n"
        "        super().__init__()\n"
        "        count = len(torch.arange(3).tolist())\n"
        "        self.layers = torch.nn.Sequential(*[torch.nn.Conv2d(channels, channels, 1) for _ in range(count)])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = build_network({"_target_": "reads_a_range.Reads", "channels": 4}, device="meta")
    assert sum(parameter.numel() for parameter in network.parameters()) == 3 * (4 * 4 + 4)
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize(
    ("entry", "does"),
    [
        ({"argument": "strides", "scales": [1, 2]}, "leaves 2,668 of 2,668 parameters"),
        ({"argument": "out_channels", "scales": [1]}, "changes the shape of its answer"),
    ],
)
def test_an_entry_that_holds_no_widths_is_refused(entry, does):
    unet = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 4}
    unet |= {"channels": [4, 8, 16], "strides": [2, 2]}
    with pytest.raises(ValueError, match=f"(?s)whose smallest value {does}.*name the argument that holds the channels"):
        NetworkFamily.of(unet, entry)
