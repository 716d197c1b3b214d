"""Which stages of a run are done, and of what: the one fact is ``run.json``, written after the files that it names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_ccnet.files import file_digest, read_json, shown, write_json
from monai_ccnet.networks.loading import WeightsError, load_weights
from monai_ccnet.records import TrialRecord

__all__ = [
    "RUN_FILE",
    "begin_stages",
    "finish_stage",
    "finished_record",
    "finished_stage",
    "load_trained",
    "read_run",
]

RUN_FILE = "run.json"
RUN_FORMAT = 2
_WRITES_WEIGHTS = ("training", "pruning")  # stages


def read_run(folder: str | os.PathLike) -> dict[str, Any]:
    """Return what ``run.json`` of a folder holds, ``{}`` if there is none.

    Raises:
        ValueError: if it is damaged, or of another release.
    """
    path = Path(folder) / RUN_FILE
    if not path.exists():
        return {}
    found, remedy = read_json(path, _REMEDY), f"{path} is not what a run of this release left: {_REMEDY}."
    if not isinstance(found, Mapping) or found.get("format_version") != RUN_FORMAT:
        raise ValueError(remedy)
    stages = found.get("stages")
    if not isinstance(stages, Mapping) or not all(map(_is_stage, stages.values())):
        raise ValueError(remedy)
    for key in ("network_def", "data", "recipe", "settings"):
        if not isinstance(found.get(key), Mapping):
            raise ValueError(f"{path} holds {shown(found.get(key))} as {key}: {_REMEDY}.")
    return dict(found)


_REMEDY = "choose another output_dir, or start again with --force True"


def _is_stage(stage: Any) -> bool:
    digests = [stage.get(key, {}) for key in ("inputs", "outputs")] if isinstance(stage, Mapping) else [None]
    return all(
        isinstance(each, Mapping) and all(isinstance(text, str) and len(text) == 64 for text in each.values())
        for each in digests
    )


def begin_stages(folder: str | os.PathLike, asked: Mapping[str, Any]) -> None:
    """Write what a run is asked for, with no stage done."""
    write_json(Path(folder) / RUN_FILE, {"format_version": RUN_FORMAT, **asked, "stages": {}})


def finish_stage(
    folder: str | os.PathLike, name: str, outputs: Iterable[str | os.PathLike], **facts: Any
) -> dict[str, Any]:
    """State that a stage is done, as the last thing that it does, and return what is stated.

    Args:
        folder: folder of the run.
        name: name of the stage; what was known of it before is replaced.
        outputs: files that it wrote, in the folder or elsewhere; their digests are stated.
        facts: further facts in JSON types, such as the digests of its ``inputs``.
    """
    run = read_run(folder)
    stage = {**facts, "outputs": {os.path.relpath(path, folder): file_digest(path) for path in outputs}}
    write_json(Path(folder) / RUN_FILE, {**run, "stages": {**run["stages"], name: stage}})
    return stage


def finished_stage(folder: str | os.PathLike, name: str) -> dict[str, Any] | None:
    """Return what a folder states of a stage, ``None`` if it is not done or a file that it wrote is missing.

    Raises:
        WeightsError: if its weights are others than those that it wrote.
    """
    stage = read_run(folder).get("stages", {}).get(name)
    if stage is None:
        return None
    for written, digest in stage.get("outputs", {}).items():
        path = Path(folder) / written
        if not path.is_file():
            return None
        if file_digest(path) != digest:
            if name in _WRITES_WEIGHTS:
                raise WeightsError(
                    f"{path} is not the file that this run wrote: it was damaged or replaced. Copy the original back, "
                    "or start again with --force True."
                )
            return None
    return dict(stage)


def finished_record(folder: str | os.PathLike, trusted: Collection[str] = ()) -> TrialRecord | None:
    """Return the record of a run whose evaluation is done, of the weights that its training wrote.

    Args:
        folder: folder of the run.
        trusted: dotted names of networks that the record may name, as in :meth:`TrialRecord.load`.
    """
    training, evaluation = (finished_stage(folder, name) for name in ("training", "evaluation"))
    if training is None or evaluation is None or evaluation.get("inputs") != training.get("outputs"):
        return None
    return TrialRecord.load(Path(folder) / "record.json", trusted)


def load_trained(network: Any, weights_file: str | os.PathLike) -> Any:
    """Load the weights that a run left into its network; they must be those that it wrote.

    Weights that belong to no run, such as a file that was downloaded, are loaded as they are.

    Args:
        network: network of the run's config.
        weights_file: path of the file; beside it lies the ``run.json`` of its run.

    Returns:
        The network, changed in place.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if the file was damaged or replaced, is that of another network, or the run is not over.
    """
    path = Path(weights_file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: the command that trains the network writes it.")
    run = read_run(path.parent)
    if not run and (path.parent / "record.json").exists():
        raise WeightsError(
            f"{path} lies beside a record.json and no run.json, so that nothing says by which settings it was trained: "
            "run the command that trained it again, or give weights in a folder of their own."
        )
    digests = {
        written: digest
        for name in _WRITES_WEIGHTS
        for written, digest in run.get("stages", {}).get(name, {}).get("outputs", {}).items()
    }
    if run and not digests:
        raise WeightsError(
            f"{path} belongs to a training that is not over, by the run.json beside it: the command that began it goes "
            "on with it."
        )
    return load_weights(network, path, digests.get(path.name))
