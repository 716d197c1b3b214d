"""One training of one network, by the bundle's own configs, and the record it leaves."""

from __future__ import annotations

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
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.files import check_writable, read_json, write_json
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.size import network_size
from monai_ccnet.networks.storage import load_weights, save_weights
from monai_ccnet.records import TrialRecord, evaluated_record

__all__ = ["check_output_dir", "evaluate_network", "full_network_def", "run_trial", "train_network"]


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


def run_trial(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    *,
    multiplier: float | None = None,
    wait: bool = True,
    plan: CompressionPlan | None = None,
    tracking: str | None = None,
    **recipe: Any,
) -> TrialRecord:
    """Train and evaluate a network with ``train.yaml`` and ``evaluate.yaml`` of a bundle; do only what is not done yet.

    The folder gets ``trial.json`` (what was asked for) before anything runs, a checkpoint at the end of each epoch,
    ``model.pt`` after training, and ``record.json`` at the end. A training that was interrupted goes on from its last
    checkpoint. Two processes never run the trial of one folder at once.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for this trial alone.
        network_def: the network's MONAI config, with references resolved.
        multiplier: channels per channel of the full-size network, to be recorded.
        wait: whether to wait for another process that runs this trial, or else raise ``filelock.Timeout``.
        plan: what was planned: training another network is refused, and so is a file above a budget; its numbers stand
            among the metrics of the training (``tracked.yaml``).
        tracking: ``"mlflow"``, or what else ``monai.bundle run --tracking`` takes.
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``; JSON types.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a trial of another network or recipe.
        OSError: if the folder cannot be written to.
        InfeasibleConstraintError: if the file of weights is larger than the plan's budget.
    """
    output_dir, asked = Path(output_dir), {"network_def": dict(network_def), "recipe": recipe}
    check_writable(output_dir)
    _check_asked(output_dir, asked)  # before waiting for another process as well
    with FileLock(output_dir / ".lock", timeout=-1 if wait else 0):
        if not _check_asked(output_dir, asked):
            write_json(output_dir / "trial.json", asked)
        if (output_dir / "record.json").exists():
            record = TrialRecord.load(output_dir / "record.json")
            if record.error is None:
                return record
        record = _train_and_evaluate(
            Path(bundle_root), output_dir, dict(network_def), multiplier, plan, tracking, recipe
        )
        record.save(output_dir / "record.json")
        return record


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
    if not (profile_file.exists() and (Path(output_dir) / "trial.json").exists()):
        return
    known = ComplexityProfile.load(profile_file)
    asked = (dataset, measure_settings(measure, **settings), tuple(sorted(set(scales))))
    if (known.dataset, known.settings, known.scales) != asked:
        raise ValueError(
            f"{output_dir} holds a run on {known.dataset!r} by {known.settings} at {known.scales}, asked for is "
            f"{dataset!r} by {asked[1]} at {asked[2]}: choose another output_dir, or delete that one."
        )


def _check_asked(output_dir: Path, asked: Mapping[str, Any]) -> bool:
    """Return whether a folder holds a trial, and refuse it if it is of another network or recipe."""
    if not (output_dir / "trial.json").exists():
        return False
    found, recipe = read_json(output_dir / "trial.json"), asked["recipe"]
    if found != asked:
        differing = [key for key in {**found["recipe"], **recipe} if found["recipe"].get(key) != recipe.get(key)]
        raise ValueError(
            f"{output_dir} holds a run with another {', '.join(sorted(differing)) or 'network'}: "
            "choose another output_dir, or delete that one."
        )
    return True


def _train_and_evaluate(
    bundle_root: Path,
    output_dir: Path,
    network_def: dict[str, Any],
    multiplier: float | None,
    plan: CompressionPlan | None,
    tracking: str | None,
    recipe: dict[str, Any],
) -> TrialRecord:
    start, configs = time.monotonic(), bundle_root / "configs"
    places = {"output_dir": str(output_dir), "bundle_root": str(bundle_root)}
    overrides = {**recipe, "network_def": network_def, **places}
    training = output_dir / "training.json"  # what training leaves for the record, should evaluation be interrupted
    if not ((output_dir / "model.pt").exists() and training.exists()):
        planned = [] if plan is None else [configs / "tracked.yaml"]
        trained = _run([configs / "train.yaml", *planned], {**overrides, "plan": plan}, tracking, "training").parser
        losses = trained.get_parsed_content("history").losses
        write_json(training, {"losses": losses, "seconds": time.monotonic() - start})
        start = time.monotonic()
    parser = _run([configs / "train.yaml", configs / "evaluate.yaml"], overrides, tracking, "evaluation").parser
    left = read_json(training)
    seconds, file_bytes = left["seconds"] + time.monotonic() - start, os.path.getsize(output_dir / "model.pt")
    return _record(parser, network_def, multiplier, recipe, file_bytes, left["losses"], seconds)


def _record(
    parser: ConfigParser,
    network_def: Mapping[str, Any],
    multiplier: float | None,
    recipe: Mapping[str, Any],
    file_bytes: int,
    losses: Sequence[float],
    seconds: float,
) -> TrialRecord:
    evaluator = parser.get_parsed_content("validate#evaluator")
    in_channels, patch_size = (parser.get_parsed_content(key) for key in ("in_channels", "patch_size"))
    return evaluated_record(
        evaluator.state.metrics,
        evaluator.state.metric_details["f1"],
        dataset=str(parser.get_parsed_content("dataset_json").get("name", "data set")),
        network_def=network_def,
        multiplier=multiplier,
        recipe={**_plain_settings(parser), **{key: recipe[key] for key in recipe if key != "dataset_dir"}},
        input_shape=(1, in_channels, *patch_size),
        file_bytes=file_bytes,
        losses=losses,
        seconds=round(seconds, 1),
    )


def train_network(
    bundle_root: str | os.PathLike, output_dir: str | os.PathLike, network: torch.nn.Module, **recipe: Any
) -> None:
    """Train a network that is there already, in place, with ``train.yaml`` of a bundle.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for what the training leaves.
        network: of any widths; it is trained on from the weights that it has.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.
    """
    places = {"output_dir": str(output_dir), "bundle_root": str(bundle_root)}
    _run([Path(bundle_root) / "configs" / "train.yaml"], {**recipe, "network": network, **places})


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
    start, configs, output_dir = time.monotonic(), Path(bundle_root) / "configs", Path(output_dir)
    file_bytes = save_weights(network, output_dir / "model.pt", recipe.get("bits_per_weight", 32))
    load_weights(network, output_dir / "model.pt")
    places = {"output_dir": str(output_dir), "bundle_root": str(bundle_root)}
    overrides = {**recipe, "network": network, "network_def": dict(network_def), **places}
    parser = _run([configs / "train.yaml", configs / "evaluate.yaml"], overrides).parser
    record = _record(parser, network_def, None, recipe, file_bytes, (), time.monotonic() - start)
    return replace(record, size=network_size(network, record.size.input_shape))


def _run(
    config_files: list[Path], overrides: Mapping[str, Any], tracking: str | None = None, run_name: str = ""
) -> ConfigWorkflow:
    files = [str(file) for file in config_files]
    if tracking is not None:  # a copy of the config would be written as JSON, which a plan or a network is not
        overrides = {"save_execute_config": False, "run_name": run_name, **overrides}
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", tracking=tracking, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def _plain_settings(parser: ConfigParser) -> dict[str, Any]:
    """Return the settings that a run came to, by their ids: numbers, words and lists of them."""
    names = ("max_epochs", "epoch_length", "batch_size", "learning_rate", "patch_size", "seed")

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value

    return {name: plain(parser.get_parsed_content(name)) for name in names if name in parser.get()}
