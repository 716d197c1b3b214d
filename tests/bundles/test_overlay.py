"""The overlays over other bundles: configs as the model zoo writes them, of which no byte changes."""

import json
import os
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Events
from ignite.metrics import Metric
from monai.bundle import ConfigWorkflow, run
from PIL import Image

import monai_ccnet
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.ending import root_cause
from monai_ccnet.handlers import KeepBest
from monai_ccnet.networks import build_network, load_weights, save_weights

OVERLAY = monai_ccnet.bundle_root() / "configs" / "overlay"
IMAGES = {"_target_": "LoadImaged", "image_only": True, "ensure_channel_first": True}
SIZES = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
NETWORKS = {
    "UNet": {**SIZES, "spatial_dims": 3, "channels": [8, 16, 32], "strides": [2, 2], "num_res_units": 1},
    "BasicUNet": {**SIZES, "features": [8, 8, 16, 16, 32, 8]},
    "SegResNet": {**SIZES, "init_filters": 16, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "DynUNet": {
        **SIZES,
        "spatial_dims": "$len(@patch)",  # resolved before the plan is made
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [8, 16, 32],
    },
}
SMALLER = 45_000  # bytes, and enough for BasicUNet at 16 bits
BUDGETS = {"UNet": 60_000, "BasicUNet": 60_000, "SegResNet": 200_000, "DynUNet": 90_000}


def _common(network_def, patch):
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "/data",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "patch": patch,
        "network_def": network_def,
        "network": "$@network_def.to(@device)",
    }


def _pipeline(part, data, transforms):
    return {
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "dataset": {"_target_": "Dataset", "data": data, "transform": f"@{part}preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": f"@{part}dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@patch", "overlap": 0},
    }


def _engine(part, kind, data_loader):
    return {
        "_target_": kind,
        "device": "@device",
        data_loader: f"@{part}dataloader",
        "network": "@network",
        "inferer": f"@{part}inferer",
        "postprocessing": f"@{part}postprocessing",
        "amp": True,
    }


def _training(network_def, patch):
    keys = ["image", "label"]
    load = [{**IMAGES, "keys": keys}, {"_target_": "ScaleIntensityd", "keys": "image"}]
    crop = [{"_target_": "RandSpatialCropd", "keys": keys, "roi_size": "@patch", "random_size": False}]
    pairs = "$[{'image': image, 'label': label} for image, label in zip(@images[%s], @labels[%s])]"
    config = _common(network_def, patch) | {
        "ckpt_dir": "$@bundle_root + '/models'",
        "images": "$sorted(glob.glob(@dataset_dir + '/imagesTr/*'))",
        "labels": "$sorted(glob.glob(@dataset_dir + '/labelsTr/*'))",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.001},
        "train": _pipeline("train#", pairs % (":-1", ":-1"), load + crop),
        "validate": _pipeline("validate#", pairs % ("-1:", "-1:"), "%train#preprocessing#transforms"),
        "initialize": ["$monai.utils.set_determinism(seed=7)"],
        "run": ["$@train#trainer.run()"],
    }
    config["train"] |= {
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "AsDiscreted", "keys": keys, "argmax": [True, False], "to_onehot": 2}],
        },
        "handlers": [{"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1}],
        "trainer": _engine("train#", "SupervisedTrainer", "train_data_loader")
        | {
            "max_epochs": 1,
            "epoch_length": 1,
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "train_handlers": "@train#handlers",
        },
    }
    saver = {
        "_target_": "CheckpointSaver",
        "save_dir": "@ckpt_dir",
        "save_dict": {"model": "@network"},
        "save_key_metric": True,
        "key_metric_filename": "model.pt",
    }
    dice = {"_target_": "MeanDice", "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}
    config["validate"] |= {
        "postprocessing": "%train#postprocessing",
        "handlers": [saver],
        "evaluator": _engine("validate#", "SupervisedEvaluator", "val_data_loader")
        | {"key_val_metric": {"dice": dice}, "val_handlers": "@validate#handlers"},
    }
    return config


def _loader(folder):
    return {"_target_": "CheckpointLoader", "load_path": folder + " + '/model.pt'", "load_dict": {"model": "@network"}}


EVALUATE = {"validate#handlers": [_loader("$@ckpt_dir")], "run": ["$@validate#evaluator.run()"]}
MULTI_GPU = {
    "network": {
        "_target_": "torch.nn.parallel.DistributedDataParallel",
        "module": "$@network_def.to(@device)",
    },
    "initialize": [
        "$import torch.distributed as dist",
        "$dist.init_process_group('gloo', init_method='file://' + @bundle_root + '/store', rank=0, world_size=1)",
    ],
    "finalize": ["$import ignite.distributed as idist", "$idist.finalize()"],
}


def _inference(network_def, patch):
    paths = "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/imagesTs/*'))]"
    load = [{**IMAGES, "keys": "image"}, {"_target_": "ScaleIntensityd", "keys": "image"}]
    extension = ".png" if len(patch) == 2 else ".nii.gz"
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_ext": extension}
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    return (
        _common(network_def, patch)
        | _pipeline("", paths, load)
        | {
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [discrete, {**save, "resample": False, "output_dtype": "$np.uint8"}],
            },
            "handlers": [_loader("$@bundle_root + '/models'")],
            "evaluator": _engine("", "SupervisedEvaluator", "val_data_loader") | {"val_handlers": "@handlers"},
            "run": ["$@evaluator.run()"],
        }
    )


class TheirBundle:
    """A bundle of configs in a folder of its own, in JSON with '#' in its ids or in YAML with '::'."""

    def __init__(self, root, name, dataset_dir, suffix="json"):
        self.root, self.budget, self.suffix = root, BUDGETS[name], suffix
        self.overrides = {"bundle_root": str(root), "dataset_dir": str(dataset_dir), "device": "$torch.device('cpu')"}
        network_def = {"_target_": name, **NETWORKS[name]}
        patch = [16] * 3 if network_def["spatial_dims"] == 3 else [32, 32]
        configs = {
            "train": _training(network_def, patch),
            "evaluate": EVALUATE,
            "inference": _inference(network_def, patch),
            "multi_gpu_train": MULTI_GPU,
        }
        (root / "configs").mkdir()
        for config, content in configs.items():
            text = json.dumps(content)
            text = yaml.safe_dump(json.loads(text.replace("#", "::"))) if suffix == "yaml" else text
            self.path(config).write_text(text)
        self.written = self.bytes()

    def path(self, config):
        return self.root / "configs" / f"{config}.{self.suffix}"

    def bytes(self):
        return {path.name: path.read_bytes() for path in (self.root / "configs").iterdir()}

    def run(self, *files, **overrides):
        files = [str(OVERLAY / file if file.endswith(".yaml") else self.path(file)) for file in files]
        workflow = ConfigWorkflow(files, workflow_type="train", **self.overrides | overrides)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return workflow.parser

    def compress(self, *between, **overrides):
        return self.run("train", *between, "compress.yaml", **{"budget_bytes": self.budget} | overrides)


FORMATS = {"UNet": "json", "BasicUNet": "yaml", "SegResNet": "json", "DynUNet": "yaml"}


@pytest.fixture(scope="module", params=FORMATS)
def compressed(request, disks_2d, disks_3d, tmp_path_factory):
    name = request.param
    dataset_dir = disks_3d if NETWORKS[name]["spatial_dims"] == 3 else disks_2d
    bundle = TheirBundle(tmp_path_factory.mktemp(name), name, dataset_dir, FORMATS[name])
    bundle.compress()
    return bundle


def test_it_trains_the_planned_network_within_the_budget(compressed):
    models = compressed.root / "models"
    plan = CompressionPlan.load(models / "plan.json")
    assert plan.compression > 1
    assert os.path.getsize(models / "compressed.pt") <= compressed.budget
    assert plan.complexity.count == 3  # their training images, without the one they validate on
    network = build_network(plan.network_def)
    for file in ("compressed.pt", "model.pt"):  # the budgeted one, and their checkpoint
        network.load_state_dict(torch.load(models / file, weights_only=True))


def test_their_evaluation_and_inference_read_the_plan(compressed):
    parser = compressed.run("train", "evaluate", "planned.yaml")
    assert 0 <= parser.get_parsed_content("validate#evaluator").state.metrics["dice"] <= 1
    compressed.run("inference", "planned.yaml")
    assert len(list((compressed.root / "eval").rglob("case_*.*"))) == 4
    assert compressed.bytes() == compressed.written


def test_a_second_run_measures_and_plans_nothing_again(compressed, monkeypatch):
    monkeypatch.setattr("monai_ccnet.complexity.dataset.complexity_at_scales", None)
    monkeypatch.setattr("monai_ccnet.constraints.compress", None)
    models = compressed.root / "models"
    before = {path.name: path.stat().st_mtime_ns for path in models.iterdir()}
    compressed.compress()
    after = {path.name: path.stat().st_mtime_ns for path in models.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"compressed.pt", "model.pt"}


@pytest.fixture
def basic(disks_2d, tmp_path):
    return TheirBundle(tmp_path, "BasicUNet", disks_2d)


def test_another_constraint_is_planned_without_measuring_again(basic):
    basic.compress(run=[])
    measured = (basic.root / "models" / "complexity.json").stat().st_mtime_ns
    first = CompressionPlan.load(basic.root / "models" / "plan.json")
    basic.compress(budget_bytes=SMALLER, bits_per_weight=16)
    second = CompressionPlan.load(basic.root / "models" / "plan.json")
    assert (basic.root / "models" / "complexity.json").stat().st_mtime_ns == measured
    assert second.constraint.max_bytes == SMALLER != first.constraint.max_bytes
    assert os.path.getsize(basic.root / "models" / "compressed.pt") <= SMALLER


def test_the_same_seed_trains_the_same_weights_as_their_own_trainer_would(basic):
    basic.compress()
    models = basic.root / "models"
    ours = torch.load(models / "compressed.pt", weights_only=True)
    parser = basic.run("train", "planned.yaml")
    theirs = parser.get_parsed_content("network").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "files",
    [("multi_gpu_train", "compress.yaml"), ("planned.yaml", "multi_gpu_train"), ("multi_gpu_train", "planned.yaml")],
)
def test_in_processes_the_network_is_wrapped_and_the_file_is_not(basic, files):
    basic.compress(run=[])
    parser = basic.run("train", *files, budget_bytes=basic.budget)
    assert isinstance(parser.get_parsed_content("network"), torch.nn.parallel.DistributedDataParallel)
    state = torch.load(basic.root / "models" / "compressed.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state)
    assert os.path.getsize(basic.root / "models" / "compressed.pt") <= basic.budget


def test_at_a_scale_their_windows_cover_as_much_as_before(basic, capsys):
    parser = basic.compress(scale=2, scale_roi=True)
    plan = CompressionPlan.load(basic.root / "models" / "plan.json")
    assert (plan.scale, plan.ceiling) == (2, None)
    assert parser.get("patch") == [64, 64]
    assert "patch [32, 32] -> [64, 64]" in capsys.readouterr().out
    assert parser.get_parsed_content("network").scale == [2, 2]
    assert os.path.getsize(basic.root / "models" / "compressed.pt") <= basic.budget
    evaluated = basic.run("train", "evaluate", "planned.yaml", scale_roi=True).get_parsed_content("network")
    assert evaluated.scale == [2, 2]
    assert basic.compress(run=[], plan_dir=str(basic.root / "auto"), scale="auto").get_parsed_content("plan").ceiling
    with pytest.raises(RuntimeError) as raised:
        basic.compress(run=[], scale=2, scale_roi=True, patch="$[32, 32]", plan_dir=str(basic.root / "other"))
    assert "scale_roi found no numbers" in str(root_cause(raised.value))


def test_their_own_class_is_trusted_at_a_scale_too(basic, monkeypatch, capsys):
    (basic.root / "own_net.py").write_text("from monai.networks.nets import BasicUNet\nclass Own(BasicUNet): pass\n")
    monkeypatch.syspath_prepend(str(basic.root))
    for config in ("train", "inference"):
        content = json.loads(basic.path(config).read_text())
        content["network_def"]["_target_"] = "own_net.Own"
        basic.path(config).write_text(json.dumps(content))
    basic.compress(scale=2, scale_roi=True)
    files = [str(basic.path("inference")), str(OVERLAY / "planned.yaml")]
    run(config_file=files, **basic.overrides, scale_roi=True)
    assert "hold it: own_net.Own." in capsys.readouterr().out
    assert len(list((basic.root / "eval").rglob("case_*.*"))) == 4


def test_a_network_that_cannot_be_narrowed_gets_a_scale_alone(basic):
    own = {"_target_": "VNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    given = {"network_def": own, "budget_bytes": 200_000_000}
    with pytest.raises(RuntimeError) as raised:
        basic.compress(**given)
    assert "VNet' holds its widths" in str(root_cause(raised.value))
    parser = basic.compress(**given, scale=2, scale_roi=True)
    plan = CompressionPlan.load(basic.root / "models" / "plan.json")
    assert (plan.channels, plan.scale) == ((), 2)
    assert type(parser.get_parsed_content("network").network).__name__ == "VNet"


def test_widths_that_are_in_no_table_are_found(basic):
    own = {"_target_": "RegUNet", **SIZES, "depth": 2, "num_channel_initial": 16}
    plan = basic.compress(network_def=own, widths="auto", run=[]).get_parsed_content("plan")
    assert plan.network_def["num_channel_initial"] == plan.channels[0] < 16


def test_the_data_and_the_folder_are_ids(basic, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / "noise.png")
    overrides = {"plan_dir": str(tmp_path / "plans"), "ckpt_dir": str(tmp_path / "plans")}
    data = [{"picture": str(tmp_path / "noise.png")}]
    basic.compress(
        complexity_data=data, measure="jpeg", measure_settings={"image_key": "picture", "quality": 50}, **overrides
    )
    plan = CompressionPlan.load(tmp_path / "plans" / "plan.json")
    assert (plan.complexity.count, plan.complexity.settings["quality"]) == (1, 50)
    parser = basic.run("train", "evaluate", "planned.yaml", **overrides)
    assert parser.get_parsed_content("validate#evaluator").state.metrics
    assert not (basic.root / "models").exists()


class Scripted(Metric):
    """A key metric whose values are known beforehand, one for each epoch."""

    def __init__(self, values, output_transform=lambda output: output):
        self.values = list(values)
        super().__init__(output_transform)

    def reset(self):
        pass

    def update(self, output):
        pass

    def compute(self):
        return self.values.pop(0)


class Validating:
    """A handler of a bundle's own by which it validates."""

    def __init__(self, evaluator):
        self.evaluator = evaluator

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.evaluator.run(engine.state.epoch))


def scripted(**values):
    """Return overrides by which a training of as many epochs as values is validated by them."""
    given = [{"_target_": f"{__name__}.Scripted", "values": each} for each in values.values()]
    return {
        "validate#evaluator#key_val_metric": dict(zip(values, given, strict=True)),
        "train#trainer#max_epochs": max(map(len, values.values())),
    }


SAVER = "validate#handlers#0#"
NAN = float("nan")
AS_CALL = {"_target_": f"{__name__}.Validating", "evaluator": "@validate#evaluator"}
AS_LIST = {"validate#evaluator#val_handlers": "$None if 2 > 1 else @validate#handlers"}
BEST = {
    "the best": ({"dice": [0.2, 0.9, 0.1]}, {}, 2),
    "the first of equals": ({"dice": [0.2, 0.9, 0.9]}, {}, 2),
    "the last of equals": ({"dice": [0.2, 0.9, 0.9]}, {SAVER + "key_metric_greater_or_equal": True}, 3),
    "the smallest": ({"loss": [0.5, 0.1, 0.4]}, {SAVER + "key_metric_negative_sign": True}, 2),
    "another metric": ({"dice": [0.1, 0.2, 0.3], "iou": [0.9, 0.2, 0.3]}, {SAVER + "key_metric_name": "iou"}, 1),
}


@pytest.mark.parametrize("case", BEST)
def test_the_file_holds_the_epoch_that_their_own_checkpoint_keeps(case, basic, capsys):
    values, overrides, epoch = BEST[case]
    parser = basic.compress(**scripted(**values), **overrides)
    models = basic.root / "models"
    ours, theirs = (torch.load(models / name, weights_only=True) for name in ("compressed.pt", "model.pt"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    last = parser.get_parsed_content("network").state_dict()
    assert (epoch == 3) == all(torch.equal(ours[name], last[name]) for name in last)
    assert f"after epoch {epoch}, the best by {list(values)[-1]}" in capsys.readouterr().out
    assert os.path.getsize(models / "compressed.pt") <= basic.budget


@pytest.mark.parametrize(
    ("values", "overrides", "epoch"),
    [
        ([0.2, 0.9, 0.1], {"validate#handlers": None}, 2),
        ([0.9, 0.1, 0.5], {"validate#handlers": [], "validate#evaluator#metric_cmp_fn": "$lambda a, b: a < b"}, 2),
        (
            [0.2, 0.9, 0.1],
            {"validate#evaluator#val_handlers": "$list(@validate#handlers)", SAVER + "_disabled_": True},
            2,
        ),
        ([NAN, 0.2, NAN], {}, 2),
        ([0.2, 0.9, 0.1], {"train#handlers": [AS_CALL]}, 2),
        ([0.2, 0.9], {"train#handlers#0#interval": 3}, None),
        ([0.2, 0.9], {"train#handlers": []}, None),
    ],
)
def test_without_a_checkpoint_of_theirs_it_is_the_best_by_the_key_metric_or_the_last(
    values, overrides, epoch, basic, capsys
):
    parser = basic.compress(**scripted(dice=values), **overrides)
    said = "after the last epoch, since no" if epoch is None else f"after epoch {epoch}, the best by dice"
    assert said in capsys.readouterr().out
    ours = torch.load(basic.root / "models" / "compressed.pt", weights_only=True)
    last = parser.get_parsed_content("network").state_dict()
    assert (epoch is None) == all(torch.equal(ours[name], last[name]) for name in last)


def test_a_bundle_with_a_run_of_another_name_needs_no_override_for_the_file(basic):
    content = json.loads(basic.path("train").read_text())
    content["training"] = content.pop("run")
    for given, change, said in (
        ({}, {}, "there is no 'run' in the config files: give --run_id training"),
        ({"run": []}, {"network_def": None}, "no config file has a network_def, which overlay/compress.yaml plans"),
    ):
        theirs = {key: value for key, value in (content | change).items() if value is not None}
        basic.path("train").write_text(json.dumps(theirs))
        with pytest.raises(RuntimeError) as raised:
            basic.compress(**given)
        assert said in str(root_cause(raised.value))
    basic.path("train").write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as raised:
        run(
            "training",
            config_file=[str(basic.path("train")), str(OVERLAY / "compress.yaml")],
            **basic.overrides,
            run=[],
        )
    assert "--run has no effect beside --run_id training" in str(root_cause(raised.value))
    basic.compress(run_id="training")
    assert os.path.getsize(basic.root / "models" / "compressed.pt") <= basic.budget


def test_whatever_the_order_no_other_network_is_trained(basic):
    for files in (["compress.yaml", "train"], ["compress.yaml", "train", "multi_gpu_train"]):
        with pytest.raises(RuntimeError) as raised:
            basic.run(*files, budget_bytes=basic.budget)
        words = str(root_cause(raised.value))
        assert "overlay/compress.yaml must be the last of the config files" in words
        assert "network and initialize" in words
    assert not list((basic.root / "models").glob("*.pt"))
    basic.compress()
    plan = CompressionPlan.load(basic.root / "models" / "plan.json")
    for files in (["planned.yaml", "train"], ["train", "planned.yaml"]):
        (basic.root / "models" / "compressed.pt").unlink()
        trained = basic.run(*files).get_parsed_content("train#trainer").network
        assert trained.state_dict().keys() == build_network(plan.network_def).state_dict().keys()
        load_weights(trained, basic.root / "models" / "compressed.pt")
        for more in (["planned.yaml", "train", "evaluate"], ["train", "planned.yaml", "evaluate"]):
            evaluated = basic.run(*more).get_parsed_content("network").state_dict()
            assert all(torch.equal(evaluated[name], each) for name, each in trained.state_dict().items())
    with pytest.raises(RuntimeError) as raised:
        basic.run("planned.yaml", "train", scale_roi=True)
    assert "overlay/planned.yaml must be the last" in str(root_cause(raised.value))
    before = (basic.root / "models" / "compressed.pt").read_bytes()
    with pytest.raises(RuntimeError) as raised:
        basic.run("planned.yaml", "train", planned_weights=str(basic.root / "models" / "compressed.pt"))
    assert "a training would replace it" in str(root_cause(raised.value))
    assert (basic.root / "models" / "compressed.pt").read_bytes() == before


def test_a_run_that_trains_nothing_or_is_interrupted_replaces_no_result(basic, monkeypatch):
    basic.compress()
    product = basic.root / "models" / "compressed.pt"
    before = product.read_bytes()
    with pytest.raises(RuntimeError) as raised:
        basic.run("train", "planned.yaml", **{"train#dataset#data": []})
    assert "nothing was trained, so that" in str(root_cause(raised.value))
    with pytest.raises(RuntimeError):
        basic.compress(**{"train#dataset#data": [], "complexity_data": []})
    assert product.read_bytes() == before
    monkeypatch.setattr(KeepBest, "finish", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        basic.compress(seed=5)
    assert product.read_bytes() == before
    assert (product.parent / "compressed.best.pt").is_file()


def test_a_trainer_of_another_network_is_refused(basic):
    with pytest.raises(RuntimeError) as raised:
        basic.compress(**{"train#trainer#network": "$monai.networks.nets.VNet(2).to(@device)"})
    assert "VNet, is not the planned one" in str(root_cause(raised.value))
    assert not list((basic.root / "models").glob("*.pt"))
    with pytest.raises(RuntimeError) as raised:
        basic.run("inference", "compress.yaml", complexity_data=[], budget_bytes=basic.budget)
    assert "'run' trains nothing" in str(root_cause(raised.value))


LOADERS = {
    "a handler": {"handlers": [_loader("$@here")]},
    "a handler of more": {
        "handlers": [_loader("$@here") | {"load_dict": {"net": "@network_def", "optimizer": "@other"}}],
        "other": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
    },
    "switched off": {"handlers": [_loader("$@here") | {"_disabled_": True}]},
    "called before": {
        "initialize": ["$@checkpointloader(@evaluator)"],
        "handlers": [],
        "checkpointloader": _loader("$@here"),
    },
    "an expression": {"handlers": [], "run": ["$@network.load_state_dict(torch.load(@theirs))", "$@evaluator.run()"]},
    "none": {"handlers": []},
}


@pytest.mark.parametrize("form", [{}, {"weights_format": "safetensors"}, {"bits_per_weight": 8}], ids=str)
def test_their_inference_has_the_budgeted_weights_however_it_loads(form, basic, tmp_path, capsys):
    basic.compress(**form)
    (file,) = (basic.root / "models").glob("compressed.*")
    wanted = CompressionPlan.load(basic.root / "models" / "plan.json").network_def
    own = load_weights(build_network(wanted), file).state_dict()
    theirs = basic.root / "models" / "model.pt"
    theirs.unlink()
    save_weights(build_network(wanted), tmp_path / "theirs.pt")  # the same network, with other weights
    content = json.loads(basic.path("inference").read_text())
    for name, change in LOADERS.items():
        places = {"here": "$@bundle_root + '/models'", "theirs": str(tmp_path / "theirs.pt")}
        basic.path("inference").write_text(json.dumps(content | places | change))
        network = basic.run("inference", "planned.yaml").get_parsed_content("evaluator").network
        assert all(torch.equal(network.state_dict()[key], each) for key, each in own.items()), name
        said = capsys.readouterr().out
        assert f"bytes of {file}" in said
        assert ("what this config loads into it is another file's" in said) == (name == "an expression")


def test_without_the_budgeted_file_nothing_is_evaluated(basic):
    basic.compress()
    compressed = (basic.root / "models" / "compressed.pt").rename(basic.root / "models" / "moved.pt")
    with pytest.raises(RuntimeError) as raised:
        basic.run("inference", "planned.yaml")
    assert "the weights of the planned network: train it first" in str(root_cause(raised.value))
    compressed.with_name("compressed.pt").write_bytes(compressed.read_bytes()[:-100])
    with pytest.raises(RuntimeError) as raised:
        basic.run("inference", "planned.yaml")
    words = str(root_cause(raised.value))
    assert "was cut off or damaged" in words
    assert "train it again, with overlay/compress.yaml, or give --planned_weights FILE" in words
    given = str(basic.root / "models" / "moved.pt")
    basic.run("inference", "planned.yaml", planned_weights=given)
    with pytest.raises(RuntimeError) as raised:
        basic.run("inference", "planned.yaml", planned_weights=given, network="$torch.jit.load('model.ts')")
    assert "'run' does not lead to the id 'network_def'" in str(root_cause(raised.value))


def test_a_plan_of_another_bundle_is_refused_with_both_networks(basic, tmp_path):
    other = {"plan_dir": str(tmp_path / "other")}
    basic.compress(run=[], **other, **{"network_def#out_channels": 3})
    files = [str(basic.path("inference")), str(OVERLAY / "planned.yaml")]
    own = {"_target_": "BasicUNet", **NETWORKS["BasicUNet"]}
    with pytest.raises(RuntimeError) as raised:
        run(config_file=files, **basic.overrides, **other)
    words = str(root_cause(raised.value))
    assert "it is for BasicUNet (in_channels 1, out_channels 3, spatial_dims 2), and this bundle's network_def" in words
    for changed in (
        {},
        {"in_channels": 2},
        {"_target_": "UNet", "channels": [8, 16], "strides": [2]},
        {"out_channels": 3},
    ):
        with pytest.raises(RuntimeError) as raised:
            basic.run("planned.yaml", "inference", **other, network_def={**own, **changed})
        same = changed == {"out_channels": 3}  # it was planned so, and only its weights are not there
        said = "the weights of the planned network: train it" if same else "is the plan of another bundle"
        assert said in str(root_cause(raised.value))


def _edit(bundle, config, **changed):
    content = json.loads(bundle.path(config).read_text())
    bundle.path(config).write_text(json.dumps(content | changed))


def _weights(path):
    return torch.load(path, weights_only=True)


def test_what_their_initialize_does_to_the_network_stays(basic):
    constant = "$[torch.nn.init.constant_(each, 0.125) for each in @network.parameters()]"
    _edit(basic, "train", initialize=["$import torch", constant])
    basic.compress(**{"optimizer#lr": 0.0})
    found = _weights(basic.root / "models" / "compressed.pt")
    assert all((found[name] == 0.125).all() for name in found if name.endswith(("weight", "bias")))
    with pytest.raises(RuntimeError) as raised:
        basic.compress(scale=2, scale_roi=True, plan_dir=str(basic.root / "coarse"))
    assert "scale_roi comes too late for " in str(root_cause(raised.value))


def test_a_validation_that_their_initialize_attaches_judges(basic, capsys):
    content = json.loads(basic.path("train").read_text())
    (handler,) = content["train"].pop("handlers")
    content["train"]["trainer"].pop("train_handlers")
    attached = "$@validation.attach(@train#trainer)"
    _edit(basic, "train", train=content["train"], validation=handler, initialize=[attached])
    basic.compress()
    assert "after epoch 1, the best by dice" in capsys.readouterr().out


def test_the_copy_of_the_network_that_is_validated_is_kept(basic):
    content = json.loads(basic.path("train").read_text())
    content["validate"]["evaluator"]["network"] = "@average"
    _edit(basic, "train", average={"_target_": "copy.deepcopy", "x": "@network"}, validate=content["validate"])
    parser = basic.compress()
    kept = _weights(basic.root / "models" / "compressed.pt")
    held = (parser.get_parsed_content(name) for name in ("average", "network"))
    averaged, trained = (getattr(each, "module", each).state_dict() for each in held)  # several processes wrap
    assert all(torch.equal(kept[name], averaged[name]) for name in kept)
    assert not all(torch.equal(kept[name], trained[name]) for name in kept)
    content["validate"]["evaluator"]["network"] = "$torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1))"
    _edit(basic, "train", validate=content["validate"])
    with pytest.raises(RuntimeError) as raised:
        basic.compress()
    assert "the validator's network, a Sequential, is neither the planned" in str(root_cause(raised.value))


def test_a_training_that_nothing_validates_afterwards_is_said(basic, capsys):
    content = json.loads(basic.path("train").read_text())
    later = {**content["train"]["trainer"], "train_handlers": []}
    _edit(basic, "train", later=later, run=[*content["run"], "$@later.run()"])
    basic.compress()
    assert "; a training that came after it was never validated, and its weights are not in" in capsys.readouterr().out


def test_an_evaluation_that_knows_an_optimizer_is_no_training(basic):
    basic.compress()
    written = (basic.root / "models" / "compressed.pt").read_bytes()
    (basic.root / "models" / "model.pt").unlink()
    loader = {**_loader("$@ckpt_dir"), "load_dict": {"model": "@network", "opt": "@optimizer"}}
    attached = ["$[each.attach(@validate#evaluator) for each in @loaders]", "$@validate#evaluator.run()"]
    basic.path("evaluate").write_text(json.dumps({"validate#handlers": [], "loaders": [loader], "run": attached}))
    basic.run("train", "evaluate", "planned.yaml")
    assert (basic.root / "models" / "compressed.pt").read_bytes() == written


def test_training_items_are_found_where_their_loader_takes_them(basic):
    content = json.loads(basic.path("train").read_text().replace("train#dataset", "train_set"))
    content["train_set"] = content["train"].pop("dataset")
    basic.path("train").write_text(json.dumps(content))
    basic.compress(run_id="run")
    assert CompressionPlan.load(basic.root / "models" / "plan.json").complexity.count == 3
    alone = basic.compress(run=[], plan_dir=str(basic.root / "alone")).get_parsed_content("plan")
    assert alone.complexity.count == 3, "also where nothing is run"
    items = content["train_set"]["data"]
    hidden = {"train_set": f"$monai.data.Dataset({items.removeprefix('$')}, @train#preprocessing)", "items": items}
    basic.path("train").write_text(json.dumps(content | hidden))
    with pytest.raises(RuntimeError) as raised:
        basic.compress(run=[])
    assert "Name the id of the list of training items: --complexity_data" in str(root_cause(raised.value))
    basic.compress(run=[], complexity_data="@items")


def test_labels_that_cannot_be_measured_do_not_keep_a_budget_from_being_met(basic, tmp_path, capsys):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "picture.jpg")
    data = [{"image": str(tmp_path / "picture.jpg"), "label": str(tmp_path / "picture.jpg")}]
    basic.compress(complexity_data=data)
    assert "the budget needs no complexity: 1 of 1 images" in capsys.readouterr().out
    assert CompressionPlan.load(basic.root / "models" / "plan.json").complexity is None
    for given in ({"min_score": 0.9}, {"measure": "boundary"}, {"allocation": "complexity"}):
        with pytest.raises(RuntimeError) as raised:
            basic.compress(complexity_data=data, run=[], **given)
        assert "changes the class numbers of a label" in str(root_cause(raised.value))
