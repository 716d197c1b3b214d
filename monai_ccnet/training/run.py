"""A run in a folder: its training and its evaluation, each done once, and its record at the end."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser

from monai_ccnet.configs import run_list, running_workflow
from monai_ccnet.files import check_writable
from monai_ccnet.handlers import forget_training
from monai_ccnet.locks import held
from monai_ccnet.names import named_in
from monai_ccnet.networks.speed import faster_steps
from monai_ccnet.networks.storage import WEIGHTS_FORMATS, weights_name
from monai_ccnet.records import TrialRecord, constant_score, evaluated_record, failure_words
from monai_ccnet.training.asked import asked_of, check_asked
from monai_ccnet.training.scale import network_def_in
from monai_ccnet.training.stages import RUN_FILE, begin_stages, finish_stage, finished_record, finished_stage

__all__ = [
    "NOT_LEARNED",
    "check_patch",
    "check_space",
    "end_with_score",
    "finish_run",
    "forget_run",
    "record_of",
    "run_alone",
    "run_training",
]


NOT_LEARNED = 3  # exit status of a run whose network has not learned


# What a run leaves that a later one would go on from; without the first, what the others hold is not done.
_STATE = (
    RUN_FILE,
    "record.json",
    "rival.json",
    *map(weights_name, WEIGHTS_FORMATS),
    "data.json",
    "complexity.json",
    "complexity_iu.json",
    "ceiling.json",
    "search.json",
)


def finish_run(
    parser: ConfigParser,
    network_def: Mapping[str, Any],
    *,
    multiplier: float | None = None,
    wait: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> TrialRecord:
    """Run the training and the evaluation of a config, each once, and record what came out.

    The folder gets ``run.json`` (what was asked for, and which stages are done, of which files) before anything runs,
    a checkpoint at the end of each epoch, the weights after training, and ``record.json`` at the end. A training run
    that was interrupted goes on from its last checkpoint. Two processes never work in one folder at once.

    Args:
        parser: parser of ``train.yaml``, ``evaluate.yaml`` and what lies over them. It reads the lists ``train#run``
            and ``test#run``, and then ``outcome``.
        network_def: MONAI config of the network that is trained.
        multiplier: channels per channel of the full-size network, to be recorded.
        wait: whether to wait for another process, or else raise ``FolderBusyError``.
        recipe: settings to be recorded beside those of ``outcome``.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a run of another network, data set or recipe.
        OSError: if the folder cannot be written to.
    """
    folder = Path(parser.get_parsed_content("output_dir"))
    asked = asked_of(parser, network_def)
    network_def = asked["network_def"]
    check_writable(folder)
    check_asked(folder, asked, parser.get_parsed_content("reading"))
    with held(folder, wait):
        _begin(folder, asked, parser)
        if (record := finished_record(folder, named_in(network_def))) is not None:
            return record
        training = finished_stage(folder, "training") or _train(folder, parser)
        forget_training(folder)
        start = time.monotonic()
        run_list(parser, "test::run")
        record = record_of(
            parser,
            network_def,
            multiplier=multiplier,
            recipe=recipe or {},
            losses=training["losses"],
            seconds=training["seconds"] + time.monotonic() - start,
        )
        record.save(folder / "record.json")
        left = [folder / name for name in ("metrics.csv", "f1_raw.csv", "iu_raw.csv")]
        outputs = [folder / "record.json", *filter(Path.is_file, left)]
        finish_stage(folder, "evaluation", outputs, inputs=training["outputs"])
        return record


def run_training() -> None:
    """Train in the running ``train.yaml``, once, and end with a word and status 3 if its network has not learned.

    Judged are the images of its last validation; a run that had none is not judged. In several processes all train,
    and the first looks after the folder.

    Raises:
        SystemExit: with status 3; the weights are written all the same.
        ValueError: if the folder holds a run of another network, data set or recipe.
        FolderBusyError: if another process works there and ``wait`` is ``False``.
        OSError: if the folder cannot be written to, or its disk is too full for checkpoints.
    """
    parser = running_workflow().parser
    folder, first = Path(parser.get_parsed_content("output_dir")), os.environ.get("RANK", "0") == "0"
    with _alone(parser) if first else contextlib.nullcontext():
        if first:
            forget_run(folder, parser.get_parsed_content("force"))
            check_patch(parser.get_parsed_content("patch_size"), parser.get_parsed_content("spatial_dims"))
            _begin(folder, asked_of(parser, network_def_in(parser)), parser)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # none looks for a checkpoint before the first has looked after the folder
        done = finished_stage(folder, "training")
        training = done or _train(folder, parser, first)
        if first:
            forget_training(folder)
    if first and done:
        print(f"The training in {folder} is done already; --force True trains again.")
    judged = training.get("validation")
    if judged and not judged["f1"] > judged["constant_score"]:
        if first:
            print(failure_words(judged["f1"], judged["constant_score"], training["losses"], "validation"))
        raise SystemExit(NOT_LEARNED)


def run_alone(name: str) -> None:
    """Evaluate a list of the running config while no other process works in its ``output_dir``.

    Args:
        name: id of the list, such as ``"steps"``.

    Raises:
        FolderBusyError: if another process works there and ``wait`` is ``False``.
        OSError: if the folder cannot be written to.
    """
    parser = running_workflow().parser
    with _alone(parser):
        run_list(parser, name)


@contextlib.contextmanager
def _alone(parser: ConfigParser) -> Iterator[None]:
    folder = parser.get_parsed_content("output_dir")
    check_writable(folder)
    with held(folder, parser.get_parsed_content("wait")):
        yield


def _begin(folder: Path, asked: Mapping[str, Any], parser: ConfigParser) -> None:
    reading = parser.get_parsed_content("reading")
    if not check_asked(folder, asked, reading):
        forget_training(folder)  # a checkpoint without run.json is of nobody knows what
        begin_stages(folder, asked)
    reading.keep(folder / "data.json")


def _train(folder: Path, parser: ConfigParser, first: bool = True) -> dict[str, Any]:
    """Run the list ``train#run``, and return what the first process states of it."""
    if first:
        check_space(folder, parser.get_parsed_content("network"))
    start = time.monotonic()
    with faster_steps(parser.get_parsed_content("network")):
        run_list(parser, "train::run")
    parser.get_parsed_content("optimizer").zero_grad()  # whose memory the evaluation can use
    facts = {
        "losses": parser.get_parsed_content("history").losses,
        "seconds": time.monotonic() - start,
        "validation": _validation(parser),
    }
    return finish_stage(folder, "training", [parser.get_parsed_content("weights_file")], **facts) if first else facts


def _validation(parser: ConfigParser) -> dict[str, float] | None:
    """Return the F1 of the last validation and that of the best constant answer; ``None`` without a validation."""
    if not parser.get_parsed_content("val_datalist"):
        return None
    state = parser.get_parsed_content("validate::evaluator").state
    details = getattr(state, "metric_details", {}).get("f1")
    if details is None:
        return None
    f1 = float(state.metrics["f1"])
    return {"f1": f1 if math.isfinite(f1) else 0.0, "constant_score": constant_score(details)}


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
    if names or not folder.is_dir():
        return
    for each in [folder, *sorted({path.parent for name in _STATE for path in folder.rglob(name)} - {folder})]:
        with held(each):
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
        weights_file=outcome["weights_file"],
        recipe={**{name: _plain(value) for name, value in outcome["recipe"].items()}, **recipe},
        seconds=round(seconds, 1),
        **fields,
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
