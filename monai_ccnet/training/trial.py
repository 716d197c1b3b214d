"""One training run by the bundle's own configs, done once whatever happens, and the record it leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from monai.bundle.config_parser import ConfigParser
from monai.bundle.workflows import ConfigWorkflow

from monai_ccnet.complexity import ComplexityProfile, measure_settings
from monai_ccnet.configs import check_recipe, run_list
from monai_ccnet.files import check_writable, read_json, write_json
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.precision import at_precision
from monai_ccnet.networks.size import network_size
from monai_ccnet.networks.storage import load_weights, save_weights
from monai_ccnet.records import TrialRecord, evaluated_record

__all__ = [
    "check_output_dir",
    "evaluate_network",
    "finish_run",
    "full_network_def",
    "open_trial",
    "recipe_of",
    "run_trial",
    "train_network",
]

_RUN_FORMAT = 1


def full_network_def(bundle_root: str | os.PathLike, **overrides: Any) -> dict[str, Any]:
    """Return the config of the network that ``train.yaml`` of a bundle would train, with references resolved.

    Args:
        bundle_root: folder of the bundle.
        overrides: of ``train.yaml`` by their ids, such as ``dataset_dir``, which decides the channels in and out.
    """
    parser = ConfigParser()
    parser.read_config(str(Path(bundle_root) / "configs" / "train.yaml"))
    parser.update({**overrides, "bundle_root": str(bundle_root), "network_def::_mode_": "callable"})
    for line in parser.get("imports", []):
        ConfigParser({"line": line}).get_parsed_content("line")
    return network_def_of(parser.get_parsed_content("network_def"))


def open_trial(
    bundle_root: str | os.PathLike, output_dir: str | os.PathLike, network_def: Any, **recipe: Any
) -> ConfigWorkflow:
    """Return ``train.yaml`` and ``evaluate.yaml`` of a bundle for one network, ready to be initialized.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for this trial alone.
        network_def: the network's MONAI config, or a network that is there already; either way it goes to the
            ``device`` and calculates at the ``precision`` of the recipe.
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``.
    """
    check_recipe(recipe)
    places = {"output_dir": str(output_dir), "bundle_root": str(bundle_root)}
    files = [str(Path(bundle_root) / "configs" / name) for name in ("train.yaml", "evaluate.yaml")]
    return ConfigWorkflow(files, workflow_type="train", **{**recipe, "network_def": network_def, **places})


def run_trial(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    *,
    multiplier: float | None = None,
    wait: bool = True,
    **recipe: Any,
) -> TrialRecord:
    """Train and evaluate a network with ``train.yaml`` and ``evaluate.yaml`` of a bundle; do only what is not done yet.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for this trial alone; :func:`finish_run` says what it gets.
        network_def: the network's MONAI config, with references resolved.
        multiplier: channels per channel of the full-size network, to be recorded.
        wait: whether to wait for another process that runs this trial, or else raise ``filelock.Timeout``.
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``; JSON types.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a trial of another network or recipe, or a setting is not known.
        OSError: if the folder cannot be written to.
    """
    workflow = open_trial(bundle_root, output_dir, dict(network_def), **recipe)
    asked = _asked(workflow.parser, network_def)
    check_writable(output_dir)
    _check_asked(Path(output_dir), asked)  # before waiting for another process as well
    if (record := _finished(Path(output_dir))) is not None:
        return record
    workflow.initialize()
    given = {key: value for key, value in recipe.items() if key not in _NO_RECIPE}
    return finish_run(workflow.parser, network_def, multiplier=multiplier, wait=wait, recipe=given)


def finish_run(
    parser: ConfigParser,
    network_def: Mapping[str, Any],
    *,
    multiplier: float | None = None,
    wait: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> TrialRecord:
    """Run the training and the evaluation of a config, each once, and record what came out.

    The folder gets ``run.json`` (what was asked for, and which stages are done) before anything runs, a checkpoint at
    the end of each epoch, ``model.pt`` after training, and ``record.json`` at the end. A training run that was
    interrupted goes on from its last checkpoint. Two processes never work in one folder at once.

    Args:
        parser: of ``train.yaml`` and ``evaluate.yaml``, and whatever lies over them. Read are the lists ``train#run``
            and ``test#run``, and then ``outcome``.
        network_def: of the network that is trained.
        multiplier: channels per channel of the full-size network, to be recorded.
        wait: whether to wait for another process, or else raise ``filelock.Timeout``.
        recipe: settings to be recorded beside those of ``outcome``.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a run of another network or recipe.
        OSError: if the folder cannot be written to.
    """
    folder = Path(parser.get_parsed_content("output_dir"))
    asked = _asked(parser, network_def)
    check_writable(folder)
    _check_asked(folder, asked)
    with FileLock(folder / ".lock", timeout=-1 if wait else 0):
        if not _check_asked(folder, asked):
            write_json(folder / "run.json", {**asked, "stages": {}})
        if (record := _finished(folder)) is not None:
            return record
        weights, stages = folder / "model.pt", read_json(folder / "run.json")["stages"]
        if not (weights.exists() and "training" in stages):
            start = time.monotonic()
            run_list(parser, "train::run")
            losses = parser.get_parsed_content("outcome::history").losses
            stages["training"] = {"losses": losses, "seconds": time.monotonic() - start}
            write_json(folder / "run.json", {**asked, "stages": stages})
        start = time.monotonic()
        run_list(parser, "test::run")
        record = _record(
            parser,
            network_def,
            multiplier=multiplier,
            recipe=recipe or {},
            losses=stages["training"]["losses"],
            seconds=stages["training"]["seconds"] + time.monotonic() - start,
        )
        record.save(folder / "record.json")
        return record


def _record(
    parser: ConfigParser, network_def: Mapping[str, Any], *, recipe: Mapping[str, Any], seconds: float, **fields: Any
) -> TrialRecord:
    outcome = parser.get_parsed_content("outcome")
    state = outcome["evaluator"].state
    return evaluated_record(
        state.metrics,
        state.metric_details["f1"],
        dataset=outcome["dataset"],
        network_def=network_def,
        input_shape=outcome["input_shape"],
        file_bytes=os.path.getsize(outcome["weights_file"]),
        recipe={**{name: _plain(value) for name, value in outcome["recipe"].items()}, **recipe},
        seconds=round(seconds, 1),
        **fields,
    )


def _finished(folder: Path) -> TrialRecord | None:
    """Return the record of a run that is over and did not fail."""
    if not (folder / "record.json").exists() or not (folder / "run.json").exists():
        return None
    record = TrialRecord.load(folder / "record.json")
    return record if record.error is None else None


def check_output_dir(
    output_dir: str | os.PathLike, dataset: str, measure: str, scales: Sequence[int], **settings: Any
) -> None:
    """Refuse a folder that cannot be written to, or that holds a run on another data set or by another measure.

    Args:
        output_dir: of a run of ``compress.yaml``.
        dataset: name of the data set.
        measure: of its complexity.
        scales: at which it is to be measured.
        settings: of the measure.

    Raises:
        OSError: if the folder cannot be written to.
        ValueError: if a training was begun in it after another measurement, which this run would overwrite.
    """
    check_writable(output_dir)
    profile_file = Path(output_dir) / "complexity.json"
    if not (profile_file.exists() and (Path(output_dir) / "run.json").exists()):
        return
    known = ComplexityProfile.load(profile_file)
    asked = (dataset, measure_settings(measure, **settings), tuple(sorted(set(scales))))
    if (known.dataset, known.settings, known.scales) != asked:
        raise ValueError(
            f"{output_dir} holds a run on {known.dataset!r} by {known.settings} at {known.scales}, asked for is "
            f"{dataset!r} by {asked[1]} at {asked[2]}: choose another output_dir, or delete that one."
        )


def train_network(
    bundle_root: str | os.PathLike, output_dir: str | os.PathLike, network: torch.nn.Module, **recipe: Any
) -> None:
    """Train a network that is there already, in place, with ``train.yaml`` of a bundle.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for what the training leaves.
        network: of any widths; it is trained on from the weights that it has, on the device and at the precision of
            the recipe, and then returns to where it was.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.
    """
    device = next(network.parameters()).device
    workflow = open_trial(bundle_root, output_dir, network, **recipe)
    workflow.initialize()
    run_list(workflow.parser, "train::run")
    at_precision(network, "float32").to(device)


def evaluate_network(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network: torch.nn.Module,
    network_def: Mapping[str, Any],
    **recipe: Any,
) -> TrialRecord:
    """Evaluate a network whose widths no config says, such as a pruned one, with ``evaluate.yaml`` of a bundle.

    Args:
        bundle_root: folder of the bundle.
        output_dir: folder that gets the weights, ``model.pt``, and the metrics.
        network: what is evaluated, as it is stored: it gets the weights of the file, which at few bits are rounded.
        network_def: the config that it came from, for the record; the sizes are the network's own.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.
    """
    start, weights, device = time.monotonic(), Path(output_dir) / "model.pt", next(network.parameters()).device
    save_weights(network, weights, recipe.get("bits_per_weight", 32))
    load_weights(network, weights)
    workflow = open_trial(bundle_root, output_dir, network, **recipe)
    workflow.initialize()
    run_list(workflow.parser, "test::run")
    given = {key: value for key, value in recipe.items() if key not in _NO_RECIPE}
    record = _record(
        workflow.parser, network_def, recipe=given, seconds=time.monotonic() - start, multiplier=None, losses=()
    )
    return replace(record, size=network_size(network.to(device), record.size.input_shape))


# What does not decide how a network is trained and what it answers.
_NO_RECIPE = {
    "imports",
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "device",
    "num_workers",
    "cache_rate",
    "val_interval",
    "history",
    "checked_datalist",
    "weights_file",
    "network_def",
} | {
    "initialize",
    "run",
    "finalize",
}
_RECIPE_OF_PARTS = {
    "train": {"deterministic_transforms", "random_transforms", "preprocessing", "dataset", "sampler", "inferer"},
    "validate": {"preprocessing", "inferer", "postprocessing"},
}


def recipe_of(config: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """Return the part of a config that decides the outcome of a training run.

    Args:
        config: ``train.yaml``, or what lies over it.
        ids: those of ``train.yaml``.
    """
    return {
        key: {part: value[part] for part in sorted(_RECIPE_OF_PARTS[key])} if key in _RECIPE_OF_PARTS else value
        for key, value in config.items()
        if key in ids and key not in _NO_RECIPE
    }


def _asked(parser: ConfigParser, network_def: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is asked for, in JSON types: the network, the data set's list, and the recipe."""
    ids = ConfigParser.load_config_file(str(Path(_config_root(parser)) / "train.yaml"))
    data = parser.get_parsed_content("data")
    recipe = recipe_of(_resolved(parser), list(ids))
    asked = {
        "format_version": _RUN_FORMAT,
        "network_def": dict(network_def),
        "data": {"name": data.name, "digest": data.digest},
        "recipe": {key: value for key, value in recipe.items() if key != "data"},
    }
    return json.loads(json.dumps(asked, default=str))


def _resolved(parser: ConfigParser) -> dict[str, Any]:
    """Return a config as it stands once its relative ids are resolved, whether or not it was parsed before."""
    again = ConfigParser({key: value for key, value in parser.get().items() if key != ConfigParser.meta_key})
    again.resolve_macro_and_relative_ids()
    return again.get()


def _config_root(parser: ConfigParser) -> str:
    return os.path.join(str(parser.get_parsed_content("bundle_root")), "configs")


def _check_asked(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Return whether a folder holds a run, and refuse it if it is of another network, data set or recipe."""
    if not (folder / "run.json").exists():
        if (folder / "trial.json").exists():
            raise ValueError(
                f"{folder} holds a run of release 0.1 (trial.json), which that release can go on with: choose another "
                "output_dir, or delete that one."
            )
        return False
    found = read_json(folder / "run.json")
    recipes = found.get("recipe", {}), asked["recipe"]
    differing = sorted(key for key in {**recipes[0], **recipes[1]} if recipes[0].get(key) != recipes[1].get(key))
    differing += ["data set"] if found.get("data") != asked["data"] else []
    if differing or found.get("network_def") != asked["network_def"]:
        raise ValueError(
            f"{folder} holds a run with another {', '.join(differing) or 'network'}: choose another output_dir, or "
            "delete that one."
        )
    return True


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
