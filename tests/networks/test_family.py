"""Narrowing a config, and building it."""

import functools
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import BasicUNet, UNet

from monai_ccnet.networks import (
    WIDTHS,
    NetworkFamily,
    PlainUNet,
    Widths,
    build_network,
    divisor_of,
    narrow,
    network_def_of,
)

PLAIN = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [64, 128, 256, 512, 1024]}
MONAI_UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 16, 32],
    "strides": [2, 2],
}
BASIC = {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "features": [8, 8, 16, 32, 64, 8]}
NETS = "monai.networks.nets."
DYN = {"_target_": NETS + "DynUNet"}


class TwoConvolutions(torch.nn.Sequential):
    def __init__(self, widths):
        super().__init__(torch.nn.Conv2d(1, widths[0], 3), torch.nn.Conv2d(widths[0], widths[1], 3, stride=(2, 1)))


def test_half_width():
    assert narrow(PLAIN, 0.5)["channels"] == [32, 64, 128, 256, 512]
    assert PLAIN["channels"] == [64, 128, 256, 512, 1024]


def test_a_multiplier_each():
    assert narrow(PLAIN, [1, 0.5, 0.25, 0.1, 0.001])["channels"] == [64, 64, 64, 51, 1]


@settings(deadline=None)
@given(st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_channels_never_rise_as_the_multiplier_falls(first, second):
    narrower, wider = (narrow(PLAIN, multiplier)["channels"] for multiplier in sorted((first, second)))
    assert all(1 <= n <= w <= f for n, w, f in zip(narrower, wider, PLAIN["channels"], strict=True))


@pytest.mark.parametrize(
    ("network_def", "scales"), [(PLAIN, (1, 2, 4, 8, 16)), (MONAI_UNET, (2, 4, 4)), (BASIC, (1, 2, 4, 8, 16, 1))]
)
def test_every_known_network_narrows_and_runs(network_def, scales):
    assert NetworkFamily.of(network_def).scales == scales
    network = build_network(narrow(network_def, 0.5)).eval()
    assert network(torch.zeros(1, 1, 32, 32)).shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("network_def", "multiplier", "expected"),
    [
        ({"_target_": NETS + "SegResNet", "init_filters": 32}, 0.4, {"init_filters": 16}),
        ({"_target_": NETS + "SegResNet", "init_filters": 32}, 0.01, {"init_filters": 8}),
        (
            {"_target_": NETS + "SegResNet", "init_filters": 32, "norm": ("GROUP", {"num_groups": 4})},
            0.4,
            {"init_filters": 12},
        ),
        ({"_target_": NETS + "SegResNet", "init_filters": 32, "norm": "BATCH"}, 0.4, {"init_filters": 13}),
        (
            {"_target_": NETS + "SegResNet", "init_filters": 32, "norm_name": "group", "num_groups": 16},
            0.4,
            {"init_filters": 16},
        ),
        ({"_target_": NETS + "SegResNetDS"}, 0.4, {"init_filters": 13}),
        ({"_target_": NETS + "MedNeXt"}, 0.4, {"init_filters": 13}),
        ({"_target_": NETS + "SwinUNETR", "feature_size": 48}, 0.4, {"feature_size": 24}),
        ({"_target_": NETS + "SwinUNETR", "feature_size": 48, "num_heads": [24] * 4}, 0.4, {"feature_size": 24}),
        (
            {"_target_": NETS + "UNETR", "img_size": 96},
            0.4,
            {"feature_size": 6, "hidden_size": 312, "mlp_dim": 1229},
        ),
        ({**BASIC, "norm": ["group", {"num_groups": 4}]}, 0.3, {"features": [4, 4, 4, 8, 20, 4]}),
        (BASIC, 0.01, {"features": [2] * 6}),
        (
            {"_target_": NETS + "DynUNet", "spatial_dims": 3, "strides": [1, 2, 2, 2, 2]},
            0.5,
            {"filters": [16, 32, 64, 128, 160]},
        ),
        (
            {"_target_": NETS + "DynUNet", "spatial_dims": 2, "strides": [1, 2, 2], "filters": [8] * 5},
            0.5,
            {"filters": [4] * 3},
        ),
        ({"_target_": NETS + "FlexibleUNet"}, 0.5, {"decoder_channels": [128, 64, 32, 16, 8]}),
    ],
)
def test_widths_are_the_nearest_that_the_network_can_have(network_def, multiplier, expected):
    narrowed = narrow(network_def, multiplier)
    assert {key: narrowed[key] for key in expected} == expected
    assert {key: value for key, value in narrowed.items() if key not in expected} == {
        key: value for key, value in network_def.items() if key not in expected
    }


@pytest.mark.parametrize("name", ["SegResNet", "SegResNetDS", "MedNeXt", "SwinUNETR"])
def test_a_network_with_one_width_refuses_a_multiplier_a_stage(name):
    with pytest.raises(ValueError, match=r"narrows as a whole.*one multiplier, got 4.*layerwise=False"):
        narrow({"_target_": NETS + name}, [0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("network_def", "message"),
    [
        ({"_target_": NETS + "SegResNet", "init_filters": 12}, "must be divisible by 8"),
        ({"_target_": NETS + "SwinUNETR", "feature_size": 20}, "must be divisible by 12"),
        ({"_target_": NETS + "UNet", "channels": [8, 16, 32], "strides": [2]}, "3 widths in 'channels', but 2 stages"),
        ({"_target_": NETS + "UNet", "channels": [8, "16"], "strides": [2]}, "whole numbers from 1"),
    ],
)
def test_widths_that_cannot_work(network_def, message):
    with pytest.raises(ValueError, match=message):
        narrow(network_def, 0.5)


def test_one_entry_makes_a_network_known(monkeypatch):
    monkeypatch.setitem(
        WIDTHS, "TwoConvolutions", Widths("widths", lambda arguments: [1, [2, 1]], multiple=lambda _: 2)
    )
    network_def = {"_target_": f"{TwoConvolutions.__module__}.TwoConvolutions", "widths": [16, 10]}
    monkeypatch.setitem(sys.modules, TwoConvolutions.__module__, sys.modules[__name__])
    assert narrow(network_def, [0.3, 0.5])["widths"] == [4, 6]
    assert NetworkFamily.of(network_def).scales == (1, 2)
    assert divisor_of(network_def) == (2, 1)


def test_widths_that_are_not_said_are_the_default():
    assert narrow({"_target_": "monai_ccnet.networks.PlainUNet"}, 0.5)["channels"] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [(0, "(0, 1]"), (1.5, "(0, 1]"), (-1, "(0, 1]"), (float("nan"), "(0, 1]"), ([0.5, 0.5], "5 stages need one")],
)
def test_multipliers_out_of_range(multipliers, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("]", r"\]")):
        narrow(PLAIN, multipliers)


def test_an_unknown_network_is_told_how_to_be_known():
    with pytest.raises(ValueError, match=r"known networks are .*PlainUNet.*WIDTHS\['Mine'\] = "):
        narrow({"_target_": "my.package.Mine"}, 0.5)


def test_networks_are_built_where_and_as_asked():
    assert isinstance(build_network(MONAI_UNET), UNet)
    assert isinstance(build_network(BASIC), BasicUNet)
    assert all(p.is_meta for p in build_network(PLAIN, device="meta").parameters())


@pytest.mark.parametrize(
    ("network_def", "message"),
    [
        ({"_target_": "os.system", "command": "false"}, "not a torch.nn.Module"),
        ({"_target_": "NoSuchNetwork"}, "not a torch.nn.Module: check the name"),
        (
            {"_target_": "monai.networks.nets.resnet18"},
            "Module: it is a function. Name the class that it builds",
        ),
        ({**PLAIN, "channels": "@channels"}, "resolve references first"),
        ({**PLAIN, "act": "$__import__('os').system('false')"}, "resolve references first"),
        ({**PLAIN, "act": {"_target_": "os.system", "command": "false"}}, "not a torch.nn.Module"),
        ({"channels": [1, 2]}, "dict with '_target_'"),
        ("PlainUNet", "dict with '_target_'"),
    ],
)
def test_a_config_can_build_networks_and_run_nothing_else(network_def, message):
    with pytest.raises(ValueError, match=message):
        build_network(network_def)


def test_what_a_bundle_makes_of_mode_callable_is_the_config_again():
    partial = functools.partial(PlainUNet, channels=[4, 8])
    expected = {"_target_": "monai_ccnet.networks.plain_unet.PlainUNet", "channels": [4, 8]}
    assert network_def_of(partial) == expected
    assert network_def_of({**expected, "_mode_": "callable"}) == expected
    with pytest.raises(TypeError, match="'_mode_': 'callable'"):
        network_def_of(PlainUNet(channels=(2, 2)))


class Narrowed(BasicUNet):
    """A network of one's own that is one of MONAI's."""


class SegResNet(torch.nn.Module):
    """A network of one's own that has the name of one of MONAI's."""

    def __init__(self, init_filters=8):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, init_filters, 3)


def test_networks_are_known_by_their_class_and_not_by_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, Narrowed.__module__, sys.modules[__name__])
    alias = {**MONAI_UNET, "_target_": "monai.networks.nets.Unet"}
    assert NetworkFamily.of(alias).channels == NetworkFamily.of(MONAI_UNET).channels
    child = {**BASIC, "_target_": f"{__name__}.Narrowed"}
    assert NetworkFamily.of(child).argument == "features"
    with pytest.raises(ValueError, match=r"it is not known where .*SegResNet"):
        NetworkFamily.of({"_target_": f"{__name__}.SegResNet"})


def test_axes_that_no_argument_says_are_the_convolutions():
    family = NetworkFamily.of(
        {
            "_target_": "monai.networks.nets.RegUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "num_channel_initial": 8,
            "depth": 2,
        },
        "auto",
    )
    assert family.spatial_dims == 3
    assert divisor_of({"_target_": "monai.networks.nets.VNet"}, Widths("nothing", [1, 2])) == (2, 2, 2)
