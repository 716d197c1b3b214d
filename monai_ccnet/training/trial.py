"""One network trained and evaluated by the bundle's own configs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.workflows import ConfigWorkflow

from monai_ccnet.configs import check_recipe, run_list
from monai_ccnet.files import check_writable
from monai_ccnet.locks import held
from monai_ccnet.names import named_in
from monai_ccnet.networks.building import network_def_of
from monai_ccnet.networks.loading import load_weights
from monai_ccnet.networks.precision import at_precision
from monai_ccnet.networks.scaling import AtScale, scale_of
from monai_ccnet.networks.size import network_size
from monai_ccnet.networks.speed import faster_steps
from monai_ccnet.networks.storage import save_weights, weights_name
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import as_scale
from monai_ccnet.training.asked import NO_RECIPE, asked_of, check_asked
from monai_ccnet.training.run import finish_run, record_of
from monai_ccnet.training.stages import finished_record

__all__ = ["evaluate_network", "full_network_def", "open_trial", "run_trial", "train_network"]


def full_network_def(bundle_root: str | os.PathLike, **overrides: Any) -> dict[str, Any]:
    """Return the config of the network that ``train.yaml`` of a bundle would train, with references resolved.

    Args:
        bundle_root: folder of the bundle.
        overrides: settings of ``train.yaml`` by their ids, such as ``dataset_dir``, which decides the channels.
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
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``. The ``scale`` is that of
            the network, 1 unless it says another one, if none is given.
    """
    if isinstance(network_def, torch.nn.Module):
        own = as_scale(network_def.scale) if isinstance(network_def, AtScale) else 1
    else:
        own = scale_of(network_def)
    recipe = {"scale": own if isinstance(own, int) else list(own), **recipe}
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
        wait: whether to wait for another process that runs this trial, or else raise ``FolderBusyError``.
        recipe: overrides of ``train.yaml`` by their ids, such as ``dataset_dir`` or ``seed``; JSON types.

    Returns:
        The record; of an earlier run, if there is one.

    Raises:
        ValueError: if the folder holds a trial of another network or recipe, or a setting is not known.
        OSError: if the folder cannot be written to.
    """
    workflow = open_trial(bundle_root, output_dir, dict(network_def), **recipe)
    check_writable(output_dir)
    reading = workflow.parser.get_parsed_content("reading")
    check_asked(Path(output_dir), asked_of(workflow.parser, network_def), reading)  # before waiting for another process
    with held(output_dir, wait):
        if (record := finished_record(output_dir, named_in(network_def))) is not None:
            return record
    workflow.initialize()
    given = {key: value for key, value in recipe.items() if key not in NO_RECIPE}
    return finish_run(workflow.parser, network_def, multiplier=multiplier, wait=wait, recipe=given)


def train_network(
    bundle_root: str | os.PathLike, output_dir: str | os.PathLike, network: torch.nn.Module, **recipe: Any
) -> None:
    """Train a network that is there already, in place, with ``train.yaml`` of a bundle.

    Args:
        bundle_root: folder of the bundle.
        output_dir: a folder for what the training leaves.
        network: network of any widths; it is trained on from the weights that it has, on the device and precision of
            the recipe, and then returns to where it was.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.
    """
    device = next(network.parameters()).device
    workflow = open_trial(bundle_root, output_dir, network, **recipe)
    workflow.initialize()
    with faster_steps(network):
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
        output_dir: folder that gets the weights, such as ``model.pt``, and the metrics.
        network: network to evaluate as it is stored: it gets the weights of the file, rounded at few bits.
        network_def: the config that it came from, for the record; the sizes are the network's own.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.
    """
    start, device = time.monotonic(), next(network.parameters()).device
    weights = Path(output_dir) / weights_name(recipe.get("weights_format", "torch"))
    save_weights(network, weights, recipe.get("bits_per_weight", 32))
    load_weights(network, weights)
    workflow = open_trial(bundle_root, output_dir, network, **recipe)
    workflow.initialize()
    run_list(workflow.parser, "test::run")
    given = {key: value for key, value in recipe.items() if key not in NO_RECIPE}
    record = record_of(
        workflow.parser, network_def, recipe=given, seconds=time.monotonic() - start, multiplier=None, losses=()
    )
    return replace(record, size=network_size(network.to(device), record.size.input_shape))
