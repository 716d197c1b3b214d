"""A run in a folder: what was asked for, which stages are done, and its record at the end; each stage is done once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monai.bundle.config_parser import ConfigParser

from monai_ccnet.configs import run_list, running_workflow, take_over
from monai_ccnet.data.folder import safe_name
from monai_ccnet.data.images import as_paths
from monai_ccnet.data.reading import DataReading
from monai_ccnet.files import check_writable, read_json, write_json
from monai_ccnet.handlers import forget_training
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.records import TrialRecord, constant_score, evaluated_record, remedies

__all__ = [
    "NO_RECIPE",
    "asked_of",
    "begin_run",
    "check_asked",
    "check_data",
    "check_patch",
    "check_space",
    "end_training",
    "end_with_score",
    "evaluation_dir",
    "finish_run",
    "finished_record",
    "forget_run",
    "recipe_of",
    "record_of",
    "settings_left",
    "use_settings_left",
]

_RUN_FORMAT = 1

NOT_LEARNED = 3  # exit status of a run whose network has not learned

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
    "allow_overlap",
    "force",
    "reading",
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

# Settings of a training run that whoever evaluates or uses its network needs, by their ids in train.yaml.
_LEFT = ("patch_size", "overlap", "spacing", "label_values")

# What a run leaves that a later one would go on from.
_STATE = ("run.json", "record.json", "rival.json", "model.pt", "data.json", "complexity.json", "complexity_iu.json")


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
        ValueError: if the folder holds a run of another network, data set or recipe.
        OSError: if the folder cannot be written to.
    """
    folder = Path(parser.get_parsed_content("output_dir"))
    asked = asked_of(parser, network_def)
    check_writable(folder)
    check_asked(folder, asked, parser.get_parsed_content("reading"))
    with _lock(folder).acquire(timeout=-1 if wait else 0):
        _begin(folder, asked, parser)
        if (record := finished_record(folder)) is not None:
            return record
        weights, stages = folder / "model.pt", read_json(folder / "run.json")["stages"]
        if not (weights.exists() and "training" in stages):
            check_space(folder, parser.get_parsed_content("network"))
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


def begin_run() -> None:
    """Write what the running ``train.yaml`` is asked for into its folder, or refuse a folder that holds another run.

    Raises:
        ValueError: if the folder holds a run of another network, data set or recipe.
        OSError: if its disk is too full for checkpoints.
    """
    parser = running_workflow().parser
    folder = Path(parser.get_parsed_content("output_dir"))
    if os.environ.get("RANK", "0") == "0":
        check_writable(folder)
        try:
            _lock(folder).acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"another process trains in {folder}: wait for it, or choose another output_dir."
            ) from error
        _begin(folder, asked_of(parser, _network_def(parser)), parser)
        check_space(folder, parser.get_parsed_content("network"))


def _lock(folder: Path) -> FileLock:
    """Return the lock of a folder, the same one within a process, which it frees at the latest when it ends."""
    return FileLock(folder / ".lock", is_singleton=True)


def _begin(folder: Path, asked: Mapping[str, Any], parser: ConfigParser) -> None:
    reading = parser.get_parsed_content("reading")
    if not check_asked(folder, asked, reading):
        write_json(folder / "run.json", {**asked, "stages": {}})
    reading.keep(folder / "data.json")


def _network_def(parser: ConfigParser) -> dict[str, Any]:
    """Return the config of the network of a parser, of which ``plan`` is one, with its references resolved."""
    if parser.get("plan") is not None:
        return dict(parser.get_parsed_content("plan").network_def)
    again = _resolved(parser)
    if not isinstance(again.get("network_def"), Mapping):
        return {"network_def": str(again.get("network_def"))}
    described = ConfigParser({**again, "network_def": {**again["network_def"], "_mode_": "callable"}})
    return network_def_of(described.get_parsed_content("network_def"))


def end_training() -> None:
    """End the running ``train.yaml`` with a word and exit status 3 if its network has not learned.

    Judged are the images of its last validation; a run that had none is not judged.

    Raises:
        SystemExit: with status 3; the weights are written all the same.
    """
    parser = running_workflow().parser
    _lock(Path(parser.get_parsed_content("output_dir"))).release()
    state = parser.get_parsed_content("validate::evaluator").state
    details = getattr(state, "metric_details", {}).get("f1")
    if details is None:
        return
    f1, constant = state.metrics["f1"], constant_score(details)
    if not f1 > constant:
        losses = parser.get_parsed_content("history").losses
        print(
            f"FAILED: the network has not learned. Its F1 on the validation images is {f1:.4f}; the best constant "
            f"answer has {constant:.4f}. {remedies(losses)}"
        )
        raise SystemExit(NOT_LEARNED)


def end_with_score(record: TrialRecord) -> None:
    """End a run with exit status 3 if its network has not learned; what it leaves is there all the same.

    Raises:
        SystemExit: with status 3.
    """
    if record.failure is not None:
        raise SystemExit(NOT_LEARNED)


def check_patch(patch_size: Sequence[int], spatial_dims: int) -> None:
    """Refuse a patch that has not one length for each axis of the images.

    Raises:
        ValueError: with what was given and what is needed.
    """
    if len(patch_size) != spatial_dims:
        raise ValueError(
            f"patch_size must hold {spatial_dims} lengths for images of {spatial_dims} axes, got {list(patch_size)}."
        )


def evaluation_dir(output_dir: str | os.PathLike, reading: DataReading) -> str:
    """Return the folder for the scores of an evaluation: that of the run, or one below it for other data than its own.

    Args:
        output_dir: folder of the run.
        reading: what was read of the data set on which its network is evaluated.
    """
    path = Path(output_dir) / "run.json"
    if not path.exists() or read_json(path).get("data") == _data_of(reading):
        return str(output_dir)
    folder = Path(output_dir) / f"evaluation-{safe_name(reading.dataset)}"
    print(f"The run in {output_dir} is of other data: the scores on {reading.dataset} are written to {folder}.")
    return str(folder)


def check_space(folder: str | os.PathLike, network: Any) -> None:
    """Refuse a disk that is too full for the checkpoints of a training run, before it begins.

    Args:
        folder: folder of the run.
        network: network that is trained. A checkpoint holds it and Adam's two moments, and two may be there at once.

    Raises:
        OSError: with the bytes that are needed and those that are free.
    """
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    needed, free = 2 * 3 * numbers + 1_000_000, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} has {free:,} bytes free, and the checkpoints of this training need {needed:,}: free some space, "
            "or choose another output_dir."
        )


def forget_run(output_dir: str | os.PathLike, force: bool = True, names: Sequence[str] = ()) -> None:
    """Delete what earlier runs in a folder left and a new one would go on from, so that everything is done again.

    Args:
        output_dir: folder of the run, or of a sweep or comparison, whose runs are in folders below it.
        force: whether to do so; ``False`` does nothing.
        names: the files to delete in the folder itself, if not all that a training run left.
    """
    if not force:
        return
    folder = Path(output_dir)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if names:
        return
    for each in [folder, *sorted({path.parent for name in _STATE for path in folder.rglob(name)} - {folder})]:
        for name in _STATE:
            (each / name).unlink(missing_ok=True)
        forget_training(each)


def settings_left(output_dir: str | os.PathLike) -> dict[str, Any]:
    """Return the settings that a training run left in its folder for whoever uses its network.

    Returns:
        ``network_def``, ``patch_size``, ``overlap``, ``spacing``, ``label_values``, ``labels`` (names of the classes),
        ``image_files`` (files of an image) and ``validate`` (the configs of its evaluation); empty if there is no run.
    """
    path = Path(output_dir) / "run.json"
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, Mapping) or not isinstance(found.get("settings"), Mapping):
        raise ValueError(f"{path} is not what a training run left: choose another output_dir.")
    network_def, validate = found.get("network_def") or {}, found.get("recipe", {}).get("validate")
    return {
        "network_def": network_def if "_target_" in network_def else None,
        **found["settings"],
        "validate": validate,
    }


def use_settings_left() -> None:
    """Let the running config, which evaluates, use the settings of the training run in its folder.

    What was given to the run itself stays. Without a run in the folder nothing changes.
    """
    parser = running_workflow().parser
    left = settings_left(parser.get_parsed_content("output_dir"))
    taken = {key: left[key] for key in _LEFT if key in left}
    if parser.get("plan") is None and left.get("network_def"):
        taken["network_def"] = left["network_def"]
    take_over(taken, "train.yaml", "evaluate.yaml")


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


def check_data(output_dir: str | os.PathLike, reading: DataReading) -> None:
    """Refuse a folder whose run is on other data, and say what changed; else keep what was read in ``data.json``.

    Raises:
        ValueError: if the folder holds a run on another data set, or its files have changed since.
        OSError: if the folder cannot be written to.
    """
    check_writable(output_dir)
    folder = Path(output_dir)
    if (folder / "run.json").exists():
        _check_data(folder, read_json(folder / "run.json"), reading)
    reading.keep(folder / "data.json")


def _check_data(folder: Path, found: Mapping[str, Any], reading: DataReading) -> None:
    if found.get("data") == _data_of(reading):
        return
    words = None
    if (folder / "data.json").exists():
        words = reading.differences(DataReading.load(folder / "data.json"))
    name = (found.get("data") or {}).get("name")
    words = words or f"the data set was {name!r} and is {reading.dataset!r}, or its files are others"
    raise ValueError(
        f"{folder} holds a run on other data ({words}): choose another output_dir, or start again with --force True."
    )


def _data_of(reading: DataReading) -> dict[str, str]:
    return {"name": reading.dataset, "digest": reading.digest}


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
    """Return what a run is asked for, in JSON types: the network, the data, the recipe, and its settings for others."""
    ids = ConfigParser.load_config_file(str(Path(_config_root(parser)) / "train.yaml"))
    data = parser.get_parsed_content("data")
    recipe = recipe_of(_resolved(parser), list(ids))
    settings = {key: parser.get_parsed_content(key) for key in _LEFT}
    asked = {
        "format_version": _RUN_FORMAT,
        "network_def": dict(network_def),
        "data": _data_of(parser.get_parsed_content("reading")),
        "recipe": {key: value for key, value in recipe.items() if key != "data"},
        "settings": {
            **settings,
            "labels": list(data.labels),
            "image_files": len(as_paths(data.training[0]["image"])),
        },
    }
    return json.loads(json.dumps(asked, default=str))


def _resolved(parser: ConfigParser) -> dict[str, Any]:
    """Return a config as it stands once its relative ids are resolved, whether or not it was parsed before."""
    again = ConfigParser({key: value for key, value in parser.get().items() if key != ConfigParser.meta_key})
    again.resolve_macro_and_relative_ids()
    return again.get()


def _config_root(parser: ConfigParser) -> str:
    return os.path.join(str(parser.get_parsed_content("bundle_root")), "configs")


def check_asked(folder: Path, asked: Mapping[str, Any], reading: DataReading) -> bool:
    """Return whether a folder holds a run, and refuse it if it is of another network, data set or recipe."""
    if not (folder / "run.json").exists():
        if (folder / "trial.json").exists():
            raise ValueError(
                f"{folder} holds a run of release 0.1 (trial.json), which that release can go on with: choose another "
                "output_dir, or delete that one."
            )
        return False
    found = read_json(folder / "run.json")
    if not (found.get("stages") or (folder / "model.pt").exists() or any(folder.glob("training_*.pt"))):
        return found == {**asked, "stages": {}}  # nothing was trained yet
    _check_data(folder, found, reading)
    recipes = found.get("recipe", {}), asked["recipe"]
    differing = sorted(key for key in {**recipes[0], **recipes[1]} if recipes[0].get(key) != recipes[1].get(key))
    if differing or found.get("network_def") != asked["network_def"]:
        raise ValueError(
            f"{folder} holds a run with another {', '.join(differing) or 'network'}: choose another output_dir, or "
            "start again with --force True."
        )
    return True


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
