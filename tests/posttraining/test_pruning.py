"""Pruning: what is removed is gone from the object, the file and the graph, and what stays does what it did."""

import os
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from monai_ccnet.constraints import AccuracyFloor, ComputeBudget, DiskBudget, InfeasibleConstraintError, MemoryBudget
from monai_ccnet.networks import build_network, load_weights, network_size, save_weights
from monai_ccnet.posttraining import (
    IMPORTANCES,
    channel_importance,
    follow_channels,
    layer_sensitivity,
    load_pruned,
    prune,
    prune_share,
    quantize_weights,
    without_channels,
    without_channels_merged,
)

NETS = "monai.networks.nets."
OURS = "monai_ccnet.networks."
IN_OUT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
UNET = {"_target_": OURS + "PlainUNet", "channels": [6, 8, 12]}
DYNUNET = {"strides": [1, 2, 2], "kernel_size": [3, 3, 3], "upsample_kernel_size": [2, 2], "filters": [6, 8, 12]}
NETWORKS = {
    "PlainUNet": UNET,
    "PlainUNet in 3-D": {"_target_": OURS + "PlainUNet", "spatial_dims": 3, "channels": [3, 4, 6]},
    "PlainUNet without norm": {**UNET, "norm": None},
    "CUMedVision": {"_target_": OURS + "CUMedVision", "channels": [6, 8, 12]},
    "UCUNet": {"_target_": OURS + "UCUNet", "channels": [6, 8, 12]},
    "UNet": {"_target_": NETS + "UNet", **IN_OUT, "channels": [6, 8, 12], "strides": [2, 2]},
    "UNet with residuals": {
        **{"_target_": NETS + "UNet", **IN_OUT, "channels": [6, 8, 12], "strides": [2, 2]},
        **{"num_res_units": 2, "act": ("PRELU", {"num_parameters": 1})},
    },
    "BasicUNet": {"_target_": NETS + "BasicUNet", **IN_OUT, "features": [4, 4, 6, 8, 10, 4]},
    "DynUNet": {"_target_": NETS + "DynUNet", **IN_OUT, **DYNUNET},
    "DynUNet with residuals": {"_target_": NETS + "DynUNet", **IN_OUT, **DYNUNET, "res_block": True},
    "SegResNet": {
        **{"_target_": NETS + "SegResNet", **IN_OUT, "init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1]},
        "norm": ("GROUP", {"num_groups": 2}),
    },
    "AttentionUnet": {"_target_": NETS + "AttentionUnet", **IN_OUT, "channels": [6, 8, 12], "strides": [2, 2]},
}


def shape_for(network_def):
    size = 32 if network_def["_target_"].endswith("BasicUNet") else 16
    return (1, 1) + (size,) * (3 if network_def.get("spatial_dims") == 3 else 2)


def trained(network_def, seed=0):
    """A network whose normalisations have seen something, and are not all alike."""
    torch.manual_seed(seed)
    network = build_network(network_def)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train()(torch.randn(2, *shape_for(network_def)[1:]))
    return network.eval()


def losses_on(shape, batches=2):
    images = torch.randn(batches, 3, *shape[1:], generator=torch.Generator().manual_seed(1))
    return lambda network: (network(image).square().mean() for image in images)


def two_layers(norm=True):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    return nn.Sequential(*layers).eval()


def test_groups_of_a_unet_by_hand():
    groups = follow_channels(build_network(UNET), (1, 1, 16, 16))
    assert [len(group) for group in groups] == [6, 6, 8, 8, 12, 12, 8, 8, 8, 6, 6, 6]
    skip = next(group for group in groups if group.layers == ("encoder.1.1.conv",))
    assert {(place.layer, place.side) for place in skip.places} == {
        ("encoder.1.1.conv", "out"),
        ("encoder.1.1.adn.N", "each"),
        ("encoder.2.0.conv", "in"),
        ("decoder.0.0.conv", "in"),
    }
    up = next(group for group in groups if group.layers == ("upsamplers.0",))
    assert up.places[-1] == ("decoder.0.0.conv", "in", tuple(range(8, 16)))
    assert (skip.norm, up.norm) == ("encoder.1.1.adn.N", None)


def test_scores_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([3.0, -4.0, 0.0]).reshape(3, 1, 1, 1))
        network[1].weight.copy_(torch.tensor([2.0, 1.0, 5.0]).reshape(1, 3, 1, 1))
    image = torch.tensor([1.0, -3.0]).reshape(1, 1, 1, 2)
    groups = follow_channels(network, image.shape)

    def scores(importance, images=(image,)):
        losses = lambda network: (network(image).sum() for image in images)  # noqa: E731
        return channel_importance(network, groups, importance, losses)[0].numpy()

    assert scores("l1") == pytest.approx(np.array([3, 4, 0]) / 5)
    # feature maps 3x, -4x and 0, gradients 2, 1 and 5, x adds up to -2 over two pixels: |-12|, |8| and 0, halved
    assert scores("taylor") == pytest.approx(np.array([6, 4, 0]) / np.hypot(6, 4))
    assert scores("estimation") == pytest.approx([144, 64, 0])
    # of two examples with opposite signs one measure takes the mean of magnitudes, the other the square of the sum
    both = torch.cat([image, -image])
    assert scores("taylor", [both]) == pytest.approx(np.array([6, 4, 0]) / np.hypot(6, 4))
    assert scores("estimation", [both]) == pytest.approx([0, 0, 0])
    assert scores("estimation", [image, -image]) == pytest.approx([288, 128, 0])


def test_a_gates_gradient_is_that_of_the_normalisation_behind_it():
    """Molchanov et al. (2019) write it as gradient times weight, of gamma and beta or of a kernel and its bias."""
    for norm, place in ((True, 1), (False, 0)):
        network, losses = two_layers(norm), losses_on((1, 1, 8, 8), batches=1)
        groups = follow_channels(network, (1, 1, 8, 8))
        (found,) = channel_importance(network, groups, "estimation", losses)
        (loss,) = losses(network)
        layer = network[place]
        weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
        by_hand = ((weight * layer.weight).flatten(1).sum(1) if not norm else weight * layer.weight) + bias * layer.bias
        assert found.numpy() == pytest.approx(by_hand.detach().square().numpy(), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("importance", ["l1", "taylor", "estimation"])
def test_a_filter_of_zeros_goes_first(importance):
    network = trained({**UNET, "norm": None})
    layer = network.get_submodule("encoder.1.1.conv")
    with torch.no_grad():
        layer.weight[3] = 0
        layer.bias[3] = 0
    pruned = prune_share(
        network,
        0.2,
        input_shape=(1, 1, 16, 16),
        importance=importance,
        losses=losses_on((1, 1, 16, 16)),
        layers=["encoder.1.1.conv"],
    )
    kept = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(pruned.get_submodule("encoder.1.1.conv").weight, layer.weight[kept])
    image = torch.randn(1, 1, 16, 16)
    assert torch.allclose(pruned(image), network(image), atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("merge", [False, True])
def test_a_network_is_pruned_to_its_budget_and_loaded_again(name, merge, tmp_path):
    network_def = NETWORKS[name]
    shape, network = shape_for(network_def), trained(network_def)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    budget = DiskBudget(int(0.7 * network_size(network).file_bytes))
    pruned = prune(network, budget, input_shape=shape, losses=losses_on(shape), share=0.3, merge=merge)
    image = torch.randn(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = pruned(image)
    assert logits.shape == network(image).shape

    size, path = network_size(pruned, shape), tmp_path / "model.pt"
    assert save_weights(pruned, path) == size.file_bytes == os.path.getsize(path)
    assert 0.85 * budget.max_bytes < size.file_bytes <= budget.max_bytes
    assert size.parameters == sum(parameter.numel() for parameter in pruned.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_pruned(network_def, torch.load(path, weights_only=True)).eval()
        assert torch.equal(loaded(image), logits)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert repr(loaded) == repr(pruned)

    save_weights(pruned, path, bits_per_weight=8)
    of_8_bits = load_pruned(network_def, torch.load(path, weights_only=True)).eval()
    assert repr(of_8_bits) == repr(pruned)
    assert torch.equal(of_8_bits(image), load_weights(loaded, path)(image))


def test_the_graph_that_is_exported_is_as_small_as_the_network(tmp_path):
    network_def = {**UNET, "channels": [8, 16, 24]}
    pruned = prune(trained(network_def), DiskBudget(90_000), input_shape=(1, 1, 16, 16), importance="l1")
    path = tmp_path / "model.onnx"
    torch.onnx.export(pruned, (torch.randn(1, 1, 16, 16),), path, external_data=False, verbose=False)
    model = onnx.load(path)
    kernels = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if len(tensor.dims) == 4)
    assert kernels == network_size(pruned).weights
    for node in model.graph.node:
        del node.metadata_props[:]  # the lines of source code that each node comes from
    assert model.ByteSize() <= 95_000  # its frame is a little larger than that of the weights
    assert save_weights(pruned, tmp_path / "model.pt") <= 90_000


def test_every_budget_is_kept_to():
    shape, network = (1, 1, 16, 16), trained(UNET)
    size = network_size(network, shape)
    budgets = [
        ComputeBudget(int(0.6 * size.macs), shape),
        MemoryBudget(int(0.8 * (size.state_bytes + size.activation_bytes)), shape),
    ]
    for constraint in (*budgets, budgets):
        pruned = prune(network, constraint, input_shape=shape, importance="l1")
        for budget in constraint if isinstance(constraint, list) else [constraint]:
            assert budget.needed(pruned) <= budget.limit


def test_nothing_more_would_fit():
    shape, network = (1, 1, 16, 16), trained(UNET)
    budget = ComputeBudget(int(0.6 * network_size(network, shape).macs), shape)
    pruned = prune(network, budget, input_shape=shape, importance="l1", share=1)
    wider = 0
    for group in follow_channels(pruned, shape):
        narrower = without_channels(pruned, [group], [[0]]) if len(group) > 1 else None
        if narrower is not None:
            wider = max(wider, budget.needed(pruned) - budget.needed(narrower))
    assert budget.limit - budget.needed(pruned) < wider


def test_auxiliary_outputs_stay():
    """Of DynUNet they are no outputs in eval mode, in which channels are followed."""
    network = trained({**NETWORKS["DynUNet"], "deep_supervision": True, "deep_supr_num": 1})
    pruned = prune_share(network, 0.5, input_shape=(1, 1, 16, 16)).train()
    assert pruned(torch.randn(2, 1, 16, 16)).shape == (2, 2, 2, 16, 16)
    assert network_size(pruned).weights < 0.4 * network_size(network).weights


def test_rounds_are_fine_tuned_and_the_budget_is_kept():
    sizes = []
    network = trained(UNET)
    budget = DiskBudget(int(0.5 * network_size(network).file_bytes))
    pruned = prune(
        network,
        budget,
        input_shape=(1, 1, 16, 16),
        importance="l1",
        share=0.1,
        fine_tune=lambda network: sizes.append(network_size(network).file_bytes),
    )
    assert len(sizes) > 2
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == network_size(pruned).file_bytes <= budget.max_bytes < sizes[-2]


def test_a_network_that_fits_is_a_copy():
    network = trained(UNET)
    pruned = prune(network, DiskBudget(10**7), input_shape=(1, 1, 16, 16))
    assert pruned is not network
    assert repr(pruned) == repr(network)


def test_scoring_leaves_the_network_as_it_was():
    network = trained(UNET).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    groups = follow_channels(network, (1, 1, 16, 16))
    for importance in IMPORTANCES:
        scores = channel_importance(network, groups, importance, losses_on((1, 1, 16, 16)))
        assert [score.shape for score in scores] == [(len(group),) for group in groups]
        assert all((score >= 0).all() for score in scores)
    assert network.training
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_zeroing_is_no_pruning(tmp_path):
    """torch's own structured pruning sets filters to zero, and needs as many bytes as before: its masks need more."""
    network = trained(UNET)
    size = network_size(network)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for layer in layers:
        torch_prune.ln_structured(layer, "weight", amount=0.5, n=1, dim=0)
    assert save_weights(network, tmp_path / "masked.pt") > 1.5 * size.file_bytes
    for layer in layers:
        torch_prune.remove(layer, "weight")
    zeroed = network_size(network)
    assert sum(int((layer.weight == 0).sum()) for layer in layers) > 0.4 * size.weights
    assert (zeroed.weights, zeroed.parameters) == (size.weights, size.parameters)
    assert save_weights(network, tmp_path / "model.pt") == size.file_bytes


def test_the_same_groups_as_torch_pruning_where_it_works():
    torch_pruning = pytest.importorskip("torch_pruning")
    for name in ("PlainUNet", "PlainUNet in 3-D", "CUMedVision", "UCUNet"):
        network, shape = trained(NETWORKS[name]), shape_for(NETWORKS[name])
        names = {module: key for key, module in network.named_modules()}
        graph = torch_pruning.DependencyGraph().build_dependency(network, torch.randn(shape), verbose=False)
        for group in follow_channels(network, shape):
            if len(group) == 1:
                continue
            layer = network.get_submodule(group.layers[0])
            prune_out = graph.get_pruner_of_module(layer).prune_out_channels
            theirs = {}
            for dependency, places in graph.get_pruning_group(layer, prune_out, [1]):
                if dependency.target.module in names and (key := names[dependency.target.module]):
                    module = dependency.target.module
                    if isinstance(module, (nn.modules.conv._ConvNd, nn.BatchNorm2d, nn.BatchNorm3d)):
                        conv = isinstance(module, nn.modules.conv._ConvNd)
                        out = graph.is_out_channel_pruning_fn(dependency.handler)
                        theirs[key, ("out" if out else "in") if conv else "each"] = set(places)
            assert {(place.layer, place.side): {place.positions[1]} for place in group.places} == theirs, name


def test_refusals():
    shape, network = (1, 1, 16, 16), trained(UNET)
    with pytest.raises(InfeasibleConstraintError, match=r"one channel per layer, the network still needs [\d,]+ bytes"):
        prune(network, DiskBudget(5_000), input_shape=shape, importance="l1")
    with pytest.raises(TypeError, match="pruned to a budget"):
        prune(network, AccuracyFloor(0.9), input_shape=shape)
    with pytest.raises(ValueError, match=r"one of \['estimation', 'l1', 'random', 'taylor'\], got 'magic'"):
        prune(network, DiskBudget(30_000), input_shape=shape, importance="magic")
    with pytest.raises(ValueError, match="needs data: give losses"):
        prune(network, DiskBudget(30_000), input_shape=shape)
    with pytest.raises(ValueError, match="yielded no batch"):
        prune(network, DiskBudget(30_000), input_shape=shape, losses=lambda network: [])
    with pytest.raises(ValueError, match="share must be above 0"):
        prune(network, DiskBudget(30_000), input_shape=shape, importance="l1", share=0)
    with pytest.raises(ValueError, match="no channel of 'head' can be removed"):
        prune_share(network, 0.3, input_shape=shape, layers=["head"])
    groups = follow_channels(network, shape)
    with pytest.raises(ValueError, match="must keep at least one"):
        without_channels(network, groups, [range(len(group)) for group in groups])
    with pytest.raises(ValueError, match=r"PlainUNet cannot take an input of shape \(1, 1, 10, 10\): each spatial"):
        follow_channels(network, (1, 1, 10, 10))
    with pytest.raises(ValueError, match="all are held by"):
        follow_channels(nn.Sequential(nn.Conv2d(1, 4, 1), nn.PixelShuffle(2)), (1, 1, 8, 8))
    with pytest.raises(ValueError, match="no part of the"):
        load_pruned({**UNET, "channels": [4, 4, 4]}, network.state_dict())
    with pytest.raises(ValueError, match="only one of them has"):
        load_pruned(NETWORKS["UCUNet"], network.state_dict())


def _two_convolutions():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 2, 1)).eval()


@pytest.mark.parametrize("merge", [False, True])
def test_a_wrapped_network_is_pruned_as_its_inner_one(merge):
    network, image = _two_convolutions(), torch.randn(1, 1, 8, 8)
    expected = prune_share(network, 0.5, input_shape=image.shape, merge=merge)(image)
    compiled = torch.compile(network, backend="eager")
    for wrapped in (torch.nn.DataParallel(network), compiled, torch.nn.DataParallel(compiled)):
        assert prune_share(wrapped, 0.5, input_shape=image.shape, merge=merge)(image).equal(expected)
        pruned = prune(wrapped, DiskBudget(2600), input_shape=image.shape, importance="l1", merge=merge)
        assert [type(layer) for layer in pruned] == [type(layer) for layer in network]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (parametrizations.weight_norm, r"the parametrization WeightNorm.*remove_parametrizations\(layer, 'weight'\)"),
        (
            parametrizations.spectral_norm,
            r"the parametrization SpectralNorm.*parametrize\.remove_parametrizations",
        ),
        (torch.nn.utils.weight_norm, r"weight_norm.*torch\.nn\.utils\.remove_weight_norm\(layer\)"),
        (torch.nn.utils.spectral_norm, r"spectral_norm.*torch\.nn\.utils\.remove_spectral_norm\(layer\)"),
        (
            lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.3),
            r"a mask of torch\.nn\.utils\.prune.*torch\.nn\.utils\.prune\.remove\(layer, name\)",
        ),
    ],
)
def test_layers_that_calculate_their_weights_are_refused_by_name(change, words):
    network, shape = _two_convolutions(), (1, 1, 8, 8)
    groups = follow_channels(network, shape)
    change(network[0])
    for call in (
        lambda: prune_share(network, 0.5, input_shape=shape),
        lambda: prune_share(network, 0.5, input_shape=shape, merge=True),
        lambda: prune(network, DiskBudget(2600), input_shape=shape, importance="l1"),
        lambda: without_channels(network, groups, [[0]]),
        lambda: without_channels_merged(network, groups, [[0]]),
        lambda: quantize_weights(network),
        lambda: layer_sensitivity(network, lambda _: 1.0, input_shape=shape),
    ):
        with pytest.raises(ValueError, match=rf"layer '0' of the network has {words}"):
            call()


def test_without_its_parametrization_a_network_is_pruned():
    network, image = _two_convolutions(), torch.randn(1, 1, 8, 8)
    parametrizations.weight_norm(network[0])
    parametrize.remove_parametrizations(network[0], "weight")
    assert prune_share(network, 0.5, input_shape=image.shape)[0].out_channels == 3
    with pytest.raises(ValueError, match=r"layer '0' .* the parametrization Int8"):
        prune_share(quantize_weights(network), 0.5, input_shape=image.shape)
