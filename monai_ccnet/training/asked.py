"""What a run was asked for, and what it leaves for others: the network, the data and the recipe, in ``run.json``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser

from monai_ccnet.configs import load_config, resolved, running_workflow, take_over
from monai_ccnet.data.folder import safe_name
from monai_ccnet.data.images import as_paths
from monai_ccnet.data.reading import DataReading
from monai_ccnet.files import check_writable, shown
from monai_ccnet.names import check_network_def
from monai_ccnet.networks.building import build_network
from monai_ccnet.networks.storage import WEIGHTS_FORMATS
from monai_ccnet.scales import as_scale, scale_words
from monai_ccnet.settings import check_value
from monai_ccnet.training.scale import def_at_scale
from monai_ccnet.training.stages import RUN_FILE, read_run

__all__ = [
    "NO_RECIPE",
    "asked_of",
    "check_asked",
    "check_data",
    "evaluation_dir",
    "recipe_of",
    "settings_left",
    "use_settings_left",
]

# What follows from the data or the device: of these the values count, and not where they come from.
_PLANNED = (
    "patch_size",
    "batch_size",
    "max_epochs",
    "lambda_dice",
    "learning_rate",
    "warmup_steps",
    "rate_cycles",
    "spacing",
)

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
    "val_datalist",
    "history",
    "allow_overlap",
    "force",
    "wait",
    "trusted",
    "traceback",
    "reading",
    "weights_file",
    "network_def",
    "scale",
    "smallest_structure",
    "ceiling",
    "working_scale",
    "lengths",
    "divisor",
    "recipe_scale",
    "planned_recipe",
    "planned_batch",
    "used_recipe",
    "used_precision",
    "activation",
    "initialize",
    "run",
    "finalize",
}
_RECIPE_OF_PARTS = {
    "train": {"deterministic_transforms", "random_transforms", "preprocessing", "dataset", "sampler", "inferer"},
    "validate": {"preprocessing", "inferer", "postprocessing"},
}

# Settings of a training run that whoever evaluates or uses its network needs, by their ids in train.yaml.
_LEFT = ("patch_size", "overlap", "spacing", "label_values", "weights_format")
_CHECKED = (*_LEFT, "scale")


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
    ids = load_config(Path(_config_root(parser)) / "train.yaml")
    data = parser.get_parsed_content("data")
    recipe = recipe_of(resolved(parser), list(ids))
    used = {key: parser.get_parsed_content(key) for key in _PLANNED}
    used["precision"] = parser.get_parsed_content("used_precision")
    settings = {key: parser.get_parsed_content(key) for key in _LEFT}
    scale = parser.get_parsed_content("working_scale")
    asked = {
        "network_def": def_at_scale(network_def, scale),
        "data": _data_of(parser.get_parsed_content("reading")),
        "recipe": {**{key: value for key, value in recipe.items() if key != "data"}, **used},
        "settings": {
            **settings,
            "scale": scale,
            "labels": list(data.labels),
            "spatial_dims": parser.get_parsed_content("spatial_dims"),
            "image_files": len(as_paths(data.training[0]["image"])),
        },
    }
    return json.loads(json.dumps(asked, default=str))


def _config_root(parser: ConfigParser) -> str:
    return os.path.join(str(parser.get_parsed_content("bundle_root")), "configs")


def check_asked(folder: Path, asked: Mapping[str, Any], reading: DataReading) -> bool:
    """Return whether a folder holds a run, and refuse it if it is of another network, data set or recipe."""
    if not (found := read_run(folder)):
        if (folder / "trial.json").exists():
            raise ValueError(
                f"{folder} holds a run of release 0.1 (trial.json), which that release can go on with: choose another "
                "output_dir, or delete that one."
            )
        return False
    if not (found["stages"] or any(folder.glob("training_*.pt"))):  # nothing was trained yet
        return all(found.get(key) == value for key, value in asked.items())
    _check_data(folder, found, reading)
    recipes = found.get("recipe", {}), asked["recipe"]
    differing = sorted(key for key in {**recipes[0], **recipes[1]} if recipes[0].get(key) != recipes[1].get(key))
    if differing or found.get("network_def") != asked["network_def"]:
        scales = [each.get("settings", {}).get("scale", 1) for each in (found, asked)]
        if scales[0] != scales[1]:  # from which what is planned follows
            words = f"scale ({scale_words(scales[0])}, asked for is {scale_words(scales[1])})"
            differing = [words, *(key for key in differing if key not in _PLANNED)]
        raise ValueError(
            f"{folder} holds a run with another {', '.join(differing) or 'network'}: choose another output_dir, or "
            "start again with --force True."
        )
    return True


def check_data(output_dir: str | os.PathLike, reading: DataReading) -> None:
    """Refuse a folder whose run is on other data, and say what changed; else keep what was read in ``data.json``.

    Raises:
        ValueError: if the folder holds a run on another data set, or its files have changed since.
        OSError: if the folder cannot be written to.
    """
    check_writable(output_dir)
    folder = Path(output_dir)
    if found := read_run(folder):
        _check_data(folder, found, reading)
    reading.keep(folder / "data.json")


def _check_data(folder: Path, found: Mapping[str, Any], reading: DataReading) -> None:
    if found.get("data") == _data_of(reading):
        return
    words = None
    with contextlib.suppress(OSError, ValueError):  # it only says what changed
        words = reading.differences(DataReading.load(folder / "data.json"))
    name = (found.get("data") or {}).get("name")
    words = words or f"the data set was {name!r} and is {reading.dataset!r}, or its files are others"
    raise ValueError(
        f"{folder} holds a run on other data ({words}): choose another output_dir, or start again with --force True."
    )


def _data_of(reading: DataReading) -> dict[str, str]:
    return {"name": reading.dataset, "digest": reading.digest}


def settings_left(output_dir: str | os.PathLike, trusted: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that a training run left in its folder for whoever uses its network.

    Args:
        output_dir: folder of the run.
        trusted: dotted names of networks that it may name besides MONAI's, torch's and this package's.

    Returns:
        ``network_def``, ``scale``, ``patch_size``, ``overlap``, ``spacing``, ``label_values``, ``weights_format``,
        ``labels`` (names of the classes), ``spatial_dims``, ``image_files`` (files of an image) and ``validate``
        (configs of its evaluation, to be compared and not run); empty if there is no run.

    Raises:
        ValueError: if the file is damaged, or a setting is of another kind or an expression, or its network is of other
            code.
    """
    if not (found := read_run(output_dir)):
        return {}
    settings, network_def = dict(found["settings"]), found["network_def"]
    try:
        for key in _CHECKED:
            if key != "weights_format":
                _check_plain(settings.get(key))
            if key in settings:
                check_value(key, settings[key])
        if settings.setdefault("weights_format", "torch") not in WEIGHTS_FORMATS:
            raise ValueError(f"weights_format must be one of {sorted(WEIGHTS_FORMATS)}.")
        as_scale(settings.setdefault("scale", 1))
        if settings.get("spatial_dims") not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {shown(settings['spatial_dims'])}.")
        if "_target_" in network_def:
            check_network_def(network_def, trusted)
    except ValueError as error:
        raise ValueError(f"{Path(output_dir) / RUN_FILE}: {error}") from error
    described = network_def if "_target_" in network_def else None
    return {**settings, "network_def": described, "validate": found["recipe"].get("validate")}


def _check_plain(value: Any) -> None:
    """Refuse what a config would evaluate."""
    if isinstance(value, str):
        raise ValueError(f"settings hold numbers, got {value[:80]!r}.")
    for each in [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        if not isinstance(value, Mapping) or not str(each).lstrip("-").isdigit():
            _check_plain(each)


def use_settings_left() -> None:
    """Let the running config, which evaluates, use the settings of the training run in its folder.

    What was given to the run itself stays. Without a run in the folder nothing changes.
    """
    parser = running_workflow().parser
    left = settings_left(parser.get_parsed_content("output_dir"), parser.get_parsed_content("trusted"))
    taken = {key: left[key] for key in _CHECKED if key in left}
    if parser.get("plan") is not None:
        taken["scale"] = parser.get_parsed_content("plan").scale
    elif left.get("network_def"):
        taken["network_def"] = build_network(left["network_def"])  # which evaluates nothing in it
    take_over(taken, "train.yaml", "evaluate.yaml")


def evaluation_dir(output_dir: str | os.PathLike, reading: DataReading) -> str:
    """Return the folder for the scores of an evaluation: that of the run, or one below it for other data than its own.

    Args:
        output_dir: folder of the run.
        reading: what was read of the data set on which its network is evaluated.
    """
    if not (found := read_run(output_dir)) or found["data"] == _data_of(reading):
        return str(output_dir)
    folder = Path(output_dir) / f"evaluation-{safe_name(reading.dataset)}"
    print(f"The run in {output_dir} is of other data: the scores on {reading.dataset} are written to {folder}.")
    return str(folder)
