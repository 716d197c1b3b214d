"""Other people's weights at fewer bits."""

import json

import pytest
import torch

from monai_ccnet.__main__ import main
from monai_ccnet.bundle import store
from monai_ccnet.networks import WeightsError, build_network, load_weights
from monai_ccnet.networks.size import disk_bytes

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [8, 16],
    "strides": [2],
}
WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [32, 16], "sw_batch_size": 4}


@pytest.fixture
def bundle(tmp_path):
    """Return a bundle with trained weights, kept in a checkpoint as MONAI's handlers leave it."""
    folder = tmp_path / "theirs"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "train.json").write_text(json.dumps({"network_def": UNET, "inferer": WINDOWS}))
    torch.manual_seed(0)
    torch.save({"model": build_network(UNET).state_dict(), "epoch": 3}, folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize(("bits", "most"), [(32, 0.0), (16, 0.01), (8, 0.1)])
def test_the_file_is_as_counted_and_the_difference_is_that_of_its_answers(bundle, tmp_path, bits, most):
    found = store(bundle, tmp_path / "out", bits_per_weight=bits)
    file = tmp_path / "out" / "stored.pt"
    assert found["bytes_after"] == file.stat().st_size <= disk_bytes(UNET, bits)
    assert found["input_shape"] == [1, 1, 32, 16]
    network, stored = build_network(UNET).eval(), load_weights(build_network(UNET), file).eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True)["model"])
    images = torch.randn(found["input_shape"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = network(images), stored(images)
    changed = float((before.argmax(1) != after.argmax(1)).float().mean())
    assert found["classes_changed"] == pytest.approx(changed)
    assert found["mean_difference"] == pytest.approx(float((before - after).abs().mean() / before.std()))
    assert found["mean_difference"] <= most
    assert json.loads((tmp_path / "out" / "stored.json").read_text()) == found


def test_the_verb_and_a_file_of_ones_own(bundle, tmp_path, capsys):
    plain = tmp_path / "plain.pt"
    torch.save(build_network(UNET).state_dict(), plain)
    words = ["store", str(bundle), "--output_dir", str(tmp_path), "--weights", str(plain), "--bits_per_weight", "16"]
    assert main([*words, "--weights_format", "safetensors"]) == 0
    assert "of pixels change their class" in capsys.readouterr().out
    assert (tmp_path / "stored.safetensors").is_file()
    assert main(["store"]) == 1
    assert "name the bundle" in capsys.readouterr().err


@pytest.mark.parametrize(("answers", "said"), [("amax((2, 3))", "images"), ("flatten()", None), ("mean()", None)])
def test_classes_are_of_images_for_a_classifier_and_unsaid_for_other_answers(bundle, tmp_path, capsys, answers, said):
    (bundle / f"answers_{answers[:4]}.py").write_text(
        "from torch.nn import Conv2d\nclass Answering(Conv2d):\n    def forward(self, images):\n"
        f"        return super().forward(images).{answers}\n"
    )
    network_def = {
        "_target_": f"answers_{answers[:4]}.Answering",
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": 1,
    }
    (bundle / "configs" / "train.json").write_text(json.dumps({"network_def": network_def, "inferer": WINDOWS}))
    state = {"weight": torch.zeros(2, 1, 1, 1), "bias": torch.tensor([1.0, 1.0001])}  # as one at 16 bits
    torch.save(state, bundle / "models" / "model.pt")
    found = store(bundle, tmp_path / "out", bits_per_weight=16)
    assert (found.get("classes_changed"), found.get("classes_of")) == (1.0 if said else None, said)
    assert ("; 100.000% of images change their class. On" in (words := capsys.readouterr().out)) == bool(said)
    assert ("change their class" in words) == bool(said)


def test_weights_of_another_network_or_none_are_refused_and_nothing_is_written(bundle, tmp_path):
    other = tmp_path / "other.pt"
    torch.save(build_network({**UNET, "channels": [4, 8]}).state_dict(), other)
    with pytest.raises(WeightsError, match="does not fit this UNet"):
        store(bundle, tmp_path / "out", weights=other)
    torch.save([1, 2], other)
    with pytest.raises(WeightsError):
        store(bundle, tmp_path / "out", weights=other)
    with pytest.raises(FileNotFoundError):
        store(bundle, tmp_path / "out", weights=tmp_path / "none.pt")
    assert not (tmp_path / "out").exists()
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)["model"]
    torch.save({name: torch.full_like(each, 3e38) for name, each in state.items()}, other)
    with pytest.raises(WeightsError, match="answers what is not finite"):
        store(bundle, tmp_path / "out", weights=other, bits_per_weight=32)
    assert not [*(tmp_path / "out").iterdir()]


def test_neither_the_file_that_is_read_nor_another_result_is_replaced_silently(bundle, tmp_path):
    stored = tmp_path / "stored.pt"
    store(bundle, tmp_path)
    before = stored.read_bytes()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"stored\.pt is the file that is read"):
            store(bundle, tmp_path, weights=stored, bits_per_weight=16, force=True)
        with pytest.raises(FileExistsError, match=r"stored\.pt is there already and differs: .*or --force true"):
            store(bundle, tmp_path, bits_per_weight=16)
        store(bundle, tmp_path)  # the same again
    assert stored.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["stored.json", "stored.pt", "theirs"]
    store(bundle, tmp_path, bits_per_weight=16, force=True)
    assert stored.read_bytes() != before


def test_a_checkpoint_of_several_processes_is_that_of_one(bundle, tmp_path):
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)["model"]
    torch.save({"model": {f"module.{name}": each for name, each in state.items()}}, tmp_path / "ddp.pt")
    store(bundle, tmp_path / "ddp", weights=tmp_path / "ddp.pt")
    store(bundle, tmp_path / "one")
    assert (tmp_path / "ddp" / "stored.pt").read_bytes() == (tmp_path / "one" / "stored.pt").read_bytes()
