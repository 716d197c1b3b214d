"""Exported networks: they compute the same, keep to the budget, take any number of images, and are timed in turns."""

import contextlib
import os

import pytest
import torch

from monai_ccnet.constraints import DiskBudget, InfeasibleConstraintError
from monai_ccnet.files import file_digest
from monai_ccnet.networks import WeightsError, build_network, compare_latency, save_weights
from monai_ccnet.posttraining import FORMATS, ExportedNetwork, export_network, load_exported

NETS = "monai_ccnet.networks."
SHAPE = (1, 1, 32, 32)


def _network(name="PlainUNet", **options):
    torch.manual_seed(0)
    network = build_network({"_target_": NETS + name, "channels": [4, 6, 8], "out_channels": 2, **options})
    network.train()(torch.randn(4, 1, *[32] * options.get("spatial_dims", 2)))  # batch statistics of their own
    return network


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_computes_the_same_and_takes_any_number_of_images(format, tmp_path):
    network = _network()
    made = export_network(network, tmp_path / "model", SHAPE, format=format, budget=DiskBudget(200_000))
    assert made.file_bytes == os.path.getsize(tmp_path / "model") <= 200_000
    assert made.max_difference <= 1e-5
    assert network.training
    assert ExportedNetwork.from_dict(made.to_dict()) == made
    images = torch.randn(3, *SHAPE[1:])
    with torch.no_grad():
        expected = network.eval()(images)
    program = load_exported(tmp_path / "model", trusted=True)
    assert ExportedNetwork.load(tmp_path / "model.json").digest == made.digest == file_digest(tmp_path / "model")
    torch.testing.assert_close(program(images), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(program(images[:1]), expected[:1], atol=1e-4, rtol=1e-4)


def test_onnx_in_three_dimensions_with_deep_supervision(tmp_path):
    network = _network("UCUNet", spatial_dims=3)
    assert export_network(network, tmp_path / "model.onnx", (1, 1, 16, 16, 16)).max_difference <= 1e-4


@pytest.mark.parametrize("format", ["torchscript", "torch_export"])
def test_full_and_compressed_side_by_side(format, tmp_path):
    networks = {"full": _network(channels=[32, 48, 64]), "compressed": _network()}
    for name, network in networks.items():
        export_network(network, tmp_path / name, SHAPE, format=format)
    programs = {name: load_exported(tmp_path / name, format, trusted=True) for name in networks}
    compared = compare_latency(programs, SHAPE, min_seconds=0.1)
    assert compared.ratios["compressed"] > 1.2


def test_a_file_above_the_budget_is_not_written(tmp_path):
    (tmp_path / "model").write_text("before")
    with pytest.raises(InfeasibleConstraintError, match=r"as torchscript the network takes [\d,]+ bytes, .* 1,000"):
        export_network(_network(), tmp_path / "model", SHAPE, format="torchscript", budget=DiskBudget(1000))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "before"


def test_a_network_that_would_compute_something_else_is_not_written(tmp_path):
    class Random(torch.nn.Module):
        def forward(self, x):
            return torch.rand_like(x)

    with pytest.raises(ValueError, match=r"logits differ by .*: nothing is written"):
        export_network(Random(), tmp_path / "model", SHAPE, format="torchscript")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"format must be one of \['onnx', 'torch_export', 'torchscript'\]"):
        export_network(_network(), tmp_path / "model", SHAPE, format="tflite")


def test_what_unpickles_is_loaded_if_it_is_trusted_alone(tmp_path):
    export_network(_network(), tmp_path / "model", SHAPE, format="torch_export")
    with pytest.raises(ValueError, match=r"model is of the format torch_export, .*any code: give trusted=True"):
        load_exported(tmp_path / "model")
    with pytest.raises(WeightsError, match=r"model is of the format torch_export, asked for is onnx"):
        load_exported(tmp_path / "model", "onnx", trusted=True)


def test_a_file_that_is_no_export_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model"):
        load_exported(tmp_path / "model")
    save_weights(_network(), tmp_path / "model")
    with pytest.raises(WeightsError, match=r"model \([\d,]+ bytes\) is no exported network"):
        load_exported(tmp_path / "model")
    for content in (b"", b"<html>", b"PK"):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(WeightsError, match=r"model \(\d bytes\)"):
            load_exported(tmp_path / "model")


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_export_is_refused(format, tmp_path, damages):
    path = tmp_path / "model"
    export_network(_network(), path, SHAPE, format=format)
    whole, manifest = path.read_bytes(), (tmp_path / "model.json").read_bytes()
    for damaged in damages(whole, 1700):
        path.write_bytes(damaged)
        (tmp_path / "model.json").write_bytes(manifest)
        with pytest.raises(WeightsError, match=r"model is not the file that was recorded"):
            load_exported(path, trusted=True)
    if format == "torchscript":  # whose checksums hold without a manifest too
        (tmp_path / "model.json").unlink()
        for damaged in damages(whole, 300):
            path.write_bytes(damaged)
            with contextlib.suppress(WeightsError):
                load_exported(path)
