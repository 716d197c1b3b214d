import pytest

from monai_ccnet.constraints import DiskBudget, compress
from monai_ccnet.networks import WIDTHS, NetworkFamily, build_network, find_widths, network_size, spatial_dims_of
from monai_ccnet.networks.size import disk_bytes

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


def test_what_cannot_be_narrowed_says_what_was_tried_and_what_can_be_had():
    with pytest.raises(ValueError, match=r"HoVerNet narrows it alone; tried by halving: none.*fewer bits"):
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
