"""Weights in a file at 8, 16 and 32 bits: what is lost, how many bytes it takes, what reads it."""

import contextlib
import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ccnet.constraints import DiskBudget, compress
from monai_ccnet.files import file_digest
from monai_ccnet.networks import (
    WeightsError,
    build_network,
    dequantized,
    file_bytes,
    kernel_axes,
    load_weights,
    quantized,
    read_weights,
    reads_int8,
    save_weights,
)

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [6, 9, 12], "out_channels": 2}
SWIN = {
    "_target_": "monai.networks.nets.SwinUNETR",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "feature_size": 12,
    "depths": [1] * 4,
}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 1), st.floats(1e-6, 1e6))
def test_no_number_moves_by_more_than_half_a_step_of_its_channel(seed, axis, magnitude):
    kernel = magnitude * torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    codes, scales = quantized(kernel, axis)
    again = dequantized(codes, scales, axis)
    steps = scales.reshape(-1, *[1] * (3 - axis))
    assert codes.dtype == torch.int8
    assert codes.abs().amax(dim=[d for d in range(4) if d != axis]).eq(127).all()
    assert ((kernel - again).abs() <= 0.5001 * steps).all()
    torch.testing.assert_close(dequantized(*quantized(again, axis), axis), again)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_is_read_back_computes_nearly_the_same(tmp_path, spatial_dims, bits):
    network_def = {**UNET, "spatial_dims": spatial_dims}
    network, image = build_network(network_def).eval(), torch.randn(1, 1, *[16] * spatial_dims)
    assert save_weights(network, tmp_path / "model.pt", bits) == file_bytes(network_def, bits)
    loaded = load_weights(build_network(network_def), tmp_path / "model.pt").eval()
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in loaded.state_dict().values())
    error = (loaded(image) - network(image)).norm() / network(image).norm()
    assert error < {8: 0.05, 16: 2e-3, 32: 1e-9}[bits]
    save_weights(loaded, tmp_path / "again.pt", bits)
    again = load_weights(build_network(network_def), tmp_path / "again.pt").eval()
    torch.testing.assert_close(again(image), loaded(image))


def test_kernels_are_int8_per_output_channel_and_all_else_is_not(tmp_path):
    network = build_network(UNET)
    save_weights(network, tmp_path / "model.pt", 8)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    axes = kernel_axes(network)
    assert axes["upsamplers.0.weight"] == 1
    assert {name for name, tensor in state.items() if tensor.dtype == torch.int8} == set(axes)
    assert len(state["int8_scales"]) == sum(state[name].shape[axis] for name, axis in axes.items())


def test_linear_layers_too(tmp_path):
    pytest.importorskip("einops")
    network = build_network(SWIN).eval()
    save_weights(network, tmp_path / "model.pt", 8)
    image = torch.randn(1, 1, 64, 64)
    loaded = load_weights(build_network(SWIN), tmp_path / "model.pt").eval()
    assert (loaded(image) - network(image)).norm() < 0.05 * network(image).norm()


def test_a_budget_at_8_bits_allows_four_times_the_network_and_its_file_keeps_to_it(tmp_path):
    unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    plans = {bits: compress(unet, DiskBudget(1_000_000, bits_per_weight=bits), layerwise=False) for bits in (8, 32)}
    assert plans[8].size.parameters / plans[32].size.parameters == pytest.approx(4, rel=0.05)
    for bits, plan in plans.items():
        assert 980_000 < save_weights(build_network(plan.network_def), tmp_path / "model.pt", bits) <= 1_000_000


def test_copies_pickles_and_wrapped_networks_read_int8(tmp_path):
    network = build_network(UNET)
    save_weights(network, tmp_path / "model.pt", 8)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), reads_int8(network)):
        other.load_state_dict(state)
    torch.nn.DataParallel(network).load_state_dict({f"module.{name}": tensor for name, tensor in state.items()})
    torch.jit.script(network)
    assert "int8_scales" in state
    with pytest.raises(RuntimeError, match=r"kernels have \d+ output channels, the file has \d+ int8 scales"):
        build_network({**UNET, "channels": [6, 9]}).load_state_dict(state)


def test_wrappers_leave_no_trace_in_the_file(tmp_path):
    network = build_network(UNET)
    compiled = torch.compile(network, backend="eager")
    for wrapped in (compiled, torch.nn.DataParallel(network), torch.nn.DataParallel(compiled)):
        for bits in (8, 32):
            assert save_weights(wrapped, tmp_path / "model.pt", bits) == file_bytes(UNET, bits)
        other = copy.deepcopy(wrapped)
        for tensor in other.state_dict().values():
            tensor.zero_()
        assert load_weights(other, tmp_path / "model.pt") is other
        for loaded in (other, load_weights(build_network(UNET), tmp_path / "model.pt")):
            for mine, its in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True):
                assert mine.equal(its)


def test_bfloat16_keeps_what_float16_cannot(tmp_path):
    network = build_network(UNET)
    network.encoder[0][0].adn.N.running_var.fill_(1e6)
    with pytest.raises(ValueError, match=r"encoder.*running_var holds numbers up to 1e\+06, beyond the range"):
        save_weights(network, tmp_path / "model.pt", 16)
    assert not (tmp_path / "model.pt").exists()
    written = save_weights(network, tmp_path / "model.pt", 16, half=torch.bfloat16)
    assert written == file_bytes(UNET, 16)
    assert load_weights(build_network(UNET), tmp_path / "model.pt").encoder[0][0].adn.N.running_var.max() > 9e5


def test_refusals(tmp_path):
    network = build_network(UNET)
    with pytest.raises(ValueError, match=r"half must be torch\.float16 or torch\.bfloat16"):
        save_weights(network, tmp_path / "model.pt", 16, half=torch.float32)
    network.head.weight.data.fill_(float("nan"))
    for bits in (8, 16, 32):
        with pytest.raises(ValueError, match=r"head\.weight holds numbers that are not finite"):
            save_weights(network, tmp_path / "model.pt", bits)
    assert not (tmp_path / "model.pt").exists()


def test_all_tensors_of_a_type_share_one_storage_in_the_file_and_none_in_memory(tmp_path):
    network = build_network(UNET)
    for bits, storages in ((32, 2), (16, 2), (8, 3)):
        written = save_weights(network, tmp_path / "model.pt", bits)
        state = torch.load(tmp_path / "model.pt", weights_only=True)
        assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == storages
        assert written - sum(tensor.nbytes for tensor in state.values()) < 10_500
        loaded = load_weights(build_network(UNET), tmp_path / "model.pt").state_dict()
        own = read_weights(tmp_path / "model.pt")
        for tensors in (loaded, own):
            assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == len(tensors)
        assert all(state[name].equal(own[name]) for name in state)


def test_files_of_an_earlier_release_still_load(tmp_path):
    network = build_network(UNET)
    torch.save(network.state_dict(), tmp_path / "model.pt")  # a storage for each tensor, and the modules' versions
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("model.pt", "old.pt"):
        loaded = load_weights(build_network(UNET), tmp_path / name).state_dict()
        assert all(loaded[key].equal(value) for key, value in network.state_dict().items())


def test_a_version_that_loading_asks_for_is_kept(tmp_path):
    network = torch.nn.Sequential(torch.nn.utils.spectral_norm(torch.nn.Linear(4, 4)))
    save_weights(network, tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=True)._metadata.keys() == {"0"}
    other = torch.nn.Sequential(torch.nn.utils.spectral_norm(torch.nn.Linear(4, 4)))
    load_weights(other, tmp_path / "model.pt")
    assert other[0].weight_u.equal(network[0].weight_u)
    with pytest.raises(ValueError, match="safetensors holds tensors alone, and 0 needs its version"):
        save_weights(network, tmp_path / "model.safetensors")


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_safetensors_holds_the_same_as_its_own_package_reads_it(bits, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    network, path = build_network(UNET), tmp_path / "model.safetensors"
    save_weights(network, tmp_path / "model.pt", bits)
    assert save_weights(network, path, bits) == file_bytes(UNET, bits, "safetensors") < file_bytes(UNET, bits)
    expected = read_weights(tmp_path / "model.pt")
    with safetensors.safe_open(path, "pt") as opened:
        assert set(opened.keys()) == set(expected)
        assert all(opened.get_tensor(name).equal(expected[name]) for name in expected)
        assert opened.metadata() == {"format": "pt"}
    loaded = load_weights(build_network(UNET), path).state_dict()
    from_torch = load_weights(build_network(UNET), tmp_path / "model.pt").state_dict()
    assert all(loaded[name].equal(from_torch[name]) for name in loaded)


def test_a_budget_for_safetensors_counts_its_frame(tmp_path):
    unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    plan = compress(unet, DiskBudget(60_000, weights_format="safetensors"), allocation="taper")
    assert 58_000 < save_weights(build_network(plan.network_def), tmp_path / "model.safetensors") <= 60_000
    as_torch = compress(unet, DiskBudget(60_000), allocation="taper")
    assert as_torch.size.weights == 10_643  # 3,253 when each tensor had a storage of its own
    assert plan.size.weights > as_torch.size.weights
    with pytest.raises(ValueError, match="weights_format must be one of torch, safetensors, got 'zip'"):
        DiskBudget(1, weights_format="zip")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_damage_is_named_or_without_effect_and_with_a_digest_always_named(name, tmp_path, damages):
    network, path = build_network(UNET), tmp_path / name
    save_weights(network, path)
    whole, digest = path.read_bytes(), file_digest(path)
    expected, other = network.state_dict(), build_network(UNET)
    load_weights(other, path, digest)
    for damaged in damages(whole, 2600):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=rf"^{path} is not the file that was recorded"):
            load_weights(other, path, digest)
    for damaged in damages(whole, 1300, seed=1):
        path.write_bytes(damaged)
        loaded = build_network(UNET)
        try:
            load_weights(loaded, path)
        except WeightsError as error:
            words = str(error)
        else:
            words = str(path)
            if name == "model.pt":  # which holds checksums
                assert all(value.equal(expected[key]) for key, value in loaded.state_dict().items())
        assert words.startswith(str(path))
        assert len(words) < len(str(path)) + 800


def test_a_network_keeps_its_weights_if_those_of_a_file_are_refused(tmp_path):
    network = build_network(UNET)
    state = network.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    state["encoder.0.0.conv.weight"] = torch.zeros_like(before["encoder.0.0.conv.weight"])
    state["head.bias"] = torch.full_like(before["head.bias"], torch.inf)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"head\.bias holds numbers that are not finite"):
        load_weights(network, tmp_path / "model.pt")
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, dtype=torch.int8), r"head\.bias holds torch\.int8 where the network has torch\.float32"),
        (torch.zeros(2, dtype=torch.complex64), r"head\.bias.* holds torch\.complex64 numbers that are complex"),
        (torch.zeros(2).to_sparse(), r"head\.bias.* complex, sparse or quantized"),
        (torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), r"complex, sparse or quantized"),
        (torch.zeros(1).expand(10**12), r"head\.bias' has the shape \(1000000000000,\), and the file"),
    ],
)
def test_tensors_of_another_kind_are_refused(tensor, message, tmp_path):
    torch.save({**build_network(UNET).state_dict(), "head.bias": tensor}, tmp_path / "model.pt")
    with contextlib.suppress(ImportError), pytest.raises(WeightsError, match=message):
        load_weights(build_network(UNET), tmp_path / "model.pt")


def _saved(what):
    def write(path):
        torch.save(what(), path)

    return write


def _truncated(path):
    save_weights(build_network(UNET), path)
    path.write_bytes(path.read_bytes()[:5000])


def _wider(path):
    save_weights(build_network({**UNET, "channels": [6, 9, 13]}), path)


def _deeper(path):
    save_weights(build_network({**UNET, "channels": [6, 9, 12, 12]}), path)


def _without_scales(path):
    save_weights(build_network(UNET), path, 8)
    torch.save({k: v for k, v in torch.load(path, weights_only=True).items() if k != "int8_scales"}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), r"\(0 bytes\) is no file of weights, or was cut off.*save_weights wrote"),
        (lambda path: path.write_text("<html>"), r"\(6 bytes\) is no file of weights"),
        (_truncated, r"\(5,000 bytes\) is no file of weights, or was cut off"),
        (_saved(lambda: build_network(UNET)), "holds more than tensors"),
        (lambda path: torch.jit.script(build_network(UNET)).save(path), "is no file of weights"),
        (_saved(lambda: [torch.zeros(1)]), "holds no state dict but a value of type list"),
        (_saved(lambda: torch.zeros(1)), "holds no state dict but a value of type Tensor"),
        (_saved(dict), "holds no state dict but a value of type dict without entries"),
        (
            _saved(lambda: {"model": build_network(UNET).state_dict()}),
            "entry 'model' is no tensor but of type OrderedDict",
        ),
        (_wider, r"another network than this PlainUNet: encoder\.2\.0\.conv\.weight has shape \(13, 9, 3, 3\) in the"),
        (
            _deeper,
            r"another network than this PlainUNet: (the network has no [\w.]+; ){2}the network has no [\w.]+\. Build",
        ),
        (
            _saved(lambda: {"a": torch.zeros(1)}),
            r": (the file lacks [\w.]+; ){2}the file lacks encoder\.0\.0\.\S+\. Build",
        ),
        (
            _without_scales,
            r"kernels such as encoder\.0\.0\.conv\.weight are int8, and their scales, int8_scales, are missing",
        ),
        (
            _saved(lambda: {**build_network(UNET).state_dict(), "head.bias": torch.tensor([0, torch.nan])}),
            r"head\.bias holds numbers that are not finite.*train again",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_what_to_do(write, message, tmp_path):
    write(tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=rf"(?s)^\S*model\.pt.*{message}"):
        load_weights(build_network(UNET), tmp_path / "model.pt")


def test_a_missing_file_is_named_and_no_code_is_run(tmp_path):
    for path in (tmp_path / "model.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"there is no file {path}: give a file that save_weights wrote"):
            load_weights(build_network(UNET), path)

    class Harm:
        def __reduce__(self):
            return (tmp_path / "harm").mkdir, ()

    (tmp_path / "model.pt").write_bytes(pickle.dumps({"head.bias": Harm()}))
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_weights(build_network(UNET), tmp_path / "model.pt")
    assert not (tmp_path / "harm").exists()
