"""Jobs that are stopped before each step that they take in the file system: nothing is lost, and nothing done twice."""

import errno
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ccnet import locks
from monai_ccnet.__main__ import main
from monai_ccnet.files import file_digest
from monai_ccnet.handlers import EpochLosses

EPOCHS = 3
TRAINING = {"max_epochs": EPOCHS, "epoch_length": 8, "batch_size": 4, "channels": [8, 8], "patch_size": [16, 16]}
RECIPE = {**TRAINING, "learning_rate": 0.03}
SWEEP_EPOCHS = 2  # of each training of a sweep or comparison
SWEEP = {**RECIPE, "max_epochs": SWEEP_EPOCHS}
WORDS = {
    "train": [word for key, value in RECIPE.items() for word in (f"--{key}", str(value))],
    "compress": [
        *(word for key, value in RECIPE.items() for word in (f"--{key}", str(value))),
        *("--budget_bytes", "20000", "--scales", "[1, 2]", "--pictures", "False"),
    ],
    "calibrate": [
        "--training",
        str(SWEEP),
        "--multipliers",
        "[0.5, 1]",
        "--measures",
        "['jpeg']",
        "--pictures",
        "False",
    ],
    "compare": [
        *("--training", str(SWEEP), "--budgets_bytes", "[15000]", "--seeds", "[0]", "--pictures", "False"),
        *("--methods", "['full size', 'taper', 'L1 pruning, untrained']"),
    ],
}
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Stopped(BaseException):
    """The process is gone."""


class Steps:
    """Count the changes of files below a folder by this process, and do something before one of them."""

    def __init__(self):
        self.root, self.steps, self.act, self.dead = None, [], None, False

    def __call__(self, event, arguments):
        if self.root is None or not (event == "open" or event in CHANGES):
            return
        path = arguments[0]
        if not isinstance(path, (str, os.PathLike)) or not os.path.abspath(path).startswith(self.root):
            return
        if os.path.isdir(path) and event in ("open", "os.mkdir"):  # which changes nothing, or makes a file without name
            return
        if event == "open":
            _, mode, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if not (flags & writes if mode is None else set(mode) & set("wax+")):
                return
        if self.dead:
            raise Stopped
        name = re.sub(r"\.\w{8}\.partial", ".partial", os.path.relpath(os.path.abspath(path), self.root))
        self.steps.append((event, name))
        self.act(self)

    def watch(self, root, act):
        self.root, self.steps, self.act, self.dead = str(root), [], act, False

    def end(self):
        self.root = None
        for lock in locks._LOCKS.values():  # which the end of a process releases
            lock.release(force=True)


STEPS = Steps()
sys.addaudithook(STEPS)  # for good, since none can be removed


def stop(steps):
    steps.dead = True
    raise Stopped


@pytest.fixture
def epochs(monkeypatch):
    """The number of epochs that were trained, in the order of trainings."""
    counted, complete = [0], EpochLosses._complete

    def count(self):
        counted[0] += 1
        complete(self)

    monkeypatch.setattr(EpochLosses, "_complete", count)
    return counted


def run(verb, data, output_dir, *words):
    given = ["--dataset_dirs", str(list(map(str, data)))] if verb == "calibrate" else ["--dataset_dir", str(data[0])]
    return main([verb, *given, "--output_dir", str(output_dir), *WORDS[verb], *words])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def make_data(parent):
    """Write two sets, of noisy and of smooth discs, and return their folders."""
    rng, folders = np.random.default_rng(0), []
    for name, noise in (("noisy", 20), ("smooth", 1)):
        folder, listed = parent / name, {"training": [], "test": []}
        for index, part in enumerate(["training"] * 3 + ["test"] * 2):
            mask = (np.indices((20, 24)) - np.array([[[10]], [[8 + index]]])) ** 2
            mask = (mask.sum(axis=0) < 40).astype(np.uint8)
            item = {"image": f"images/{index}.png", "label": f"labels/{index}.png"}
            pixels = {"image": rng.normal(70 + 90 * mask, noise).clip(0, 255).astype(np.uint8), "label": mask}
            for what, path in item.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[what]).save(folder / path)
            listed[part].append(item)
        described = {"name": name, "labels": {"0": "background", "1": "disc"}, **listed}
        (folder / "dataset.json").write_text(json.dumps(described))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The folder of each job, and its steps."""
    folders = {}
    for verb in WORDS:
        folders[verb] = tmp_path_factory.mktemp(verb) / "output"
        STEPS.watch(folders[verb], lambda steps: None)
        assert run(verb, data, folders[verb]) == 0
        STEPS.end()
        folders[verb] = folders[verb], STEPS.steps
    return folders


def results(folder):
    """Return what a job computed, by file, without times, and the names of all files that it left."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name not in (".lock", "log.txt"))
    found = {"names": [name for name in names if not Path(folder, name).is_dir()]}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix in (".pt", ".csv") and path.name not in ("comparison.csv", "trade_off.csv"):
            found[name] = file_digest(path)
        elif path.name == "record.json":
            content = json.loads(path.read_text())
            found[name] = {key: content[key] for key in ("scores", "per_image", "losses", "weights_digest", "error")}
        elif path.name == "degradation.json":
            found[name] = json.loads(path.read_text())
    return found


def saved_epochs(folder):
    """Return the epochs that a killed job would not have to repeat, of all trainings below a folder."""
    total = 0
    for place in {path.parent for path in folder.rglob("run.json")}:
        if "training" in json.loads((place / "run.json").read_text())["stages"]:
            total += EPOCHS
        else:
            total += max((int(path.stem[-1]) for path in place.glob("training_checkpoint_?.pt")), default=0)
    return total


@pytest.mark.parametrize("verb", ["train", "compress"])
def test_a_job_that_is_stopped_before_any_step_goes_on(verb, data, undisturbed, tmp_path, epochs):
    expected, steps = undisturbed[verb]
    assert len(steps) > 20
    numbers = range(len(steps))
    if verb == "compress":  # its checkpoints are those of train, and every second other step keeps this short
        numbers = [index for index in numbers if "training_checkpoint" not in steps[index][1]][::2]
    for number in numbers:
        folder = tmp_path / str(number)
        STEPS.watch(folder, lambda steps, number=number: stop(steps) if len(steps.steps) > number else None)
        with pytest.raises(Stopped):
            run(verb, data, folder)
        step = STEPS.steps[-1]
        STEPS.end()
        saved = saved_epochs(folder) if folder.exists() else 0
        assert epochs[0] - saved == ("training_checkpoint" in step[1] and ".partial" in step[1]), step
        epochs[0] = 0
        assert run(verb, data, folder) == 0
        assert epochs[0] == EPOCHS - saved, step
        assert results(folder) == results(expected), step
        epochs[0] = 0


def test_a_disk_that_is_full_at_any_file_is_said_and_loses_nothing(data, undisturbed, tmp_path, epochs, capsys):
    expected, taken = undisturbed["compress"]

    def fill(steps, number):
        if len(steps.steps) > number and steps.steps[-1][0] == "open":
            raise OSError(errno.ENOSPC, "No space left on device", steps.steps[-1][1])

    opened = [number for number, (event, _) in enumerate(taken) if event == "open"]
    later = [number for number in opened if re.search(r"training_checkpoint_[2-9]", taken[number][1])]
    for number in [number for number in opened if number not in later][::2]:
        folder = tmp_path / str(number)
        STEPS.watch(folder, lambda steps, number=number: fill(steps, number))
        status = run("compress", data, folder)
        STEPS.end()
        said = capsys.readouterr().err.strip().splitlines()
        assert status == 1
        assert said[-1].startswith("monai-ccnet: OSError: ")
        assert "No space left on device" in said[-1]
        epochs[0], saved = 0, saved_epochs(folder)
        assert run("compress", data, folder) == 0
        assert epochs[0] == EPOCHS - saved
        assert results(folder) == results(expected)


def kind_of(folder, step):
    """Return what a step changes, and what its own folder holds; trainings differ by no more than their names."""
    event, name = step
    kind = re.sub(r"^(trials/)?(full-size|taper|noisy|smooth)-[^/]*/", "training/", name)
    if os.path.basename(name) in (".lock", ".holder.json", "traceback.log") or (event, name[-8:]) == REMOVED:
        return event, kind  # the same whatever is there
    place = folder / os.path.dirname(name)
    files = sorted(path.name for path in place.glob("[!.]*"))
    stages = len(json.loads((place / "run.json").read_text())["stages"]) if "run.json" in files else 0
    return event, kind, files, stages


REMOVED = ("os.remove", ".partial")


class TestSweep:  # in a process of its own, since it takes two minutes
    @pytest.mark.parametrize("verb", ["calibrate", "compare"])
    def test_ends_as_ever_if_it_is_stopped_before_each_step_in_turn(self, verb, data, undisturbed, tmp_path, epochs):
        """Each process gets one step further than the one before, so that each is stopped at what the others left."""
        folder, seen, lost = tmp_path / "output", [], 0

        def stop_at_what_is_new(steps):
            kind = kind_of(folder, steps.steps[-1])
            if kind in seen or (verb == "compare" and kind[1].startswith("training/")):  # which calibrate shows
                return
            seen.append(kind)
            if verb == "calibrate" or len(seen) % 2:  # every second one keeps this short
                stop(steps)

        while True:
            STEPS.watch(folder, stop_at_what_is_new)
            try:
                status = run(verb, data, folder)
                break
            except Stopped:
                event, name = STEPS.steps[-1]
                lost += "training_checkpoint" in name and ".partial" in name and event != "os.remove"
            finally:
                STEPS.end()
        assert status == 0
        assert len(seen) > {"calibrate": 40, "compare": 20}[verb]
        trainings = {"calibrate": 4, "compare": 2}[verb]
        assert epochs[0] == trainings * SWEEP_EPOCHS + lost
        left, expected = results(folder), results(undisturbed[verb][0])
        assert set(left["names"]) - set(expected["names"]) == set()
        assert left == expected
