"""Networks at a fraction of their input's resolution: any network, any size, and nothing but the scale changes."""

import copy

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch.nn import functional

from monai_ccnet.constraints import DiskBudget
from monai_ccnet.networks import (
    AtScale,
    NetworkFamily,
    as_scale,
    at_precision,
    at_scale,
    build_network,
    check_input_shape,
    default_input_shape,
    file_bytes,
    load_weights,
    narrow,
    network_def_of,
    network_size,
    save_weights,
    scale_of,
)
from monai_ccnet.networks.scaling import uncompiled, unwrapped
from monai_ccnet.posttraining import export_network, load_exported, load_pruned, prune, quantize_weights

PLAIN = {"_target_": "monai_ccnet.networks.PlainUNet", "in_channels": 1, "out_channels": 2, "channels": [4, 6, 8]}
ONE = {"in_channels": 1, "out_channels": 2}
NETS = "monai.networks.nets."
NETWORKS = {
    "PlainUNet": PLAIN,
    "UNet": {"_target_": NETS + "UNet", "spatial_dims": 3, **ONE, "channels": [4, 6, 8], "strides": [2, 2]},
    "BasicUNet": {"_target_": NETS + "BasicUNet", "spatial_dims": 2, **ONE, "features": [4, 4, 6, 6, 8, 4]},
    "BasicUNetPlusPlus": {
        "_target_": NETS + "BasicUNetPlusPlus",
        "spatial_dims": 2,
        **ONE,
        "features": [4, 4, 6, 6, 8, 4],
        "deep_supervision": True,
    },
    "AttentionUnet": {
        "_target_": NETS + "AttentionUnet",
        "spatial_dims": 2,
        **ONE,
        "channels": [4, 6, 8],
        "strides": [2, 2],
    },
    "DynUNet": {
        "_target_": NETS + "DynUNet",
        "spatial_dims": 3,
        **ONE,
        "kernel_size": [[3, 3, 1], 3, 3],
        "strides": [1, [2, 2, 1], 2],
        "upsample_kernel_size": [[2, 2, 1], 2],
        "filters": [4, 6, 8],
        "deep_supervision": True,
        "deep_supr_num": 1,
    },
    "SegResNet": {"_target_": NETS + "SegResNet", "spatial_dims": 2, "init_filters": 8, **ONE},
    "SegResNetDS": {"_target_": NETS + "SegResNetDS", "spatial_dims": 2, "init_filters": 8, **ONE, "dsdepth": 2},
    "MedNeXt": {"_target_": NETS + "MedNeXt", "spatial_dims": 2, "init_filters": 4, **ONE},
    "SwinUNETR": {"_target_": NETS + "SwinUNETR", "spatial_dims": 2, **ONE, "feature_size": 12},
    "FlexibleUNet": {
        "_target_": NETS + "FlexibleUNet",
        "spatial_dims": 2,
        **ONE,
        "backbone": "efficientnet-b0",
        "decoder_channels": [16, 12, 8, 6, 4],
        "pretrained": False,
    },
    "VNet": {"_target_": NETS + "VNet", "spatial_dims": 2, **ONE, "act": "prelu"},
    "CUMedVision": {"_target_": "monai_ccnet.networks.CUMedVision", **ONE, "channels": [4, 6, 8, 8]},
}
KNOWN = [name for name in NETWORKS if name != "VNet"]  # in the table of widths


def built(name, scale):
    torch.manual_seed(0)
    return AtScale(build_network(NETWORKS[name]), scale)


def size_for(network):
    return (77, 90) if len(network.scale) == 2 else (37, 50, 22)


def images_of(answer):
    return list(answer) if isinstance(answer, (list, tuple)) else [answer]


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_of_any_size_answers_at_its_inputs_size_and_learns(name):
    network = built(name, 2).train()
    image = torch.randn(2, 1, *size_for(network), requires_grad=True)
    answers = images_of(network(image))
    main = answers[0][:, 0] if answers[0].ndim == image.ndim + 1 else answers[0]  # DynUNet stacks its answers
    assert main.shape == (2, 2, *size_for(network))
    assert main.dtype == torch.float32
    for answer in answers[1:]:  # of deep supervision, at a whole fraction of the size, rounded up
        times = [round(whole / part) for whole, part in zip(image.shape[2:], answer.shape[2:], strict=True)]
        whole = [-(-length // by) for length, by in zip(image.shape[2:], times, strict=True)]
        assert list(answer.shape[2:]) == whole
    sum(answer.square().mean() for answer in answers).backward()
    assert image.grad.abs().sum() > 0
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        assert images_of(network(image))[0].shape == (2, 2, *size_for(network))


@pytest.mark.parametrize("name", KNOWN)
def test_the_divisor_that_is_found_is_that_of_the_table_or_one_that_suffices(name):
    network, table = built(name, 1), NetworkFamily.of(NETWORKS[name]).divisor
    for found, known in zip(network.divisor, table, strict=True):
        assert known % found == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_at_scale_1_and_a_size_that_divides_it_is_the_network_itself(name):
    network = built(name, 1).eval()
    image = torch.randn(1, 1, *((64, 96) if len(network.scale) == 2 else (32, 48, 32)))
    with torch.no_grad():
        for one, other in zip(images_of(network(image)), images_of(network.network(image)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(("scale", "axes"), [(2, 2), (4, 2), ([2, 4], 2), (3, 2), (2, 3), ([2, 2, 1], 3)])
def test_it_is_pooling_then_the_network_then_interpolation(scale, axes):
    network = build_network({**PLAIN, "spatial_dims": axes}).eval()
    scaled, factors = AtScale(network, scale), [scale] * axes if isinstance(scale, int) else scale
    size = [factor * 8 for factor in factors]
    image = torch.randn(2, 1, *size)
    pool = functional.avg_pool2d if axes == 2 else functional.avg_pool3d
    small = network(pool(image, factors))
    expected = functional.interpolate(small, size=size, mode="bilinear" if axes == 2 else "trilinear")
    assert torch.equal(scaled(image), expected)
    assert scaled(image).shape == (2, 2, *size)


@pytest.mark.parametrize("length", [16, 17, 21, 31])
def test_nothing_is_shifted_by_half_a_pixel(length):
    passing = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.ones_(passing.weight)
    scaled = AtScale(passing, 2, divisor=4)
    ramp = torch.arange(length, dtype=torch.float32).expand(length, length)[None, None]
    answer = scaled(ramp)[0, 0]
    assert torch.allclose(answer[1:-3, 1:-3], ramp[0, 0, 1:-3, 1:-3])  # averages lie in the middle of their pixels


def test_a_shifted_image_gives_a_shifted_answer():
    torch.manual_seed(0)
    network = AtScale(build_network({**PLAIN, "channels": [4, 6]}), 4).eval()
    step = 4 * 2  # scale times divisor
    image = torch.randn(1, 1, 256, 256)
    moved = torch.roll(image, (step, 2 * step), (2, 3))
    with torch.no_grad():
        one, other = network(image), network(moved)
    inside = slice(96, 160)  # beyond the reach of the edges
    assert torch.allclose(
        torch.roll(one, (step, 2 * step), (2, 3))[..., inside, inside], other[..., inside, inside], atol=1e-5
    )


def test_deep_supervision_has_a_loss_at_every_size():
    network = built("SegResNetDS", 2).train()
    answers = network(torch.randn(1, 1, 64, 64))
    loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True))
    assert torch.isfinite(loss(answers, torch.ones(1, 1, 64, 64)))
    assert [tuple(answer.shape[2:]) for answer in answers] == [(64, 64), (32, 32)]


class Several(torch.nn.Module):
    """Answers with an image, tokens, a number and a dictionary."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        image = self.layer(x)
        return {"image": image, "tokens": x.flatten(1), "number": x.mean(), "half": image[..., ::2, ::2], "name": "a"}


def test_what_is_no_image_passes():
    scaled, image = AtScale(Several(), 2, divisor=2), torch.randn(1, 1, 32, 32)
    answer = scaled(image)
    assert answer["image"].shape == (1, 2, 32, 32)
    assert answer["half"].shape == (1, 2, 16, 16)
    assert answer["tokens"].shape == (1, 256)
    assert answer["number"].ndim == 0
    assert answer["name"] == "a"


@pytest.mark.parametrize("name", ["PlainUNet", "UNet", "SegResNet", "SwinUNETR"])
def test_its_state_dict_is_the_inner_networks(name, tmp_path):
    network, scaled = build_network(NETWORKS[name]), built(name, 4)
    assert list(scaled.state_dict()) == list(network.state_dict())
    assert list(torch.nn.Sequential(scaled).state_dict()) == [f"0.{key}" for key in network.state_dict()]
    network.load_state_dict(scaled.state_dict())
    scaled.load_state_dict(network.state_dict())
    torch.nn.Sequential(scaled).load_state_dict(torch.nn.Sequential(network).state_dict())
    with pytest.raises(RuntimeError, match="unheard_of"):
        scaled.load_state_dict({**network.state_dict(), "unheard_of": torch.zeros(1)})
    for bits in (32, 16, 8):
        written = [save_weights(each, tmp_path / f"{each.__class__.__name__}.pt", bits) for each in (network, scaled)]
        wrapped = NetworkFamily.of(NETWORKS[name]).at(NetworkFamily.of(NETWORKS[name]).channels, 4)
        assert written == [file_bytes(NETWORKS[name], bits), file_bytes(wrapped, bits)]
        assert written[0] == written[1]
        contents = [(tmp_path / f"{each.__class__.__name__}.pt").read_bytes() for each in (network, scaled)]
        assert contents[0] == contents[1]
        load_weights(build_network(wrapped), tmp_path / f"{network.__class__.__name__}.pt")
    copied = copy.deepcopy(scaled)
    assert list(copied.state_dict()) == list(network.state_dict())
    copied.load_state_dict(scaled.state_dict())


@pytest.mark.parametrize("name", ["PlainUNet", "UNet", "DynUNet", "SegResNet", "BasicUNet"])
def test_counts_are_those_of_hooks_on_a_real_forward_pass(name):
    network = built(name, 2).eval()
    macs = []

    def count(module, inputs, output):
        places = inputs[0] if module.transposed else output
        macs.append(module.weight[0].numel() * places.numel())

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, torch.nn.modules.conv._ConvNd)
    ]
    shape = (1, 1, *size_for(network))
    with torch.no_grad():
        network(torch.randn(shape))
    for hook in hooks:
        hook.remove()
    size = network_size(network, shape)
    assert size.macs == sum(macs)
    steps = [by * scale for by, scale in zip(network.divisor, network.scale, strict=True)]
    small = [
        -(-length // step) * step // scale for length, step, scale in zip(shape[2:], steps, network.scale, strict=True)
    ]
    inner = network_size(network.network, (1, 1, *small))
    assert (size.weights, size.parameters, size.macs) == (inner.weights, inner.parameters, inner.macs)
    assert size.activation_bytes > inner.activation_bytes  # the input and the logits are as large as ever


def test_a_coarser_scale_needs_less_of_everything_but_weights():
    family = NetworkFamily.of(PLAIN)
    sizes = [family.size(family.channels, (1, 1, 128, 128), scale) for scale in (1, 2, 4)]
    assert sizes[0].macs == 4 * sizes[1].macs == 16 * sizes[2].macs
    assert sizes[0].training_bytes > sizes[1].training_bytes > sizes[2].training_bytes > 4 * 2 * 2 * 128 * 128
    assert len({(size.weights, size.file_bytes) for size in sizes}) == 1


@pytest.mark.parametrize("format", ["onnx", "torchscript", "torch_export"])
@pytest.mark.parametrize("name", ["PlainUNet", "UNet"])
def test_it_is_exported(name, format, tmp_path):
    network = built(name, 2)
    shape = (1, 1, *size_for(network))
    made = export_network(network, tmp_path / "network", shape, format=format)
    assert made.max_difference < 1e-4
    image = torch.randn(shape)
    program = load_exported(tmp_path / "network", trusted=True)
    assert torch.allclose(program(image), network.eval()(image), atol=1e-4)


def test_it_is_quantized_and_pruned_at_its_scale(tmp_path):
    network, image = built("PlainUNet", 2).eval(), torch.randn(1, 1, 45, 39)
    save_weights(network, tmp_path / "model.pt", 8)
    definition = NetworkFamily.of(PLAIN).at((4, 6, 8), 2)
    loaded = load_weights(build_network(definition), tmp_path / "model.pt").eval()
    assert torch.allclose(quantize_weights(network)(image), loaded(image))
    pruned = prune(network, DiskBudget(20_000), input_shape=(1, 1, 32, 32), importance="l1").eval()
    assert isinstance(pruned, AtScale)
    assert pruned(image).shape == (1, 2, 45, 39)
    save_weights(pruned, tmp_path / "pruned.pt")
    again = load_pruned(definition, torch.load(tmp_path / "pruned.pt", weights_only=True)).eval()
    assert torch.equal(again(image), pruned(image))


def test_in_bfloat16_the_answer_is_float32():
    network = at_precision(built("PlainUNet", 2), "bfloat16")
    assert network(torch.randn(1, 1, 32, 32)).dtype == torch.float32


def test_a_config_holds_it_within_another_at_both_levels():
    family = NetworkFamily.of(PLAIN)
    definition = family.at((2, 3, 4), (2, 4))
    assert definition == {
        "_target_": "monai_ccnet.networks.AtScale",
        "scale": [2, 4],
        "divisor": 4,
        "network": {**PLAIN, "channels": [2, 3, 4]},
    }
    parsed = ConfigParser({"network_def": definition}).get_parsed_content("network_def")
    assert isinstance(parsed, AtScale)
    assert type(build_network(definition, device="meta").network) is type(parsed.network)
    described = {**definition, "_mode_": "callable", "network": {**definition["network"], "_mode_": "callable"}}
    found = ConfigParser({"network_def": described}).get_parsed_content("network_def")
    assert network_def_of(found)["network"]["channels"] == [2, 3, 4]
    assert scale_of(network_def_of(found)) == (2, 4)
    again = NetworkFamily.of(network_def_of(found))
    assert (again.channels, again.scale, again.divisor) == ((2, 3, 4), (2, 4), family.divisor)
    assert again.at((2, 3, 4))["scale"] == [2, 4]
    assert NetworkFamily.from_dict(again.to_dict()) == again
    with pytest.raises(TypeError, match="'_mode_': 'callable'"):
        network_def_of({**definition, "network": torch.nn.Conv2d(1, 1, 1)})


def test_narrowing_and_shapes_are_the_inner_networks():
    definition = NetworkFamily.of(PLAIN).at((4, 6, 8), 4)
    assert narrow(definition, 0.5)["network"]["channels"] == [2, 3, 4]
    assert narrow(definition, 0.5)["scale"] == 4
    assert default_input_shape(definition) == default_input_shape(PLAIN)
    check_input_shape(definition, (1, 1, 31, 7))  # which it pads
    with pytest.raises(ValueError, match="takes an input of shape"):
        check_input_shape(definition, (1, 2, 32, 32))
    fixed = {"_target_": NETS + "UNETR", "in_channels": 1, "out_channels": 2, "img_size": 32, "feature_size": 4}
    scaled = NetworkFamily.of(fixed).at(NetworkFamily.of(fixed).channels, 2)
    check_input_shape(scaled, (1, 1, 64, 64, 64))
    with pytest.raises(ValueError, match="takes inputs of size"):
        check_input_shape(scaled, (1, 1, 32, 32, 32))


def test_a_network_without_known_widths_has_a_family_of_one():
    family = NetworkFamily.as_it_is(NETWORKS["VNet"])
    assert (family.channels, family.layerwise, family.divisor) == ((), False, (16, 16))
    assert family.at((), 2)["network"] == NETWORKS["VNet"]
    assert NetworkFamily.from_dict(family.to_dict()) == family


def test_wrappers_come_off_but_the_scale_only_where_weights_are_meant():
    network = built("PlainUNet", 2)
    parallel = torch.nn.DataParallel(network)
    assert uncompiled(parallel) is network
    assert unwrapped(parallel) is network.network
    assert at_scale(network, 2) is network
    assert at_scale(network.network, 1) is network.network
    assert at_scale(network.network, (2, 4)).scale == [2, 4]


def nested_twice():
    once = NetworkFamily.of(PLAIN).at((4, 6, 8), 2)
    return {**once, "network": once}


def test_a_script_of_a_network_with_several_answers_gives_the_one_of_eval_mode():
    network, image = built("SegResNetDS", 2).eval(), torch.randn(1, 1, 40, 56)
    assert torch.equal(torch.jit.script(network)(image), network(image))


def test_a_loaded_state_dict_stays_as_it_was_and_errors_name_what_it_holds():
    network, scaled = build_network(PLAIN), built("PlainUNet", 2)
    state = network.state_dict()
    versions = dict(state._metadata)
    scaled.load_state_dict(state)
    torch.nn.Sequential(scaled).load_state_dict({f"0.{key}": value for key, value in state.items()})
    assert dict(state._metadata) == versions
    first = next(iter(state))
    del state[first]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{first}"'):
        scaled.load_state_dict(state)


def test_numbers_of_numpy_are_numbers_and_a_given_divisor_stays():
    assert as_scale(np.int64(2)) == 2
    assert type(as_scale(np.int64(2))) is int
    given = {"_target_": "AtScale", "scale": 2, "divisor": 16, "network": PLAIN}
    assert narrow(given, 0.5)["divisor"] == 16
    assert (
        AtScale(build_network(PLAIN).double(), 2)(torch.zeros(1, 1, 16, 16, dtype=torch.float64)).dtype == torch.float64
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_scale(0), "scale must be a whole number from 1, or one for each axis, got 0"),
        (lambda: as_scale([2, 2.5]), "whole number"),
        (lambda: as_scale("2"), "whole number"),
        (lambda: as_scale(True), "whole number"),
        (lambda: as_scale([]), "whole number"),
        (lambda: NetworkFamily.of({"_target_": "AtScale", "scale": 2}), "the config of one network as its 'network'"),
        (lambda: NetworkFamily.of(nested_twice()), "the config of one network as its 'network'"),
        (lambda: built("PlainUNet", [2, 2, 1]), "a scale for 2 axes has one number or 2"),
        (lambda: AtScale(built("PlainUNet", 2), 2), "works at a scale already"),
        (lambda: AtScale(torch.nn.Linear(2, 2), 2), "has no convolution of two or three axes"),
        (lambda: at_scale(built("PlainUNet", 2), 4), "says that it works at 1/2, and scale is 4"),
        (lambda: built("PlainUNet", 2)(torch.zeros(1, 1, 8, 8, 8)), "takes inputs of 2 spatial axes, got 3"),
        (
            lambda: AtScale(build_network({"_target_": NETS + "UNETR", **ONE, "img_size": 32}), 2),
            "give AtScale the divisor",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
