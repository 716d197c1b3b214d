"""The settings of the bundle's configs: what each may be, and what it means.

The one place that the check of a run, the command's help and the docs' table take them from; their defaults are those
of the configs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["SETTINGS", "Setting", "check_value", "unknown_setting"]


class Setting(NamedTuple):
    """What a setting may be, a key of ``KINDS``, and what it means: a noun phrase with its unit.

    Where ``choices`` are given, it may be nothing else than one of them.
    """

    kind: str
    meaning: str
    choices: tuple[Any, ...] = ()


SETTINGS: dict[str, Setting] = {
    # where
    "dataset_dir": Setting("path", "folder of the data set, with its `dataset.json`"),
    "output_dir": Setting("path", "folder for what the run leaves"),
    "bundle_root": Setting("path", "folder of the bundle"),
    "bundle_dir": Setting(
        "path or none",
        "folder of a bundle or an Auto3DSeg algorithm, whose code is trusted and run; for `audit` nnU-Net's plans too",
    ),
    "weights": Setting("path or none", "file of the weights: a state dict, or a checkpoint that holds one"),
    "plans": Setting("path or none", "plans file of nnU-Net"),
    "configuration": Setting("text", "configuration of the plans file, such as `2d` or `3d_fullres`"),
    "dataset": Setting("any", "folder with the `dataset.json`, or that file; by default beside the plans file"),
    "plans_name": Setting("text or none", "name of the new plans"),
    "json": Setting("True or False", "whether the result is printed as JSON, for machines"),
    "device": Setting("any", "torch device of training and evaluation"),
    # what must hold
    "budget_bytes": Setting("whole number from 1 or none", "largest size of the file of weights, in bytes"),
    "budget_memory_bytes": Setting(
        "whole number from 1 or none", "most memory for weights and activations of a patch, in bytes"
    ),
    "budget_macs": Setting("whole number from 1 or none", "most multiply-adds of a patch"),
    "budget_latency_seconds": Setting("number above 0 or none", "longest time of a patch on this machine, in seconds"),
    "min_score": Setting(
        "number above 0 and at most 1 or none",
        "least score relative to the full-size network's, above 0 and at most 1; 0.95 without a budget",
    ),
    "confidence": Setting(
        "number above 0 and below 1 or none",
        "probability with which a training is to keep the least score; without one the prediction alone is to keep it, "
        "and if nothing is asked for it is 0.9 where the network was measured",
    ),
    "minimise": Setting("text", "size that is to be small: `bytes`, `macs` or `memory`", ("bytes", "macs", "memory")),
    "max_cost": Setting(
        "number above 0", "most multiply-adds of a search, as a share of one training of the full-size network"
    ),
    "bits_per_weight": Setting(
        "whole number", "bits of a stored weight: 32, 16 (half precision) or 8 (int8 kernels)", (8, 16, 32, 64)
    ),
    "count": Setting(
        "text",
        "what a disk budget counts beside the file: `parameters`, or `weights` (kernels alone)",
        ("parameters", "weights"),
    ),
    "weights_format": Setting(
        "text",
        "format of the file of weights: `torch`, or `safetensors`, as model hubs expect it",
        ("torch", "safetensors"),
    ),
    "wait": Setting(
        "True or False", "whether to wait for another process that works in the folder; `--no-wait` leaves instead"
    ),
    "traceback": Setting(
        "True or False", "whether an error shows its traceback; otherwise a file holds it, which the last line names"
    ),
    "trusted": Setting(
        "list of dotted names",
        "networks of your own, by dotted names such as `['my_package.MyNet']`, that files in the folder may name: "
        "their code is run",
    ),
    # the data
    "held_out_by": Setting(
        "text",
        "key by which a part of training is held out where no test image has a label: `subject`, `file_name` (up to "
        "the first underscore), `image`, or `auto` (subjects if the list names them)",
        ("auto", "subject", "file_name", "image"),
    ),
    "label_values": Setting("settings or none", "class of each value in the labels, such as `{0: 0, 255: 1}`"),
    "spacing": Setting(
        "list of at least one number above 0 or none",
        "size of a voxel in millimetres (right, anterior, superior) to which volumes are resampled",
    ),
    "allow_overlap": Setting("True or False", "whether an image may be in training and in test"),
    "force": Setting("True or False", "whether what an earlier run left is written anew"),
    # how it is planned
    "layerwise": Setting("True or False", "whether each stage has a width of its own"),
    "allocation": Setting("text", "rule by which stages share: `taper`, or `complexity` (the paper's)"),
    "law": Setting("text", "law that predicts the score: `calibrated`, `paper`, or the file of one of your own"),
    "measure": Setting("text or none", "measure of complexity; by default the one that the law holds for"),
    "scales": Setting(
        "list of at least one whole number from 1", "subsampling factors at which complexity is measured"
    ),
    "scale": Setting(
        "scale",
        "working scale, by which the network averages its input down and interpolates its answer up: a whole number, "
        "one for each axis, `auto` for the coarsest at which the labels lose next to nothing, or `any` for a coarser "
        "one yet where a budget asks for it",
    ),
    "smallest_structure": Setting(
        "number above 0 or none",
        "size of the smallest structure that must not vanish at the working scale, in millimetres where labels have a "
        "spacing, else in pixels",
    ),
    "scale_roi": Setting(
        "True or False", "whether the other bundle's crops and windows are multiplied by the working scale"
    ),
    "image_shape": Setting(
        "list of at least one whole number from 1 or none",
        "shape (B, C, H, W[, D]) of a whole image for which sizes are stated too",
    ),
    "measure_settings": Setting("settings", "settings of the measure"),
    "widths": Setting(
        "widths or none",
        "place where an unknown network holds its widths: `{argument: ..., scales: [...]}`, or `auto` to find it",
    ),
    "input_shape": Setting(
        "list of at least one whole number from 1 or none", "shape (B, C, H, W[, D]) for which sizes are stated"
    ),
    "channels": Setting("list of at least one whole number from 1", "channels of each stage of the full-size network"),
    "full_size_score": Setting(
        "number above 0 and at most 1 or none", "score of the full-size network, where it is known"
    ),
    # how it is trained
    "max_epochs": Setting("whole number from 1", "number of epochs"),
    "epoch_length": Setting("whole number from 1", "number of steps of an epoch"),
    "batch_size": Setting("whole number from 1", "number of patches of a step"),
    "patch_size": Setting("list of at least one whole number from 1", "size of a patch in pixels or voxels"),
    "overlap": Setting(
        "number from 0 and below 1", "overlap of the patches in which a whole image is segmented, as a share"
    ),
    "learning_rate": Setting("number above 0", "highest learning rate"),
    "warmup_steps": Setting("whole number from 0", "number of steps over which the learning rate rises"),
    "rate_cycles": Setting(
        "number from 0", "cosine cycles over which the learning rate falls: 0.5 to 0 at the end, 0 for a fixed rate"
    ),
    "lambda_dice": Setting("number from 0", "weight of the Dice loss beside cross-entropy"),
    "precision": Setting(
        "text",
        "precision of training: `float32`, `bfloat16`, `float16`, or `auto` for `bfloat16` where the processor "
        "calculates it natively",
        ("auto", "float32", "bfloat16", "float16"),
    ),
    "seed": Setting("whole number from 0", "seed of the training"),
    "val_interval": Setting("whole number from 1", "number of epochs from one validation to the next"),
    "cache_rate": Setting("number from 0 to 1", "share of the training images that are kept in memory"),
    "num_workers": Setting("whole number from 0", "number of processes that load images"),
    "training": Setting("settings", "settings of train.yaml, by their ids, for each training run"),
    "recipe": Setting(
        "text",
        "recipe of the training: `planned`, which follows from the training images, or `paper` (cross-entropy, "
        "128 x 128 patches, a fixed rate, ReLU, full resolution); settings of train.yaml go into `training`",
        ("planned", "paper"),
    ),
    "symmetry": Setting(
        "text",
        "symmetry by which training images are flipped and turned: `all` (both flips and right-angle turns), `mirror` "
        "(left and right alone) or `none`",
        ("all", "mirror", "none"),
    ),
    "activation": Setting("any", "activation of the network, in MONAI's terms"),
    # measuring, calibrating, comparing
    "table": Setting("path", "CSV file of the complexity of each image"),
    "tolerance": Setting(
        "number above 0 or none",
        "largest half-width of the mean's 95 % interval, as a share of the mean (`measure`), or share of the score of "
        "any wider network that may be lost, 0.02 or 1 - `min_score` (`search`)",
    ),
    "n_jobs": Setting("whole number other than 0 or none", "number of processes"),
    "backend": Setting("text or none", "joblib backend: `dask` or `ray` on a cluster"),
    "pictures": Setting("True or False", "whether pictures are drawn"),
    "dataset_dirs": Setting("list", "folders of the data sets"),
    "multipliers": Setting(
        "list of at least one number above 0 and at most 1",
        "channels per channel of the full-size network, of each training run",
    ),
    "seeds": Setting("list of at least one whole number from 0", "seeds of the training runs"),
    "measures": Setting("list", "measures of complexity that are tried"),
    "metric": Setting("text", "score that the law predicts: `f1` or `iu`", ("f1", "iu")),
    "curvature": Setting("number or none", "curvature of the law, 0 for the paper's line; none to fit it"),
    "omegas": Setting(
        "list of numbers from 0 to 1", "shares of image complexity that are tried in its mix with the label's"
    ),
    "source": Setting("text", "origin of the law, as its predictions name it"),
    "methods": Setting("list", "methods to compare"),
    "budgets_bytes": Setting("list of whole numbers from 1", "budgets for the file of weights, in bytes"),
    "budgets_macs": Setting("list of whole numbers from 1", "budgets for the multiply-adds of a patch"),
    "floors": Setting("list of numbers above 0 and at most 1", "least scores relative to the full-size network's"),
    "plan_file": Setting("path", "file of the plan"),
    "plan_dir": Setting("path", "folder of the plan and of the weights within the budget"),
    "save_execute_config": Setting("any", "MONAI's setting of experiment tracking"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_from(least: int) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and value >= least


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 1


def _list_of(is_one: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and len(value) >= least and all(map(is_one, value))


KINDS: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "path": lambda value: hasattr(value, "__fspath__") or (isinstance(value, str) and value != ""),
    "text": lambda value: isinstance(value, str) or hasattr(value, "__fspath__"),
    "number": _is_number,
    "number from 0": lambda value: _is_number(value) and value >= 0,
    "number from 0 to 1": lambda value: _is_number(value) and 0 <= value <= 1,
    "number from 0 and below 1": lambda value: _is_number(value) and 0 <= value < 1,
    "number above 0": lambda value: _is_number(value) and value > 0,
    "number above 0 and below 1": lambda value: _is_number(value) and 0 < value < 1,
    "number above 0 and at most 1": _is_share,
    "whole number": _is_whole,
    "whole number from 0": _whole_from(0),
    "whole number from 1": _whole_from(1),
    "whole number other than 0": lambda value: _is_whole(value) and value != 0,
    "True or False": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, (list, tuple)),
    "list of dotted names": _list_of(lambda value: isinstance(value, str) and "." in value),
    "list of whole numbers from 1": _list_of(_whole_from(1)),
    "list of at least one whole number from 0": _list_of(_whole_from(0), least=1),
    "list of at least one whole number from 1": _list_of(_whole_from(1), least=1),
    "list of at least one number above 0": _list_of(lambda value: _is_number(value) and value > 0, least=1),
    "list of numbers from 0 to 1": _list_of(lambda value: _is_number(value) and 0 <= value <= 1),
    "list of numbers above 0 and at most 1": _list_of(_is_share),
    "list of at least one number above 0 and at most 1": _list_of(_is_share, least=1),
    "settings": lambda value: isinstance(value, Mapping),
    "scale": lambda value: (
        value in ("auto", "any") or _whole_from(1)(value) or _list_of(_whole_from(1), least=1)(value)
    ),
    "widths": lambda value: value == "auto" or isinstance(value, Mapping),
}


def check_value(name: str, value: Any) -> Any:
    """Return the value of a setting as a run takes it, or refuse it.

    A number that stands for a name, such as the folder ``2026``, becomes text. Expressions and references are not
    looked at.

    Args:
        name: a key of :data:`SETTINGS`; of other ids any value is allowed.
        value: the value that was given.

    Raises:
        ValueError: if it is of another kind or out of range, or a path holds ``::``, into which MONAI turns ``#``.

    >>> check_value("output_dir", 2026), check_value("layerwise", False)
    ('2026', False)
    """
    if name not in SETTINGS or (isinstance(value, str) and value[:1] in ("$", "@", "%")):
        return value
    kind, meaning, choices = SETTINGS[name]
    options = kind.split(" or none")
    if len(options) > 1 and value is None:
        return value
    if options[0] in ("path", "text") and _is_number(value):
        value = str(value)
    if not KINDS[options[0]](value) or (choices and value not in choices):
        allowed = {
            "path": "a path",
            "text": "text",
            "settings": "a dictionary",
            "scale": "a whole number from 1, a list of one for each axis, 'auto' or 'any'",
            "widths": "a dictionary or 'auto'",
        }.get(options[0], kind if options[0] == "True or False" else f"a {options[0]}")
        allowed = f"one of {', '.join(map(str, choices))}" if choices else allowed
        none = " or None" if len(options) > 1 else ""
        raise ValueError(f"{name} must be {allowed}{none}, got {value!r}: it is the {meaning}.")
    if options[0] == "path" and isinstance(value, str) and ("::" in value or "#" in value):
        raise ValueError(
            f"{name} is {value!r}: MONAI reads '#' and '::' in a config as steps into it, so that monai.bundle cannot "
            "be given such a path; choose another path, or use the command monai-ccnet, which takes any."
        )
    return value


def unknown_setting(name: str, known: Iterable[str], where: str) -> ValueError:
    """Return the error for a setting that is not known, with the nearest that is.

    >>> raise unknown_setting("budget_byte", ["budget_bytes", "seed"], "compress.yaml")
    Traceback (most recent call last):
    ValueError: compress.yaml knows no setting 'budget_byte': did you mean 'budget_bytes'?
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    words = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(sorted(known))}."
    return ValueError(f"{where} knows no setting {name!r}: {words}")
