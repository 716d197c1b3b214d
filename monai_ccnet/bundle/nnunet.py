"""Narrower plans files for nnU-Net, which trains them without an edit."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from monai_ccnet.bundle.runs import constraints_from
from monai_ccnet.constraints import CompressionPlan, compress
from monai_ccnet.files import read_json, shown, write_json
from monai_ccnet.networks.nnunet import ARCHITECTURES, has_architectures

__all__ = ["narrow_nnunet", "nnunet_network_def", "read_plans"]

_REMAKE = "nnUNetv2_plan_and_preprocess makes it"
_OTHERS = ("dataset", "dataset_fingerprint", "splits_final")  # nnU-Net's other files beside its plans
_SIZES = ("n_stages", "features_per_stage", "strides")
_NEEDS = 'pip install "monai_ccnet[nnunet]" to build and count its networks.'


def read_plans(
    plans_file: str | os.PathLike, dataset: str | os.PathLike | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of an nnU-Net plans file, and that of its ``dataset.json``.

    Args:
        plans_file: path of the plans file.
        dataset: folder of the data set, or its ``dataset.json``; by default the one beside the plans file.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if nnU-Net's architectures are not installed, or it is no plans file.
    """
    if not has_architectures:
        raise ValueError(f"nnU-Net's architectures are not installed: {_NEEDS}")
    path = Path(plans_file)
    plans = read_json(path, _REMAKE)
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), Mapping):
        raise ValueError(f"{path} holds no `configurations`: give a plans file of nnU-Net.")
    where = path.parent / "dataset.json" if dataset is None else Path(dataset)
    return plans, read_json(where / "dataset.json" if where.is_dir() else where, _REMAKE)


def nnunet_network_def(
    plans: Mapping[str, Any], configuration: str, dataset: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the config of the network of an nnU-Net plans file, and the shape of a step's input.

    Args:
        plans: content of the plans file.
        configuration: name of one of its configurations, such as ``"3d_fullres"``.
        dataset: content of the ``dataset.json``, which says how many channels and classes there are.

    Raises:
        ValueError: if the configuration is not there, its architecture is of another kind or version, or the data
            set's channels or labels are not said.
    """
    settings = _settings(plans, configuration)
    architecture = settings.get("architecture")
    if not isinstance(architecture, Mapping) or "arch_kwargs" not in architecture:
        raise ValueError("the plans file names no `architecture`: make it anew with nnU-Net 2.4 or later.")
    kind = str(architecture.get("network_class_name")).rsplit(".", 1)[-1]
    if kind not in ARCHITECTURES:
        raise ValueError(f"networks that can be narrowed are {', '.join(ARCHITECTURES)}, got {shown(kind)}.")
    given = architecture["arch_kwargs"]
    _check_sizes(settings, given)
    channels, classes = dataset.get("channel_names"), dataset.get("labels")
    if not isinstance(channels, Mapping) or not isinstance(classes, Mapping):
        raise ValueError("dataset.json must hold `channel_names` and `labels`: give --dataset FOLDER.")
    patch = settings["patch_size"]
    in_channels = len(channels)
    if settings.get("previous_stage") is not None:  # a cascade is given the answers of its previous stage too
        in_channels += len(_labels(classes) - {0})
    network_def = {
        "_target_": "monai_ccnet.networks.nnunet.PlannedByNNUNet",
        "architecture": kind,
        "spatial_dims": len(patch),
        "in_channels": in_channels,
        "out_channels": _answers(classes),
        **{name: given[name] for name in ("features_per_stage", "strides")},
        "arguments": {name: value for name, value in given.items() if name not in _SIZES},
    }
    return network_def, (settings["batch_size"], in_channels, *patch)


def _check_sizes(settings: Mapping[str, Any], given: Any) -> None:
    """Refuse a configuration or its ``arch_kwargs`` whose sizes are missing or do not fit each other."""
    given = given if isinstance(given, Mapping) else {}
    patch, widths, strides = settings.get("patch_size"), given.get("features_per_stage"), given.get("strides")
    stages, axes = (len(each) if isinstance(each, list) else 0 for each in (widths, patch))
    by_axis = (
        [each if isinstance(each, list) else [each] * axes for each in strides] if isinstance(strides, list) else []
    )
    for name, value, fits, allowed in (
        ("batch_size", settings.get("batch_size"), _positive([settings.get("batch_size")]), "a whole number from 1 on"),
        ("patch_size", patch, axes in (2, 3) and _positive(patch), "a list of 2 or 3 lengths"),
        ("features_per_stage", widths, stages > 1 and _positive(widths), "a list of at least 2 widths"),
        ("n_stages", given.get("n_stages"), given.get("n_stages") == stages, f"{stages}, as many as there are widths"),
        (
            "strides",
            strides,
            len(by_axis) == stages and all(len(each) == axes and _positive(each) for each in by_axis),
            f"a list of {stages} strides, each of {axes} whole numbers from 1 on",
        ),
    ):
        if not fits:
            raise ValueError(f"{name} must be {allowed}, got {shown(value)}: correct the plans file ({_REMAKE}).")


def _positive(values: Any) -> bool:
    return all(type(each) is int and each > 0 for each in values)


def _settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return the settings of a configuration, with those that it inherits from others."""
    found = plans.get("configurations")
    if not isinstance(found, Mapping) or configuration not in found:
        known = sorted(found) if isinstance(found, Mapping) else []
        raise ValueError(f"configuration must be one of {', '.join(known) or 'none'}, got {shown(configuration)}.")
    settings: dict[str, Any] = {}
    left, name = set(found), configuration
    while name is not None:
        if not isinstance(name, str) or name not in left:
            raise ValueError(
                f"configuration {shown(name)}, from which another inherits, is missing or inherits from itself."
            )
        if not isinstance(found[name], Mapping):
            raise ValueError(f"configuration {name} must be a dictionary of settings, got {shown(found[name])}.")
        left.remove(name)
        settings, name = {**found[name], **settings}, found[name].get("inherits_from")
    return settings


def _labels(classes: Mapping[str, Any]) -> set[int]:
    """Return the numbers of the labels, each once, of which regions may hold several; without the one to ignore."""
    try:
        return {int(each) for name, value in classes.items() if name != "ignore" for each in ensure_tuple(value)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"labels must be names with their numbers or lists of them, got {shown(classes)}.") from error


def _answers(classes: Mapping[str, Any]) -> int:
    """Return the number of answers of a network: one a label, or where labels are regions one a region."""
    kept = [set(ensure_tuple(value)) for name, value in classes.items() if name != "ignore"]
    regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in classes.values())
    return sum(value != {0} for value in kept) if regions else len(_labels(classes))


def narrow_nnunet(
    plans_file: str | os.PathLike | None,
    *,
    configuration: str = "3d_fullres",
    dataset: str | os.PathLike | None = None,
    layerwise: bool = True,
    name: str | None = None,
    force: bool = False,
    **asked: Any,
) -> CompressionPlan:
    """Write a plans file with narrower networks beside an nnU-Net plans file, which stays as it is.

    The new file differs in ``features_per_stage`` of one configuration and in ``plans_name``; configurations that
    inherit from it get their former architecture written out. Preprocessed data are shared. A disk budget counts the
    network's state dict as :func:`~monai_ccnet.networks.save_weights` writes it; nnU-Net's own checkpoint holds an
    optimizer too.

    Args:
        plans_file: path of the plans file.
        configuration: configuration whose network is narrowed.
        dataset: folder of the data set, or its ``dataset.json``; by default the one beside the plans file.
        layerwise: whether widths fall from stage to stage, or keep their ratios.
        name: name of the new plans; by default that of the old ones with ``_ccnet``, the configuration and the widths.
        force: whether a plans file of that name with other content is replaced.
        asked: budgets and floors, as :func:`constraints_from` takes them, for a step's patch and batch.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: if a file is missing.
        FileExistsError: if there is a file of that name with other content.
        ValueError: if no file is named, or it cannot be narrowed; the message says why.
        InfeasibleConstraintError: if no width meets the constraints.
    """
    if not plans_file:
        raise ValueError("name the plans file: monai-ccnet nnunet PLANS.json --budget_bytes N.")
    plans, described = read_plans(plans_file, dataset)
    path = Path(plans_file)
    if name in (path.stem, *_OTHERS):
        raise ValueError(f"the new plans cannot be named {shown(name)}: {path.with_name(name)}.json stays as it is.")
    if name is not None and ("__" in name or not re.fullmatch(r"[\w-]+", name)):
        raise ValueError(
            f"plans_name must be of letters, digits, - and single _, got {shown(name)}: give no folder and no .json; "
            "the file is written beside the first one."
        )
    network_def, shape = nnunet_network_def(plans, configuration, described)
    plan = compress(
        network_def, constraints_from(shape, **asked), layerwise=layerwise, allocation="taper", input_shape=shape
    )
    named = name or f"{path.stem}_ccnet_{configuration}_{'-'.join(map(str, plan.channels))}"
    beside = path.with_name(f"{named}.json")
    changed = copy.deepcopy(dict(plans))
    changed["plans_name"] = named
    holder = changed["configurations"][configuration]
    architecture = _settings(plans, configuration)["architecture"]
    for each in changed["configurations"].values():  # those that inherit it keep it as it was
        if isinstance(each, dict) and each.get("inherits_from") == configuration:
            each.setdefault("architecture", architecture)
    # Where it is inherited, the narrowed one is this configuration's own.
    holder["architecture"] = copy.deepcopy(architecture)
    holder["architecture"]["arch_kwargs"]["features_per_stage"] = list(plan.channels)
    if beside.exists() and not force and read_json(beside, "delete it") != changed:
        raise FileExistsError(f"{beside} is there already and differs: give another --plans_name, or --force true.")
    write_json(beside, changed)
    print(
        plan,
        f"Written: {beside}. Train it with nnU-Net's own command:",
        f"nnUNetv2_train {plans.get('dataset_name', 'DATASET')} {configuration} FOLD -p {named}",
        sep="\n",
    )
    return plan
