"""Files that try to run code, or to fetch something: each attempt is refused by name, and has no effect."""

import json
import shutil
import sys

import pytest
import torch

from monai_ccnet.__main__ import main
from monai_ccnet.constraints import CompressionPlan, DiskBudget, compress
from monai_ccnet.networks import NetworkFamily, build_network, register_network
from monai_ccnet.posttraining import export_network, load_exported
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import load_records, read_run, settings_left

COMMAND = ["compress", "--max_epochs", "1", "--epoch_length", "2", "--channels", "[4,8]", "--patch_size", "[16,16]"]
COMMAND += ["--scale", "1", "--scales", "[1,2]", "--pictures", "False", "--budget_bytes", "20000"]
UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "in_channels": 1, "out_channels": 2, "channels": [4, 8]}
EVIL = """
import pathlib, torch
pathlib.Path("executed").touch()
class Net(torch.nn.Module):
    def __init__(self, **given):
        super().__init__()
        pathlib.Path("executed").touch()
"""
FETCHING = {"_target_": "monai.networks.nets.HoVerNet", "pretrained_url": "http://example.org/w.pt"}
ATTEMPTS = {
    "a module in the current folder": {**UNET, "_target_": "evil.Net"},
    "its short name": {**UNET, "_target_": "evil"},
    "a module below a place of networks": {**UNET, "_target_": "monai.networks.nets.evil.Net"},
    "a nested one": {**UNET, "act": {"_target_": "evil.Net"}},
    "one nested in a list": {**UNET, "act": ["prelu", {"inner": [{"_target_": "evil.Net"}]}]},
    "a function": {"_target_": "os.system", "command": "touch executed"},
    "a function of a module that a network's module imports": {
        "_target_": "monai.networks.utils.os.system",
        "command": "touch executed",
    },
    "the same below torch": {"_target_": "torch.nn.modules.module.warnings.os.system", "command": "touch executed"},
    "a nested function of torch": {
        **UNET,
        "act": {"_target_": "torch.nn.modules.utils.os.system", "command": "touch x"},
    },
    "built-in code": {"_target_": "builtins.exec", "source": "open('executed', 'w')"},
    "an expression": {**UNET, "channels": "$__import__('pathlib').Path('executed').touch() or [4, 8]"},
    "a nested expression": {**UNET, "act": ["prelu", {"init": "$open('executed', 'w') and 0.1"}]},
    "an expression as a key": {**UNET, "$open('executed', 'w')": 1},
    "a reference": {**UNET, "channels": "@channels"},
    "a macro": {**UNET, "channels": "%train.json::channels"},
    "a debugger": {**UNET, "_mode_": "debug"},
    "a nested debugger": {**UNET, "act": {"_target_": "torch.nn.ReLU", "_mode_": "debug"}},
    "MONAI's other debugger": {**UNET, "_debug_": True},
    "a requirement": {**UNET, "_requires_": "$open('executed', 'w')"},
    "a dunder": {**UNET, "_target_": "torch.nn.__builtins__.exec"},
    "a list for a name": {**UNET, "_target_": ["evil.Net"]},
    "a name with code": {**UNET, "_target_": "torch.nn.Module, evil"},
    "weights from an address": FETCHING,
    "weights from an address in another argument": {**UNET, "act": ["prelu", {"from": "https://example.org"}]},
    "pretrained weights": {"_target_": "monai.networks.nets.EfficientNetBN", "model_name": "b0", "pretrained": True},
    "nested pretrained weights": {**UNET, "act": {"_target_": "monai.networks.nets.ResNet", "pretrained_url": "x"}},
    "weights of a hub": {**UNET, "hub_name": "someone/something"},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a module that leaves a trace when it is imported; whatever fetches or debugs does too."""
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("evil", None)

    def noticed(*_, **__):
        (tmp_path / "executed").touch()
        raise AssertionError

    for name in (
        "socket.socket.connect",
        "urllib.request.urlopen",
        "torch.hub.load_state_dict_from_url",
        "torch.hub.load",
    ):
        monkeypatch.setattr(name, noticed)
    for name in ("pdb.runcall", "pdb.set_trace", "builtins.breakpoint", "os.system"):
        monkeypatch.setattr(name, noticed)
    yield tmp_path
    assert not (tmp_path / "executed").exists()
    assert "evil" not in sys.modules


@pytest.fixture(scope="module")
def finished(disks_2d, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "output"
    assert main([*COMMAND, "--dataset_dir", str(disks_2d), "--output_dir", str(folder)]) in (0, 3)
    return folder


def rewritten(path, network_def, *places):
    content = json.loads(path.read_text())
    for place in [content, *(content[name] for name in places)]:
        place["network_def"] = network_def
    path.write_text(json.dumps(content))


WHERE_IT_IS_BUILT = {  # is refused what lies below a place of networks and is none
    "its short name",
    "a module below a place of networks",
    "a function of a module that a network's module imports",
    "the same below torch",
    "a nested function of torch",
}


def refusal(load, *given):
    """Return what a loader says, or what it loaded."""
    try:
        return None, load(*given)
    except ValueError as error:
        return str(error), None


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("plan.json", CompressionPlan.load),
        ("record.json", TrialRecord.load),
        ("run.json", lambda path: settings_left(path.parent)),
        ("record.json", lambda path: load_records(path.parent)),
    ],
)
@pytest.mark.parametrize("family", [False, True])
def test_files_name_networks_and_nothing_else(attempt, name, load, family, here, finished):
    shutil.copy(finished / name, here)
    rewritten(here / name, ATTEMPTS[attempt], *(["family"] if family and name == "plan.json" else []))
    said, _ = refusal(load, here / name)
    if attempt in WHERE_IT_IS_BUILT:
        assert said is None
        with pytest.raises(ValueError, match=r"is not a torch\.nn\.Module|leads to"):
            build_network(ATTEMPTS[attempt])
    else:
        assert said.startswith(f"{here / name}: it")
        assert len(said) < len(str(here)) + 600


@pytest.mark.parametrize("attempt", ["a module in the current folder", "a nested one", "an expression", "a debugger"])
@pytest.mark.parametrize("verb", ["evaluate", "infer", "planned"])
def test_the_documented_commands_refuse_them(attempt, verb, here, finished, disks_2d, capsys):
    folder = shutil.copytree(finished, here / "output")
    rewritten(folder / "run.json", ATTEMPTS[attempt])
    rewritten(folder / "plan.json", ATTEMPTS[attempt], "family")
    if verb == "planned":  # where no run.json says what was trained
        (folder / "run.json").unlink()
    words = ["--dataset_dir", str(disks_2d), "--output_dir", str(folder), "--patch_size", "[16,16]"]
    assert main(["evaluate" if verb == "planned" else verb, *words]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{folder / ('plan.json' if verb == 'planned' else 'run.json')}: it" in said


def test_a_network_of_ones_own_is_named_in_python_or_by_an_argument(here, finished, monkeypatch):
    (here / "mine.py").write_text("from monai_ccnet.networks import PlainUNet\nclass Mine(PlainUNet):\n    pass\n")
    shutil.copy(finished / "plan.json", here)
    rewritten(here / "plan.json", {**UNET, "_target_": "mine.Mine"}, "family")
    with pytest.raises(
        ValueError, match=r"plan\.json: it names 'mine\.Mine' as a network, .*--trusted \"\['mine\.Mine'\]\""
    ):
        CompressionPlan.load(here / "plan.json")
    plan = CompressionPlan.load(here / "plan.json", ["mine.Mine"])
    assert type(build_network(plan.network_def)).__name__ == "Mine"
    monkeypatch.setattr("monai_ccnet.names.registered", set())
    assert register_network("mine.Mine") == "mine.Mine"
    monkeypatch.setattr("monai_ccnet.names.registered", {"mine.Mine"})
    assert CompressionPlan.load(here / "plan.json") == plan


def test_planning_fetches_nothing_and_says_what_it_switches_off(here):
    flexible = {
        "_target_": "monai.networks.nets.FlexibleUNet",
        "in_channels": 3,
        "out_channels": 2,
        "backbone": "efficientnet-b0",
        "pretrained": True,
    }
    with pytest.warns(UserWarning, match=r"pretrained of monai\.networks\.nets\.FlexibleUNet is switched off"):
        plan = compress(flexible, DiskBudget(22_000_000), layerwise=False)
    assert plan.network_def["pretrained"] is False
    assert CompressionPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    by_default = {
        "_target_": "monai.networks.nets.EfficientNetBN",
        "model_name": "efficientnet-b0",
    }  # fetches by default
    for device in ("meta", None):
        build_network(by_default, device)
    NetworkFamily.of({**by_default, "pretrained": False}, {"argument": "in_channels", "scales": [1]})


class _Harm:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('executed').touch()",)


def test_a_program_that_unpickles_is_not_loaded_untrusted(here):
    network = build_network(UNET)
    export_network(network, here / "model.pt2", (1, 1, 16, 16), format="torch_export")
    torch.save({"weight": _Harm()}, here / "harm.pt")
    for name in ("model.pt2", "harm.pt"):
        with pytest.raises(ValueError, match=name):
            load_exported(here / name)
    with pytest.raises(ValueError, match=r"harm\.pt"):
        load_exported(here / "harm.pt", trusted=True)


def test_a_damaged_run_is_named(here, finished, damages):
    whole = (finished / "run.json").read_bytes()
    for damaged in damages(whole, 1500):
        (here / "run.json").write_bytes(damaged)
        for load in (read_run, settings_left):
            said, left = refusal(load, here)
            assert isinstance(left, dict) or (str(here / "run.json") in said and len(said) < len(str(here)) + 700)


def again(verb, data, folder, *words):
    return main([verb, "--dataset_dir", str(data), "--output_dir", str(folder), *words])


def test_weights_without_the_run_that_wrote_them_are_refused(here, finished, disks_2d, capsys):
    folder = shutil.copytree(finished, here / "output")
    (folder / "run.json").unlink()
    for verb in ("evaluate", "infer"):
        assert again(verb, disks_2d, folder, "--patch_size", "[16,16]") == 1
        assert "beside a record.json and no run.json" in capsys.readouterr().err
    (folder / "model.pt").unlink()
    assert again("infer", disks_2d, folder) == 1
    assert "the command that trains the network writes it" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[1]", '{"value_type": "DataReading"', "frame"])
def test_a_damaged_reading_only_costs_the_time_to_read_again(content, here, finished, disks_2d):
    folder = shutil.copytree(finished, here / "output")
    whole = (folder / "data.json").read_text()
    (folder / "data.json").write_text(whole.replace('"picture"', '"x"') if content == "frame" else content)
    assert main([*COMMAND, "--dataset_dir", str(disks_2d), "--output_dir", str(folder)]) in (0, 3)
    assert (folder / "data.json").read_text() == whole


def test_scores_that_were_replaced_are_taken_again(here, finished, disks_2d):
    folder = shutil.copytree(finished, here / "output")
    before = {name: (folder / name).read_bytes() for name in ("metrics.csv", "f1_raw.csv", "iu_raw.csv", "model.pt")}
    (folder / "metrics.csv").write_text("f1\t1.0")
    (folder / "iu_raw.csv").unlink()
    assert main([*COMMAND, "--dataset_dir", str(disks_2d), "--output_dir", str(folder)]) in (0, 3)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_network_of_ones_own_that_does_not_name_its_axes_is_used_too(here, disks_2d, monkeypatch, capsys):
    (here / "own.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "        self.body = torch.nn.Conv2d(1, 2, width, padding='same')\n"
        "    def forward(self, image):\n        return self.body(image)\n"
    )
    words = ["--max_epochs", "1", "--epoch_length", "2", "--patch_size", "[16,16]"]
    words += ["--network_def", "{'_target_': 'own.Net', 'width': 3}"]
    assert again("train", disks_2d, here / "output", *words) in (0, 3)
    assert again("infer", disks_2d, here / "output") == 1
    assert "run.json: it names 'own.Net' as a network" in capsys.readouterr().err
    for verb in ("evaluate", "infer"):
        assert again(verb, disks_2d, here / "output", "--trusted", "['own.Net']") == 0
