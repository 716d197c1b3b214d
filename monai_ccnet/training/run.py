"""A run in a folder: what was asked for, which stages are done, and its record at the end; each stage is done once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from monai.bundle.config_parser import ConfigParser

from monai_ccnet.complexity import ComplexityProfile, measure_settings
from monai_ccnet.configs import run_list
from monai_ccnet.files import check_writable, read_json, write_json
from monai_ccnet.records import TrialRecord, evaluated_record

__all__ = [
    "NO_RECIPE",
    "asked_of",
    "check_asked",
    "check_output_dir",
    "finish_run",
    "finished_record",
    "recipe_of",
    "record_of",
]

_RUN_FORMAT = 1

# What does not decide how a network is trained and what it answers.
NO_RECIPE = {
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
        parser: parser of ``train.yaml``, ``evaluate.yaml`` and what lies over them. It reads the lists ``train#run``
            and ``test#run``, and then ``outcome``.
        network_def: MONAI config of the network that is trained.
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
    asked = asked_of(parser, network_def)
    check_writable(folder)
    check_asked(folder, asked)
    with FileLock(folder / ".lock", timeout=-1 if wait else 0):
        if not check_asked(folder, asked):
            write_json(folder / "run.json", {**asked, "stages": {}})
        if (record := finished_record(folder)) is not None:
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
        record = record_of(
            parser,
            network_def,
            multiplier=multiplier,
            recipe=recipe or {},
            losses=stages["training"]["losses"],
            seconds=stages["training"]["seconds"] + time.monotonic() - start,
        )
        record.save(folder / "record.json")
        return record


def record_of(
    parser: ConfigParser, network_def: Mapping[str, Any], *, recipe: Mapping[str, Any], seconds: float, **fields: Any
) -> TrialRecord:
    """Return the record of what a config's ``evaluator`` scored, as its ``outcome`` says.

    Args:
        parser: parser of ``evaluate.yaml``, whose evaluation is over.
        network_def: MONAI config of the network.
        recipe: settings to be recorded beside those of ``outcome``.
        seconds: duration of training and evaluation, in seconds.
        fields: further fields of the record, such as ``losses``.
    """
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


def finished_record(folder: Path) -> TrialRecord | None:
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
        output_dir: folder of a run of ``compress.yaml``.
        dataset: name of the data set.
        measure: measure of its complexity.
        scales: scales at which it is to be measured.
        settings: settings of the measure.

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


def recipe_of(config: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """Return the part of a config that decides the outcome of a training run.

    Args:
        config: ``train.yaml``, or what lies over it.
        ids: the ids of ``train.yaml``.
    """
    return {
        key: {part: value[part] for part in sorted(_RECIPE_OF_PARTS[key])} if key in _RECIPE_OF_PARTS else value
        for key, value in config.items()
        if key in ids and key not in NO_RECIPE
    }


def asked_of(parser: ConfigParser, network_def: Mapping[str, Any]) -> dict[str, Any]:
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


def check_asked(folder: Path, asked: Mapping[str, Any]) -> bool:
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
