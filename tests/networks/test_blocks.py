"""What CUMedVision and UCU-Net share: shapes, auxiliary outputs, start, export, narrowing, refusals."""

import warnings

import pytest
import torch

from monai_ccnet.networks import CUMedVision, UCUNet, build_network, narrow, network_size
from monai_ccnet.networks.blocks import fuse, scale_branch

NETWORKS = [CUMedVision, UCUNet]
NARROW = (3, 4, 5, 6)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"norm": None}, {"norm": "INSTANCE", "act": "PRELU", "dropout": 0.2}, {"channels": (3, 2, 4)}]
)
def test_training_stacks_the_outputs_and_eval_gives_logits(network_class, spatial_dims, options):
    options = {"in_channels": 2, "out_channels": 3, "channels": NARROW} | options
    network = network_class(spatial_dims=spatial_dims, **options)
    image = torch.randn(2, 2, *(8, 16, 24)[:spatial_dims])
    assert network(image).shape == (2, len(options["channels"]), 3, *image.shape[2:])
    assert network.eval()(image).shape == (2, 3, *image.shape[2:])


@pytest.mark.parametrize("network_class", NETWORKS)
def test_the_logits_are_the_sum_of_the_auxiliary_outputs(network_class):
    outputs = network_class(channels=NARROW, out_channels=2)(torch.randn(2, 1, 16, 16)).unbind(1)
    torch.testing.assert_close(outputs[0], sum(outputs[1:]))


@pytest.mark.parametrize("network_class", NETWORKS)
def test_deep_supervision_changes_neither_weights_nor_logits(network_class):
    with_outputs, without = (
        network_class(channels=NARROW, norm="INSTANCE", deep_supervision=choice) for choice in (True, False)
    )
    without.load_state_dict(with_outputs.state_dict())
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(with_outputs(image)[:, 0], without(image))
    torch.testing.assert_close(with_outputs.eval()(image), without(image))


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("output", [1, 2, 3])
def test_each_auxiliary_output_alone_trains_its_branch_and_the_first_stage(network_class, output):
    torch.manual_seed(0)
    network = network_class(channels=NARROW, out_channels=2)
    network(torch.randn(2, 1, 16, 16))[:, output].square().mean().backward()
    trained = [name.split(".") for name, p in network.named_parameters() if p.grad is not None and p.grad.any()]
    assert {"first", "encoder"} & {name[0] for name in trained}
    branches = {name[1] for name in trained if name[0] == "branches"}
    if network_class is CUMedVision:
        assert branches == {str(output - 1)}  # listed from the finest
    else:
        assert branches == (
            {str(3 - output)} if output > 1 else set()
        )  # made from the coarsest, listed from the finest


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_branch_reaches_the_size_of_the_input(scale, spatial_dims):
    branch = scale_branch(spatial_dims, in_channels=3, out_channels=2, scale=scale)
    assert branch(torch.zeros(1, 3, *[2] * spatial_dims)).shape == (1, 2, *[2 * scale] * spatial_dims)
    assert branch[0].weight.numel() == 3 * 2 * (2 * scale) ** spatial_dims


def test_fusing_by_hand():
    outputs = [torch.full((1, 1, 2, 2), value) for value in (1.0, 2.0, 4.0)]
    assert fuse(outputs, False).flatten().tolist() == [7.0] * 4
    assert fuse(outputs, True)[0, :, 0, 0, 0].tolist() == [7.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("multiplier", [0.5, 0.1, 1 / 16])
def test_narrowed_networks_are_smaller_and_run(network_class, multiplier):
    full = {
        "_target_": f"monai_ccnet.networks.{network_class.__name__}",
        "in_channels": 3,
        "out_channels": 2,
        "channels": [32, 64, 128, 256],
    }
    narrower = narrow(full, multiplier)
    assert build_network(narrower).eval()(torch.zeros(1, 3, 16, 24)).shape == (1, 2, 16, 24)
    smaller, larger = network_size(narrower).weights, network_size(full).weights
    assert multiplier**2 < smaller / larger < 1.7 * multiplier  # between square law, of stages, and linear, of branches


@pytest.mark.parametrize("network_class", NETWORKS)
def test_multipliers_of_a_stage_each(network_class):
    full = {"_target_": f"monai_ccnet.networks.{network_class.__name__}", "channels": [8, 8, 8, 8]}
    sizes = [network_size(narrow(full, [0.5 if i == stage else 1 for i in range(4)])).weights for stage in range(4)]
    assert all(size < network_size(full).weights for size in sizes)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_eval_mode_scripts_traces_and_exports(network_class, spatial_dims):
    network = network_class(spatial_dims=spatial_dims, channels=NARROW, out_channels=2).eval()
    image = torch.randn(1, 1, *(16, 24, 8)[:spatial_dims])
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(torch.jit.script(network)(image), expected)
        torch.testing.assert_close(torch.jit.trace(network, image)(image), expected)
        torch.testing.assert_close(torch.export.export(network, (image,)).module()(image), expected)


@pytest.mark.parametrize("network_class", NETWORKS)
def test_a_scripted_network_trains_with_auxiliary_outputs(network_class):
    network = torch.jit.script(network_class(channels=NARROW))
    image = torch.randn(2, 1, 16, 16)
    assert network(image).shape == (2, 4, 1, 16, 16)
    assert network.eval()(image).shape == (2, 1, 16, 16)


@pytest.mark.parametrize(("network_class", "spatial_dims"), [(CUMedVision, 2), (UCUNet, 3)])
def test_the_onnx_model_gives_the_same_logits(network_class, spatial_dims, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    network = network_class(spatial_dims=spatial_dims, channels=(2, 3, 4), out_channels=2).eval()
    image, file = torch.randn(1, 1, *(16, 8, 8)[:spatial_dims]), tmp_path / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (image,), str(file), dynamo=True, verbose=False)
        expected = network(image)
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    (logits,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"channels": (4,)}, "at least [23] widths"),
        ({"channels": (4, 0, 4)}, r"all at least 1; got channels=\(4, 0, 4\)"),
        ({"out_channels": 0}, "out_channels=0"),
    ],
)
def test_refusals(network_class, options, message):
    with pytest.raises(ValueError, match=message):
        network_class(**options)


@pytest.mark.parametrize("network_class", NETWORKS)
def test_an_image_that_does_not_divide_is_refused_with_the_remedy(network_class):
    with pytest.raises(ValueError, match=r"must be divisible by 4, got \(32, 30\): pad the images.*DivisiblePadd"):
        network_class(channels=(2, 2, 2))(torch.zeros(1, 1, 32, 30))
