"""Narrower copies of the algorithms that MONAI's Auto3DSeg generates, which train without an edit."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser
from monai.networks.layers.utils import split_args
from monai.utils import ensure_tuple

from monai_ccnet.bundle.runs import constraints_from
from monai_ccnet.configs import as_described
from monai_ccnet.constraints import CompressionPlan, compress
from monai_ccnet.files import folder_atomically, read_json, shown, write_json
from monai_ccnet.networks import network_def_of, spatial_dims_of
from monai_ccnet.networks.building import arguments_of

__all__ = ["algorithm_folder", "algorithm_network_def", "narrow_auto3dseg"]

_MAKES = "give a folder that Auto3DSeg's BundleGen or AutoRunner made, such as work_dir/segresnet_0"
# Settings by which the scripts would take other widths than the planned ones, and by which they load weights.
_CHOOSES_WIDTHS = {"auto_scale_filters": False}
_LOADS_WEIGHTS = {
    "use_pretrain": False,
    "pretrained_ckpt_name": None,
    "finetune::enabled": False,
    "finetune::activate": False,
}
_DINTS = (
    "it is DiNTS, whose cells are a searched architecture in scripts/arch_code.pth, a pickle, which is not loaded "
    "here: nothing can be counted. What can be had: channel_mul 0.5 in configs/network.yaml (about a quarter of the "
    "weights), a coarser training#resample_resolution, or its trained network at 8 bits "
    "(monai_ccnet.networks.save_weights); or narrow segresnet or swinunetr instead"
)


def algorithm_folder(path: str | os.PathLike) -> Path | None:
    """Return the folder of an Auto3DSeg algorithm, given it or one of its configs; ``None`` if it is none."""
    folder = Path(path)
    folder = folder.parent.parent if folder.is_file() and folder.parent.name == "configs" else folder
    needed = (folder / "configs" / "hyper_parameters.yaml", folder / "scripts" / "train.py")
    return folder if all(file.is_file() for file in needed) else None


def _config_files(folder: Path) -> list[Path]:
    """Return the configs of an algorithm, in the order in which Auto3DSeg hands them to its scripts."""
    return sorted(path for path in (folder / "configs").iterdir() if path.suffix in (".yaml", ".json"))


def algorithm_network_def(folder: str | os.PathLike) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the config of the network that an Auto3DSeg algorithm trains, and the shape of a step's input.

    References are resolved as MONAI's ``ConfigParser`` does: expressions that the network refers to are run. Like the
    scripts, an instance normalisation of NVFuser becomes the plain one, whose weights are the same, and anisotropic
    images give a SegResNetDS their resolution.

    Args:
        folder: folder of the algorithm, with its ``configs``.

    Raises:
        ValueError: if no network is described, it is DiNTS, or the template was not filled in.
    """
    folder = Path(folder)
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in _config_files(folder)]))
    config = parser.get()
    network = config.get("network")
    if "training_network" in config or "searching_network" in config:
        raise ValueError(f"{_DINTS}.")
    if not isinstance(network, Mapping) or "_target_" not in network:
        raise ValueError(f"no config of {folder} holds a network with _target_: {_MAKES}.")
    parser["network"] = as_described(network)
    network_def = network_def_of(parser.get_parsed_content("network"))
    if empty := [name for name in ("in_channels", "out_channels") if network_def.get(name, 1) is None]:
        raise ValueError(f"{' and '.join(empty)} of the network in {folder} are not filled in: {_MAKES}.")
    name, options = split_args(network_def.get("norm") or "")
    if str(name).lower() == "instance_nvfuser":
        network_def["norm"] = ["instance", dict(options)] if options else "instance"
    axes = spatial_dims_of(network_def)
    if axes == 3 and network_def["_target_"].endswith("SegResNetDS") and _content(parser, "anisotropic_scales"):
        network_def["resolution"] = list(_content(parser, "resample_resolution"))
    return network_def, _step_shape(parser, network_def, axes)


def _content(parser: ConfigParser, name: str, default: Any = None) -> Any:
    """Return the value of an id with its references resolved, or the default where it is missing or null."""
    found = parser.get_parsed_content(name) if name in parser else None
    return default if found is None else found


def _step_shape(parser: ConfigParser, network_def: Mapping[str, Any], axes: int) -> tuple[int, ...]:
    """Return the shape of what the scripts give the network at once; to a 2-D one all slices of a patch."""
    patch = _content(parser, "roi_size")
    if not isinstance(patch, (list, tuple)) or len(patch) < axes:
        raise ValueError(f"roi_size must hold a length for each axis, got {shown(patch)}: {_MAKES}.")
    crops = _content(parser, "batch_size", 1) * _content(parser, "num_crops_per_image", 1)
    slices = patch[2] if axes == 2 and len(patch) == 3 else 1
    batch = _content(parser, "num_patches_per_iter", crops) * slices
    return (int(batch), int(arguments_of(network_def)["in_channels"]), *map(int, patch[:axes]))


def narrow_auto3dseg(bundle_dir: str | os.PathLike | None, *, force: bool = False, **asked: Any) -> CompressionPlan:
    """Write a narrower copy of an Auto3DSeg algorithm beside its folder, which stays as it is.

    The copy holds the configs and scripts, and where there is one the entry ``algo_object.json`` by which AutoRunner
    finds it; no weights, and no pickle. It differs in the width of its network, in ``bundle_root``, and in settings by
    which the scripts would choose another width or load weights that no longer fit. A disk budget counts the network's
    state dict as :func:`~monai_ccnet.networks.save_weights` writes it.

    Args:
        bundle_dir: folder of the algorithm, such as ``work_dir/segresnet_0``, or its ``hyper_parameters.yaml``.
        force: whether the configs and scripts of an earlier copy of the same width are replaced; what was trained
            stays, and where its network is the same so does its score.
        asked: budgets and floors, as :func:`constraints_from` takes them, for a step's patches.

    Returns:
        The plan.

    Raises:
        FileExistsError: if there is such a copy.
        ValueError: if there is no such folder, or its network cannot be narrowed; the message says why.
        InfeasibleConstraintError: if no width meets the constraints.
    """
    if not bundle_dir:
        raise ValueError("name the algorithm's folder: monai-ccnet auto3dseg FOLDER --budget_bytes N.")
    if (folder := algorithm_folder(bundle_dir)) is None:
        raise ValueError(f"{bundle_dir} has no configs/hyper_parameters.yaml and scripts/train.py: {_MAKES}.")
    network_def, shape = algorithm_network_def(folder)
    plan = compress(network_def, constraints_from(shape, **asked), allocation="taper", input_shape=shape)
    folder, outer = folder.resolve(), (plan.channels[0], plan.channels[-1])
    beside = folder.with_name(f"{folder.name}_ccnet_{'_'.join(map(str, dict.fromkeys(outer)))}")
    if beside.exists() and not force:
        raise FileExistsError(
            f"{beside} is there already: --force true replaces its configs and scripts, and leaves what was trained."
        )
    trained = _trained(beside, plan)
    with contextlib.nullcontext(beside) if beside.exists() else folder_atomically(beside) as place:
        _copy(folder, place)
        changes = {file.name: _change(file, plan, str(beside)) for file in _config_files(place)}
        if (known := folder / "algo_object.json").is_file():
            write_json(place / known.name, _registered(read_json(known), changes, str(beside), trained))
        if algorithm_network_def(place)[0] != plan.network_def:
            raise ValueError(
                f"the configs of {folder} set the network's widths in more than one place: set them in `network` alone."
            )
    off = {name for changed in changes.values() for name in changed}
    print(plan, f"Written: {beside}.", *_words(off, plan), sep="\n")
    print(f"Train it with Auto3DSeg's own command:\n{_command(beside)}")
    return plan


def _copy(folder: Path, place: Path) -> None:
    """Copy the configs and the code of an algorithm."""
    for name in ("configs", "scripts"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.lock")
        shutil.copytree(folder / name, place / name, ignore=unwanted, dirs_exist_ok=True)
    for file in folder.glob("*.py"):  # transforms of one's own
        shutil.copy(file, place)


def _change(file: Path, plan: CompressionPlan, root: str) -> dict[str, Any]:
    """Write what a narrower network changes in a config, and return it by id."""
    parser = ConfigParser(ConfigParser.load_config_file(str(file)))
    changed: dict[str, Any] = {"bundle_root": root} if "bundle_root" in parser else {}
    if isinstance(parser.get("network"), Mapping):
        changed |= {f"network::{name}": plan.network_def[name] for name in ensure_tuple(plan.family.argument)}
    narrower = plan.channels != plan.full_channels
    off = {**_CHOOSES_WIDTHS, **(_LOADS_WEIGHTS if narrower else {})}
    changed |= {name: value for name, value in off.items() if parser.get(name)}
    if changed:
        parser.update(changed)
        kind = "json" if file.suffix == ".json" else "yaml"
        options = {} if kind == "json" else {"default_flow_style": None, "sort_keys": False}
        ConfigParser.export_config_file(parser.get(), str(file), fmt=kind, **options)
    return changed


def _trained(beside: Path, plan: CompressionPlan) -> Mapping[str, Any]:
    """Return what AutoRunner keeps of an earlier copy, or nothing where there is none or its network was another."""
    if not (known := beside / "algo_object.json").is_file() or algorithm_network_def(beside)[0] != plan.network_def:
        return {}
    return read_json(known)


def _registered(
    algorithm: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]], root: str, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what AutoRunner keeps of an algorithm, for its copy: its own score, and filled in as its configs are."""
    best = trained.get("_state_", {}).get("best_metric")
    state = {**algorithm["_state_"], "output_path": root, "best_metric": best}
    filled = state.get("fill_records") or {}
    ids = {
        file: {name.replace("::", "#"): value for name, value in changed.items()} for file, changed in changes.items()
    }
    state["fill_records"] = {file: {**content, **ids.get(file, {})} for file, content in filled.items()}
    kept = {name: trained[name] for name in ("best_metric",) if name in trained}
    return {
        "_target_": algorithm["_target_"],
        "_state_": state,
        "template_path": algorithm.get("template_path"),
        **kept,
    }


def _words(off: set[str], plan: CompressionPlan) -> Iterator[str]:
    """Yield what is to be known of the settings that were switched off."""
    if widths := [name for name in _CHOOSES_WIDTHS if name in off]:
        yield f"Switched off: {', '.join(widths)}, which would take another width than the planned one."
    if weights := [name.replace("::", "#") for name in _LOADS_WEIGHTS if name in off]:
        full = ", ".join(map(str, plan.full_channels))
        yield (
            f"Switched off: {', '.join(weights)}. Weights trained at {plan.family.argument} {full} do not fit: it "
            "learns from the start, which may cost accuracy beyond the prediction."
        )


def _command(folder: Path) -> str:
    files = ",".join(f"'{file}'" for file in _config_files(folder))
    return f'python {shlex.quote(str(folder / "scripts" / "train.py"))} run --config_file "[{files}]"'
