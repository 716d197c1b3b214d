"""A run in a folder: what was asked for, which stages are done, and its record at the end; each stage is done once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monai.bundle.config_parser import ConfigParser

from monai_ccnet.configs import run_list, running_workflow
from monai_ccnet.files import check_writable, read_json, write_json
from monai_ccnet.handlers import forget_training
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.records import TrialRecord, constant_score, evaluated_record, failure_words
from monai_ccnet.training.asked import asked_of, check_asked, resolved

__all__ = [
    "NOT_LEARNED",
    "begin_run",
    "check_patch",
    "check_space",
    "end_training",
    "end_with_score",
    "finish_run",
    "finished_record",
    "forget_run",
    "record_of",
]


NOT_LEARNED = 3  # exit status of a run whose network has not learned


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
    if not parser.get_parsed_content("val_datalist"):
        raise ValueError("val_datalist is empty, so that nobody would see whether the network learns: list images.")
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
    path = os.path.abspath(folder / ".lock")
    return _LOCKS.setdefault(path, FileLock(path, is_singleton=True))


_LOCKS: dict[str, FileLock] = {}  # a lock that nobody holds on to is released


def _begin(folder: Path, asked: Mapping[str, Any], parser: ConfigParser) -> None:
    reading = parser.get_parsed_content("reading")
    if not check_asked(folder, asked, reading):
        forget_training(folder)  # a checkpoint without run.json is of nobody knows what
        write_json(folder / "run.json", {**asked, "stages": {}})
    reading.keep(folder / "data.json")


def _network_def(parser: ConfigParser) -> dict[str, Any]:
    """Return the config of the network of a parser, of which ``plan`` is one, with its references resolved."""
    if parser.get("plan") is not None:
        return dict(parser.get_parsed_content("plan").network_def)
    again = resolved(parser)
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
        if os.environ.get("RANK", "0") == "0":
            print(failure_words(f1, constant, parser.get_parsed_content("history").losses, "validation"))
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
