"""One training of one network, by the bundle's own configs, and the record it leaves."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle.workflows import ConfigWorkflow

from monai_ccnet import __version__
from monai_ccnet.networks.size import NetworkSize, network_size
from monai_ccnet.values import Value, read_json, write_json

__all__ = ["TrialRecord", "run_trial"]


@dataclass(frozen=True)
class TrialRecord(Value):
    """One trained network.

    Attributes:
        dataset: name of the data set.
        network_def: the network's MONAI config.
        recipe: settings of ``train.yaml`` that were given, by their ids.
        size: exact sizes of the network.
        file_bytes: bytes of the file of weights that was written.
        scores: metrics on the test images, by name.
        seconds: of training and evaluation together.
        versions: of the packages, of Python, and of the machine's kind.
    """

    dataset: str
    network_def: dict[str, Any]
    recipe: dict[str, Any]
    size: NetworkSize
    file_bytes: int
    scores: dict[str, float]
    seconds: float
    versions: dict[str, str]


def run_trial(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    **recipe: Any,
) -> TrialRecord:
    """Train and evaluate a network with ``train.yaml`` and ``evaluate.yaml`` of a bundle; do only what is not done yet.

    The folder gets ``trial.json`` (what was asked for) before anything runs, ``model.pt`` after training, and
    ``record.json`` at the end.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for this trial alone.
        network_def: the network's MONAI config, with references resolved.
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``; JSON types.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a trial of another network or recipe.
    """
    output_dir, configs = Path(output_dir), Path(bundle_root) / "configs"
    asked = {"network_def": dict(network_def), "recipe": recipe}
    if (output_dir / "trial.json").exists():
        if (found := read_json(output_dir / "trial.json")) != asked:
            differing = [key for key in {**found["recipe"], **recipe} if found["recipe"].get(key) != recipe.get(key)]
            raise ValueError(
                f"{output_dir} holds a run with another {', '.join(sorted(differing)) or 'network'}: "
                "choose another output_dir, or delete that one."
            )
    else:
        write_json(output_dir / "trial.json", asked)
    if (output_dir / "record.json").exists():
        return TrialRecord.load(output_dir / "record.json")

    start = time.monotonic()
    overrides = {
        **recipe,
        "network_def": dict(network_def),
        "output_dir": str(output_dir),
        "bundle_root": str(bundle_root),
    }
    if not (output_dir / "model.pt").exists():
        _run([configs / "train.yaml"], overrides)
    evaluation = _run([configs / "train.yaml", configs / "evaluate.yaml"], overrides)
    evaluator = evaluation.parser.get_parsed_content("validate#evaluator")
    in_channels, patch_size = (evaluation.parser.get_parsed_content(key) for key in ("in_channels", "patch_size"))
    record = TrialRecord(
        dataset=str(evaluation.parser.get_parsed_content("dataset_json").get("name", "data set")),
        network_def=dict(network_def),
        recipe=recipe,
        size=network_size(network_def, (1, in_channels, *patch_size)),
        file_bytes=os.path.getsize(output_dir / "model.pt"),
        scores={name: float(value) for name, value in evaluator.state.metrics.items()},
        seconds=round(time.monotonic() - start, 1),
        versions={
            "monai_ccnet": __version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    )
    record.save(output_dir / "record.json")
    return record


def _run(config_files: list[Path], overrides: Mapping[str, Any]) -> ConfigWorkflow:
    workflow = ConfigWorkflow(config_file=[str(file) for file in config_files], workflow_type="train", **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow
