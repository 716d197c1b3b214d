"""The audit of other people's bundles, of every shape that they come in."""

import json
import re
import sys

import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.transforms import SaveImage

import monai_ccnet
from monai_ccnet.__main__ import main
from monai_ccnet.bundle import audit, audit_words
from monai_ccnet.bundle.remedies import at_scales, smaller_ones
from monai_ccnet.complexity import measure_ceiling
from monai_ccnet.networks import NetworkFamily, build_network, network_size
from monai_ccnet.networks.size import disk_bytes

UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [16, 32, 64],
    "strides": [2, 2],
}
WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": "@patch", "sw_batch_size": 4, "overlap": 0.5}
TRAIN = {
    "imports": ["$import glob", "$import nothing_of_this_name"],
    "bundle_root": ".",
    "dataset_dir": "/data",
    "patch": [32, 32, 16],
    "device": "$torch.device('cuda')",
    "network_def": UNET,
    "network": "$@network_def.to(@device)",
    "train": {
        "dataset": {"_target_": "CacheDataset", "data": "$sorted(glob.glob(@dataset_dir))"},
        "trainer": {"_target_": "SupervisedTrainer", "network": "@network"},
    },
    "validate": {"inferer": WINDOWS},
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def bundle(tmp_path):
    """Return a function that writes a bundle."""

    def write(train, name="train.json", **others):
        folder = tmp_path / "theirs"
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / "metadata.json").write_text("{}")
        for file, content in {name: train, **others}.items():
            (folder / "configs" / file).write_text(json.dumps(content))  # JSON is YAML
        return folder

    return write


def test_a_known_network_with_its_own_windows(bundle):
    found = audit(bundle(TRAIN, **{"inference.json": {"network_def": UNET}}))
    size = network_size(UNET, (4, 1, 32, 32, 16))
    assert found["network"] == "monai.networks.nets.unet.UNet"
    assert found["parameters"] == size.parameters
    assert found["file_bytes"] == {str(bits): disk_bytes(UNET, bits) for bits in (32, 16, 8)}
    assert (found["macs"], found["input_shape"]) == (size.macs, [4, 1, 32, 32, 16])
    assert found["memory_bytes"] == size.state_bytes + size.activation_bytes
    assert found["scales"]["2"]["macs"] < found["macs"] / 6
    smallest, *steps = found["narrower"]
    assert len(steps) == 3
    sizes = [each["file_bytes"]["32"] for each in (smallest, *steps)]
    assert sizes == sorted(sizes)
    narrowed = {**UNET, "channels": steps[-1]["channels"]}
    assert steps[-1]["file_bytes"]["8"] == disk_bytes(narrowed, 8)
    assert build_network(narrowed)
    assert smallest["file_bytes"]["16"] < smallest["file_bytes"]["8"]  # it is tiny
    assert (found["budgets"], found["least_bits"]) == ([smallest["file_bytes"]["16"], found["file_bytes"]["32"]], 16)
    words = audit_words(found)
    assert words[0].startswith("Trusted, since it was named")
    assert any("4 windows of 32 x 32 x 16" in line for line in words)
    assert any(f"from {found['budgets'][0]:,} bytes (16 bits) to " in line for line in words)
    assert [line for line in words if "overlay/compress.yaml" in line and "--budget_bytes N" in line]


def test_a_window_of_one_length_is_as_long_along_every_axis(bundle):
    found = audit(bundle({**TRAIN, "patch": 48}))
    assert (found["input_shape"], found["windows"]) == ([4, 1, 48, 48, 48], "4 windows of 48 x 48 x 48")


def test_ids_that_their_commands_need(bundle):
    changed = {key: value for key, value in TRAIN.items() if key not in ("run", "train")}
    changed["items"] = {"_target_": "Dataset", "data": "@listed"}
    training = {
        "trainer": {"_target_": "SupervisedTrainer", "network": "@network", "train_data_loader": "@loader"},
        "loader": {"_target_": "DataLoader", "dataset": "@items"},
        "training": ["$@trainer.run()"],
    }
    theirs = {"evaluate.json": {"evaluating": ["$@evaluator.run()"]}, "inference.json": {"run": []}}
    compress, evaluate, infer = audit(bundle({**changed, **training}, name="train.yaml", **theirs))["commands"]
    assert "--run_id training" in compress
    assert "--complexity_data" not in compress, "the overlay finds what the trainer's loader reads"
    assert "configs/train.yaml" in compress
    assert evaluate.endswith("--run_id evaluating")
    assert "--run_id" not in infer
    training["trainer"]["network"] = "@other"
    found = audit(bundle({**changed, **training}, name="train.yaml"))
    assert found["commands"] == []
    assert (
        "since overlay/compress.yaml refuses configs/train.yaml: 'training' does not lead to the id 'network'"
        in (audit_words(found)[-1])
    )
    inferring = bundle(changed, name="inference.json")
    (inferring / "configs" / "train.yaml").unlink()
    assert audit(inferring)["commands"] == [], "there is nothing that trains"


def test_a_class_of_their_own_is_probed_and_left_behind_nowhere(bundle):
    folder = bundle({**TRAIN, "network_def": {"_target_": "their_code.net.Own", "in_channels": 1, "filters": 24}})
    (folder / "their_code").mkdir()
    (folder / "their_code" / "__init__.py").write_text("")
    (folder / "their_code" / "net.py").write_text(
        "import torch\n"
        "class Own(torch.nn.Sequential):\n"
        "    def __init__(self, in_channels, filters=8, spatial_dims=3):\n"
        "        conv = torch.nn.Conv3d\n"
        "        norm = torch.nn.GroupNorm(4, filters)\n"
        "        super().__init__(conv(in_channels, filters, 3, padding=1), norm, conv(filters, 2, 1))\n"
    )
    found = audit(folder)
    assert found["widths"] == {"argument": "filters", "scales": [1], "multiple": 4, "least": 4}
    assert [each["channels"] for each in found["narrower"]] == [[4], [8], [12], [16]]
    assert "--widths auto" in found["commands"][0]
    assert "to keep it: widths:" in " ".join(audit_words(found))
    assert "their_code" not in sys.modules
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("network_def", "word"),
    [
        ("$torch.nn.Conv2d(1, 2, 3)", "is an expression"),
        ({"_target_": "monai.networks.nets.HoVerNet"}, "HoVerNet narrows it, alone or"),
        ({"_target_": "UNet", "channels": 3}, "missing 4 required positional arguments"),
        ({"_target_": "nowhere.Net"}, "nowhere"),
        ("$open('/no/such/file')", "No such file"),
        (None, "no id among network_def"),
    ],
)
def test_what_cannot_be_narrowed_has_its_reason_and_never_a_traceback(bundle, network_def, word):
    train = {**TRAIN, "network_def": network_def}
    del train["network"]
    found = audit(bundle(train))
    assert word in found["reason"]
    assert "narrower" not in found
    words = " ".join(audit_words(found))
    assert word in words
    assert ("What can be had: its weights at 16 or 8 bits" in words) == ("file_bytes" in found)
    assert "stage fewer" not in words, "no class here takes that"


def test_a_backbone_that_stays_is_said_before_anything_is_measured(bundle):
    flexible = {"_target_": "FlexibleUNet", "in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b1"}
    flexible |= {"spatial_dims": 2, "pretrained": True}
    found = audit(bundle({**TRAIN, "network_def": flexible}))
    assert found["narrower"][0]["saves"] < 0.5
    smaller = {**flexible, "backbone": "efficientnet-b0", "pretrained": False}
    assert found["smaller"] == {"efficientnet-b0": {str(bits): disk_bytes(smaller, bits) for bits in (32, 16, 8)}}
    words = " ".join(audit_words(found))
    assert "at most: the rest of the network stays" in words
    assert f"Take a smaller one: efficientnet-b0: {disk_bytes(smaller):,} bytes" in words


def test_fewer_stages_are_named_only_where_the_class_takes_them():
    unet = {**UNET, "_target_": "monai.networks.nets.UNet"}
    fewer = {**unet, "channels": [16, 32], "strides": [2]}
    assert smaller_ones(unet)["one stage fewer"]["32"] == disk_bytes(fewer)
    assert smaller_ones({"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2}) == {}


def test_an_argument_that_monai_has_removed_is_named_with_what_to_do(bundle):
    found = audit(bundle({**TRAIN, "network_def": {**UNET, "img_size": 96}}))
    assert re.search(r"UNet of MONAI \S+ takes no img_size: delete that from network_def", found["remove"])
    assert found["full_channels"] == [16, 32, 64]
    assert "All that follows is said without it" in " ".join(audit_words(found))


def test_a_large_file_that_a_checkout_lacks_is_named_with_what_to_do(bundle):
    folder = bundle(
        {**TRAIN, "network_def": {"_target_": "UNet", "channels": "$open(@bundle_root + '/code.pt').read()"}}
    )
    (folder / "large_files.yml").write_text("large_files:\n  - path: code.pt\n")
    reason = audit(folder)["reason"]
    assert re.search(
        r"code\.pt.*one of the bundle's large files: python -m monai\.bundle download --name theirs", reason
    )


def test_what_cannot_be_narrowed_is_counted_at_coarser_scales(bundle):
    folder = bundle({**TRAIN, "network_def": {"_target_": "their_fixed.net.Fixed"}})
    (folder / "their_fixed").mkdir()
    (folder / "their_fixed" / "__init__.py").write_text("")
    (folder / "their_fixed" / "net.py").write_text(
        "import torch\n"
        "class Fixed(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        conv = torch.nn.Conv3d\n"
        "        super().__init__(conv(1, 8, 2, 2), torch.nn.Upsample(scale_factor=2), conv(8, 2, 1))\n"
    )
    found = audit(folder)
    assert "narrower" not in found
    assert found["scales"]["2"]["macs"] == found["macs"] / 8
    assert found["scales"]["4"]["windows"] == 64
    assert "a coarser scale, as above" in " ".join(audit_words(found))
    compress, *_ = found["commands"]
    assert compress.startswith(f"PYTHONPATH={folder} python -m monai.bundle run"), "where their own class is found"
    assert f"--budget_bytes {found['file_bytes']['8']} --bits_per_weight 8 --scale 2 --scale_roi True" in compress


def test_windows_that_would_leave_too_few_pixels_are_larger():
    family = NetworkFamily.of({**UNET, "_target_": "monai.networks.nets.UNet", "norm": "INSTANCE"})
    found = at_scales(family, (2, 1, 16, 16, 16))
    assert found["scales"]["2"]["input_shape"] == [2, 1, 16, 16, 16]
    assert found["scales"]["4"]["input_shape"] == [2, 1, 64, 64, 64]
    assert found["scales"]["4"]["macs"] == found["macs"]


class CountsWindows:
    """A network for a sliding window, which counts its calls."""

    windows = 0

    def __call__(self, x):
        self.windows += 1
        return x


def test_labels_say_what_a_scale_costs_them_and_how_many_windows_it_takes(bundle, tmp_path):
    data, label = tmp_path / "data", torch.zeros(1, 40, 70, 20)
    label[:, 4:36, 6:60, 2:18] = 1
    data.mkdir()
    for name in ("image", "label"):
        SaveImage(data, output_postfix="", separate_folder=False, print_log=False)(label, {"filename_or_obj": name})
    listed = {"image": "image.nii.gz", "label": "label.nii.gz"}
    (data / "dataset.json").write_text(json.dumps({"labels": {"0": "no", "1": "yes"}, "training": [listed]}))
    found = audit(bundle(TRAIN), data)
    for scale, each in {1: found, 2: found["scales"]["2"]}.items():
        count = CountsWindows()
        sliding_window_inference(label[None], [32 * scale, 32 * scale, 16 * scale], 1, count, overlap=0.5)
        assert each["windows_per_image"] == count.windows
    assert found["scales"]["2"]["labels_keep"] == round(measure_ceiling([label.numpy()]).worst(2), 4)
    words = " ".join(audit_words(found))
    assert "windows over the median image in the place of" in words
    assert "Labels of data at a working scale (1 labels" in words


def test_the_verb_prints_words_or_json_and_says_what_is_missing(bundle, tmp_path, capsys):
    folder = bundle(TRAIN)
    assert main(["audit", str(folder)]) == 0
    assert "narrowed by channels, 16-32-64 at full size" in capsys.readouterr().out
    assert main(["audit", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["full_channels"] == [16, 32, 64]
    assert main(["audit", str(tmp_path)]) == 1
    assert "configs is missing: give the folder of a bundle" in capsys.readouterr().err
    assert main(["audit", str(folder), "--dataset_dir", str(tmp_path)]) == 1
    assert "dataset.json is missing" in capsys.readouterr().err
    assert main(["audit"]) == 1
    assert "name the bundle: monai-ccnet audit FOLDER" in capsys.readouterr().err


def test_it_looks_at_this_bundle_too():
    found = audit(monai_ccnet.bundle_root())
    assert found["network"].endswith("PlainUNet") or "reason" in found
    assert torch.get_default_device() == torch.device("cpu")
