"""What another bundle's network needs, what it can be narrowed to, or why not: without data, weights or training."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle.config_parser import ConfigParser

from monai_ccnet import bundle_root
from monai_ccnet.bundle.auto3dseg import algorithm_folder, algorithm_network_def
from monai_ccnet.bundle.nnunet import nnunet_network_def, read_plans
from monai_ccnet.bundle.overlay import complete_config
from monai_ccnet.bundle.remedies import (
    at_scales,
    billions,
    fetched_words,
    labels_at_scales,
    scale_lines,
    smaller_ones,
    smaller_words,
    without_unknown,
)
from monai_ccnet.complexity import LabelCeiling
from monai_ccnet.configs import as_described, load_config, parsed_config
from monai_ccnet.constraints import ladder
from monai_ccnet.ending import root_cause
from monai_ccnet.networks import (
    NetworkFamily,
    default_input_shape,
    find_widths,
    network_def_of,
    network_size,
    spatial_dims_of,
)
from monai_ccnet.networks.size import disk_bytes
from monai_ccnet.networks.widths import known_widths

__all__ = ["audit", "audit_words", "describe", "importing", "print_audit"]

_BITS = (32, 16, 8)
_SAVES = 0.5  # of the bytes; where narrowing saves less, smaller networks are named
_STEPS = 3  # of the ladder above the smallest network
_CODE_REFUSES = (ValueError, TypeError, RuntimeError, AssertionError)  # the last three by a network's own code
_FIRST = ("network_def", "network", "net", "model", "generator")
_KINDS = (".json", ".yaml", ".yml")


def audit(bundle_dir: str | os.PathLike | None, dataset_dir: str | os.PathLike | None = None) -> dict[str, Any]:
    """Return what is known of a bundle's network, in JSON types.

    To name a bundle is to trust it: its ``$`` expressions and its own classes are run. Nothing is downloaded, and no
    weights are read.

    Args:
        bundle_dir: folder of the bundle, with its ``configs``; or a plans file of nnU-Net, of which each configuration
            is told in the list ``configurations``; or the folder of an algorithm of Auto3DSeg.
        dataset_dir: folder with a ``dataset.json``, to be told what its labels keep at coarser scales.

    Raises:
        ValueError: if no folder is given.
        FileNotFoundError: if there is no such folder or no config in it.
    """
    if not bundle_dir:
        raise ValueError("name the bundle: monai-ccnet audit FOLDER.")
    folder = Path(bundle_dir)
    if (algorithm := algorithm_folder(folder)) is not None:
        return _audit_algorithm(algorithm, labels_at_scales(dataset_dir))
    if folder.is_file() and folder.suffix == ".json":
        return _audit_plans(folder, labels_at_scales(dataset_dir))
    file = _config_of(folder)
    found: dict[str, Any] = {"bundle": folder.resolve().name, "config": os.path.relpath(file, folder)}
    if (labels := labels_at_scales(dataset_dir)) is not None:
        found["labels"] = labels.to_dict()
    with importing(folder):
        parser = _parser(file, folder)
        try:
            name, network = _network(parser)
        except Exception as error:
            named = parser.get("network_def")
            kind = {"network": _class(named), "id": "network_def"} if isinstance(named, Mapping) else {}
            reason = f"its network cannot be described: {_one_line(error)}{fetched_words(root_cause(error), folder)}"
            return {**found, **kind, "reason": reason}
        found["id"] = name
        if isinstance(network, Mapping):
            network, remove = without_unknown(name, network, folder)
            found |= {"remove": remove} if remove else {}
        windows = _input_of(folder, parser, network)
        try:
            if isinstance(network, torch.nn.Module):
                return {**found, **_whole(network), "reason": _EXPRESSION.format(name=name)}
            known = _known(network, windows, labels)
            return {**found, **known, **_commands(folder, file, known)}
        except Exception as error:
            return {**found, "network": _class(network), "reason": _one_line(error)}


def describe(bundle_dir: str | os.PathLike) -> tuple[Any, tuple[int, ...]]:
    """Return a bundle's network and the shape of the input that its sliding window gives it, within :func:`importing`.

    Args:
        bundle_dir: folder of the bundle.

    Returns:
        The network's config, or the network itself where only an expression says it; and the shape of its windows, or
        of one input.

    Raises:
        FileNotFoundError: if there is no such folder or no config in it.
        ValueError: if no id holds a network.
    """
    if (algorithm := algorithm_folder(bundle_dir)) is not None:
        return algorithm_network_def(algorithm)
    folder = Path(bundle_dir)
    file = _config_of(folder)
    parser = _parser(file, folder)
    _, network = _network(parser)
    shape = _input_of(folder, parser, network).shape
    if shape is None and isinstance(network, Mapping):
        entry = known_widths(network)
        axes = spatial_dims_of(network)
        shape = default_input_shape(network, entry) if entry else (1, network.get("in_channels", 1), *[64] * axes)
    return network, shape or (1, 1, 64, 64)


_STEP = "the patches of a step"  # the tools of both lay windows at half a patch


def _audit_plans(file: Path, labels: LabelCeiling | None) -> dict[str, Any]:
    """Return what is known of the network of each configuration of an nnU-Net plans file."""
    plans, dataset = read_plans(file)
    found = []
    for name in plans["configurations"]:
        said: dict[str, Any] = {"bundle": file.name, "config": name}
        try:
            network, shape = nnunet_network_def(plans, name, dataset)
            said |= {
                "id": "architecture",
                **_known(network, _Windows(shape, _STEP, 0.5), labels),
                "network": network["architecture"],
            }
            said["commands"] = _narrowing(["nnunet", str(file), "--configuration", name], said)
        except Exception as error:
            said["reason"] = _one_line(error).rstrip(".")
        found.append(said)
    return {"plans": file.name, "configurations": found}


def _audit_algorithm(folder: Path, labels: LabelCeiling | None) -> dict[str, Any]:
    """Return what is known of the network of an Auto3DSeg algorithm."""
    said: dict[str, Any] = {"bundle": folder.resolve().name, "config": "configs"}
    try:
        network, shape = algorithm_network_def(folder)
        said |= {"id": "network", **_known(network, _Windows(shape, _STEP, 0.5), labels)}
        return {**said, "commands": _narrowing(["auto3dseg", str(folder)], said)}
    except Exception as error:
        return {**said, "reason": _one_line(error).rstrip(".")}


def _narrowing(words: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """Return the commands that narrow to the smallest network and to the last of the next steps."""
    rungs = [each for each in known.get("narrower", []) if each["channels"] != known["full_channels"]]
    ends = rungs[:: max(len(rungs) - 1, 1)]
    return [f"monai-ccnet {shlex.join(words)} --budget_bytes {each['file_bytes']['32']}" for each in ends]


_EXPRESSION = (
    "{name} is an expression, which builds the network without saying its arguments: to narrow it, describe it as a "
    "class with _target_. Its weights can be stored at fewer bits."
)


def _config_of(folder: Path) -> Path:
    """Return the config that says most of the training: train, or else inference, or else any with a network."""
    configs = folder / "configs"
    if not configs.is_dir():
        raise FileNotFoundError(f"{configs} is missing: give the folder of a bundle, which holds its configs.")
    names = [f"{name}{kind}" for name in ("train", "inference", "evaluate") for kind in _KINDS]
    others = sorted(path.name for path in configs.iterdir() if path.suffix in _KINDS and path.stem != "metadata")
    for name in (*names, *others):
        if (configs / name).is_file():
            return configs / name
    raise FileNotFoundError(f"{configs} holds no config: give the folder of a bundle.")


@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Let the bundle's own packages be imported, and nothing else of it be left behind."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder.resolve())):
                del sys.modules[name]


def _parser(file: Path, folder: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(folder)
    for line in parser.get("imports", []):
        with contextlib.suppress(Exception):  # what the network does not need may be missing here
            ConfigParser({"line": line}).get_parsed_content("line")
    return parser


def _network(parser: ConfigParser) -> tuple[str, Any]:
    """Return the id of the network and its config, or the network itself where only an expression says it.

    Raises:
        ValueError: if no id holds a network.
    """
    config = parser.get()
    named = [key for key in _FIRST if isinstance(config.get(key), Mapping) and "_target_" in config[key]]
    named += [key for key, value in config.items() if key.endswith("_def") and isinstance(value, Mapping)]
    for key in named:
        parser[key] = as_described(config[key])
        return key, network_def_of(parser.get_parsed_content(key))
    if isinstance(config.get("network_def"), str):
        with torch.device("meta"):
            built = parser.get_parsed_content("network_def")
        if isinstance(built, torch.nn.Module):
            return "network_def", built
    raise ValueError(f"no id among {', '.join(_FIRST)} holds a network with _target_")


class _Windows(NamedTuple):
    """Shape of the input that a bundle's sliding window gives its network, ``None`` without one; words; overlap."""

    shape: tuple[int, ...] | None
    words: str
    overlap: Any


def _input_of(folder: Path, parser: ConfigParser, network: Any) -> _Windows:
    parsers = [parser]
    for kind in _KINDS:
        if (path := folder / "configs" / f"inference{kind}").is_file():
            parsers.insert(0, _parser(path, folder))
    channels = network.get("in_channels", 1) if isinstance(network, Mapping) else 1
    for each in parsers:
        for place in _windows(each.get()):
            with contextlib.suppress(Exception):
                roi = each.get_parsed_content(f"{place}::roi_size")
                given = each.get(f"{place}::sw_batch_size") is not None
                batch = int(each.get_parsed_content(f"{place}::sw_batch_size")) if given else 1
                lengths = [int(roi)] * spatial_dims_of(network) if isinstance(roi, int) else list(map(int, roi))
                if all(length > 0 for length in lengths):
                    words = f"{batch} windows of {' x '.join(map(str, lengths))}"
                    given = each.get(f"{place}::overlap") is not None
                    overlap = each.get_parsed_content(f"{place}::overlap") if given else 0.25  # MONAI's
                    return _Windows((batch, int(channels), *lengths), words, overlap)
    return _Windows(None, "", 0.25)


def _windows(config: Any, place: str = "") -> Iterator[str]:
    """Yield the ids of sliding windows in a config."""
    if isinstance(config, Mapping):
        if str(config.get("_target_", "")).endswith("SlidingWindowInferer"):
            yield place
        for key, value in config.items():
            yield from _windows(value, f"{place}::{key}" if place else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from _windows(value, f"{place}::{index}")


def _whole(network: Any) -> dict[str, Any]:
    return {"network": _class(network), "parameters": network_size(network).parameters, "file_bytes": _bytes(network)}


def _bytes(network: Any) -> dict[str, int]:
    return {str(bits): disk_bytes(network, bits) for bits in _BITS}


def _known(network: Mapping[str, Any], windows: _Windows, labels: LabelCeiling | None) -> dict[str, Any]:
    """Return the sizes of a network that its config describes, and those of narrower ones."""
    found: dict[str, Any] = {**_whole(network), "windows": windows.words}
    try:
        family = _family(network, found)
    except _CODE_REFUSES as error:
        found |= {"reason": _one_line(error), "smaller": smaller_ones(network)}
        with contextlib.suppress(*_CODE_REFUSES):  # its answers are no images
            family = NetworkFamily.as_it_is(network)
            found |= at_scales(family, windows.shape or family.input_shape, windows.overlap, labels)
        return found
    input_shape = windows.shape or family.input_shape
    with contextlib.suppress(*_CODE_REFUSES):  # it takes more than an image
        family.check_input_shape(input_shape)
        found |= at_scales(family, input_shape, windows.overlap, labels)
    rungs = ladder(family, "taper" if family.layerwise else None)
    narrower = [(channels, _bytes(family.at(channels))) for channels in rungs[: _STEPS + 1]]
    found["narrower"] = [
        {
            "channels": list(channels),
            "file_bytes": taken,
            "saves": round(1 - taken["32"] / found["file_bytes"]["32"], 4),
        }
        for channels, taken in narrower
    ]
    if found["narrower"][0]["saves"] < _SAVES:
        found["smaller"] = smaller_ones(network)
    smallest = found["narrower"][0]["file_bytes"]
    bits = min(smallest, key=smallest.__getitem__)  # a tiny network may take more at 8 bits than at 16
    return {
        **found,
        "full_channels": list(family.channels),
        "argument": family.argument if isinstance(family.argument, str) else list(family.argument),
        "budgets": [smallest[bits], found["file_bytes"]["32"]],
        "least_bits": int(bits),
    }


def _family(network: Mapping[str, Any], found: dict[str, Any]) -> NetworkFamily:
    """Return the family of a network; where its widths are in no table they are found, and noted.

    Raises:
        ValueError: if nothing narrows it.
    """
    if known_widths(network):
        return NetworkFamily.of(network)
    entry = find_widths(network)
    names = ("argument", "scales", "multiple", "least", "input_size", "tied")
    found["widths"] = {name: getattr(entry, name) for name in names if getattr(entry, name) not in (None, {})}
    return NetworkFamily.of(network, entry)


def _commands(folder: Path, file: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the commands that compress, evaluate and infer with the bundle's own ids; none if nothing can be had.

    A config that only infers or evaluates trains nothing, so that there are none for it either; nor for one that
    ``overlay/compress.yaml`` refuses, whose reason stands beside them.
    """
    if ("scales" not in known and "narrower" not in known) or file.stem in ("inference", "evaluate"):
        return {"commands": []}
    overlay, given = bundle_root() / "configs" / "overlay", f"--bundle_root {folder} --dataset_dir DATA"
    run_id = _run_id(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's, of what the overlay alone has
        parser = ConfigParser(parsed_config([str(file), str(overlay / "compress.yaml")]))
    try:
        complete_config(parser, run_id or "run", "compress")
    except ValueError as error:
        return {"commands": [], "refused": str(error)}
    if narrowed := "narrower" in known:
        least, needs = "N", " --widths auto" if "widths" in known else ""
    else:
        least, needs = known["file_bytes"]["8"], " --bits_per_weight 8 --scale 2 --scale_roi True"
    roi = "" if narrowed else " --scale_roi True"
    ran = f" --run_id {run_id}" if run_id else ""
    python = f"{f'PYTHONPATH={folder} ' if any(folder.glob('*/*.py')) else ''}python"  # their own code
    commands = [
        f"{python} -m monai.bundle run --config_file \"['{file}','{overlay / 'compress.yaml'}']\" {given} "
        f"--budget_bytes {least}{ran}{needs}"
    ]
    for name, before in (("evaluate", f"'{file}',"), ("inference", "")):
        for kind in _KINDS:
            if (path := folder / "configs" / f"{name}{kind}").is_file():
                files = f"[{before}'{path}','{overlay / 'planned.yaml'}']"
                ran = f" --run_id {run_id}" if (run_id := _run_id(path)) else ""
                commands.append(f'{python} -m monai.bundle run --config_file "{files}" {given}{ran}{roi}')
    return {"commands": commands}


def _run_id(file: Path) -> str:
    """Return the id of what a config runs, where it is another than ``run``."""
    config = load_config(file)
    return "" if "run" in config else next(_running(config), "")


def _running(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of lists that run something."""
    for key, value in config.items():
        if isinstance(value, list) and any(isinstance(each, str) and ".run()" in each for each in value):
            yield key


def _class(network: Any) -> str:
    return str(network.get("_target_", "a dictionary")) if isinstance(network, Mapping) else type(network).__name__


def _one_line(error: BaseException) -> str:
    words = " ".join(str(root_cause(error)).split())
    return words.split(" For details about installing the optional dependencies")[0][:400]


def audit_words(found: Mapping[str, Any]) -> list[str]:
    """Return an audit in words.

    Args:
        found: what :func:`audit` returned.
    """
    if "plans" in found:  # nothing of it is run
        return [line for each in found["configurations"] for line in audit_words(each)[1:]]
    lines = [
        f"Trusted, since it was named: the expressions and classes of {found['bundle']} were run. Nothing was "
        "downloaded, and no weights were read."
    ]
    if "network" not in found:
        return [*lines, f"{found['bundle']} ({found['config']}): {found['reason']}."]
    lines.append(f"{found['bundle']} ({found['config']}): {found['id']} is {found['network']}.")
    if "remove" in found:
        lines.append(f"{found['remove']}. All that follows is said without it.")
    if "parameters" in found:
        sizes = ", ".join(f"{found['file_bytes'][str(bits)]:,} at {bits} bits" for bits in _BITS)
        lines.append(f"{found['parameters']:,} parameters; bytes of the file: {sizes}.")
    if "macs" in found:
        shape = " x ".join(map(str, found["input_shape"]))
        lines.append(
            f"For {found['windows'] or 'one input'}, {shape}: {billions(found['macs'])} billion multiply-adds, "
            f"{found['memory_bytes'] / 1e6:,.0f} MB of weights and activations."
        )
        lines += scale_lines(found)
    if "labels" in found:
        lines += str(LabelCeiling.from_dict(found["labels"])).splitlines()
    if "narrower" in found:
        full = "-".join(map(str, found["full_channels"]))
        where = f" (found by trying; to keep it: widths: {json.dumps(found['widths'])})" if "widths" in found else ""
        lines.append(
            f"It is narrowed by {found['argument']}, {full} at full size{where}. The smallest, and the next steps:"
        )
        lines += [
            f"  {'-'.join(map(str, each['channels']))}: "
            + ", ".join(f"{each['file_bytes'][str(bits)]:,} bytes at {bits} bits" for bits in _BITS)
            for each in found["narrower"]
        ]
        least, most = found["budgets"]
        lines.append(f"Budgets that it can meet: from {least:,} bytes ({found['least_bits']} bits) to {most:,}.")
        if (saved := found["narrower"][0]["saves"]) < _SAVES:
            smaller = f": {words}" if (words := smaller_words(found["smaller"])) else ""
            lines.append(
                f"Narrowing saves {saved:.0%} at most: the rest of the network stays. Take a smaller one{smaller}."
            )
    if reason := found.get("reason"):
        lines.append(f"{'It cannot be narrowed' if 'parameters' in found else 'It cannot be built here'}: {reason}")
        if "file_bytes" in found:
            can = [
                f"its weights at 16 or 8 bits, {found['file_bytes']['16']:,} or {found['file_bytes']['8']:,} bytes "
                "(monai-ccnet store FOLDER --output_dir O --bits_per_weight 8)"
            ]
            can += ["a coarser scale, as above, with fewer multiply-adds an image"] if "scales" in found else []
            can += [words] if (words := smaller_words(found.get("smaller", {}))) else []
            lines.append(f"What can be had: {'; '.join(can)}.")
    if "refused" in found:
        lines.append(f"No commands, since overlay/compress.yaml refuses {found['config']}: {found['refused']}")
    return [*lines, *found.get("commands", [])]


def print_audit(
    bundle_dir: str | os.PathLike | None, as_json: bool = False, dataset_dir: str | os.PathLike | None = None
) -> None:
    """Print the audit of a bundle, in words or as JSON."""
    found = audit(bundle_dir, dataset_dir)
    print(json.dumps(found, indent=2) if as_json else "\n".join(audit_words(found)))
