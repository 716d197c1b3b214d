"""MONAI bundle configs: what a run was given, and parts that a config reads by itself.

An expression in a config sees what it refers to and nothing else. What checks or completes the config of a run is
called from its ``initialize`` list and finds the running workflow on the call stack; what was given to the run is then
the difference between the merged config and its files.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle.config_parser import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, merge_kv
from monai.bundle.workflows import ConfigWorkflow
from monai.utils import ensure_tuple

from monai_ccnet import bundle_root, ending
from monai_ccnet.names import named_in
from monai_ccnet.settings import SETTINGS, check_value, unknown_setting

__all__ = [
    "as_described",
    "check_ids",
    "check_overlay_ids",
    "check_recipe",
    "config_file",
    "describe_network",
    "end_with_cause",
    "given_to_training",
    "load_config",
    "named_networks",
    "network_def_beside",
    "parsed_config",
    "read_parts",
    "resolved",
    "run_list",
    "running_workflow",
    "take_over",
    "texts",
]

_MLFLOW: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS["mlflow"]
_TRACKING = set(_MLFLOW["configs"])
_REFERENCE = re.compile(r"@(\w+)")


def config_file(name: str) -> Path:
    """Return the path of one of the bundle's configs, such as ``"train.yaml"``."""
    return bundle_root() / "configs" / name


def load_config(file: str | Path) -> dict[str, Any]:
    """Return the config of a file as MONAI loads it; the same text is parsed once by a process."""
    return copy.deepcopy(_loaded(str(file), Path(file).read_bytes()))


@functools.lru_cache(maxsize=32)
def _loaded(file: str, content: bytes) -> dict[str, Any]:
    return ConfigParser.load_config_file(file)


def running_workflow() -> ConfigWorkflow:
    """Return the workflow in whose config the call of this stands.

    Raises:
        RuntimeError: if there is none, as when the caller was not called from a config.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(owner := frame.f_locals.get("self"), ConfigWorkflow):
            return owner
        frame = frame.f_back
    raise RuntimeError("this belongs into the config of a MONAI bundle run, and none is running.")


def describe_network() -> None:
    """Let ``network_def`` of the running config be described and not built, also if the run was given a whole one."""
    parser = running_workflow().parser
    if isinstance(parser.get("network_def"), Mapping):
        parser["network_def"] = as_described(parser["network_def"])


def as_described(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's config with ``"_mode_": "callable"``, so that it is described and not built.

    A network within ``AtScale`` is described too.
    """
    described, inner = {**config, "_mode_": "callable"}, config.get("network")
    if isinstance(inner, Mapping) and str(config.get("_target_")).rsplit(".", 1)[-1] == "AtScale":
        described["network"] = as_described(inner)
    return described


def resolved(parser: ConfigParser) -> dict[str, Any]:
    """Return a config as it stands once its relative ids are resolved, whether or not it was parsed before."""
    again = ConfigParser({key: value for key, value in parser.get().items() if key != ConfigParser.meta_key})
    again.resolve_macro_and_relative_ids()
    return again.get()


def run_list(parser: ConfigParser, name: str) -> None:
    """Evaluate a list of expressions of a config one after the other, each with what the ones before left.

    Args:
        parser: parser of the config.
        name: id of the list, such as ``"train::run"``.
    """
    for index in range(len(parser[name])):
        parser.get_parsed_content(f"{name}::{index}")


def read_parts(name: str, *parts: str) -> None:
    """Put a running config over its parts, as if all files had been named on the command line; and check its ids.

    Where the parts were named, nothing is read. Ids that were given to the run stay on top.

    Args:
        name: name of the running config, a file of the bundle.
        parts: names of the files beneath it, the lowest first.

    Raises:
        ValueError: for the first id or value that is refused, with the nearest known id.
    """
    workflow = running_workflow()
    parser, folder = workflow.parser, Path(workflow.config_root_path)
    files = [str(folder / each) for each in (*parts, name)]
    if parts and "train" not in parser:
        given = dict(_given(parser.get(), parsed_config(files[-1:])))
        tracked = "is_not_rank0" in given
        merged = ConfigParser.load_config_files(files)
        parser.set({ConfigParser.meta_key: parser.get(ConfigParser.meta_key, {}), **merged})
        for key, value in given.items():
            parser.set(value, key)
        if tracked:  # MONAI looked for a trainer before there was one
            workflow.patch_bundle_tracking(parser, _MLFLOW)
    training = parser.get("training", {})
    if isinstance(training, Mapping) and training and isinstance(parser.get("train"), Mapping):
        check_recipe(training)
        parser.update(dict(training))
    _check(workflow, files[::-1])


def take_over(settings: Mapping[str, Any], *names: str) -> None:
    """Set ids of the running config, except those that the run itself was given, or given what they refer to.

    Args:
        settings: values by id.
        names: files of the bundle that the config is made of, the lowest first.
    """
    parser = running_workflow().parser
    given = {
        key.split("::")[0] for key, _ in _given(parser.get(), parsed_config(str(config_file(name)) for name in names))
    }
    for key, value in settings.items():
        refers_to = {found for text in texts(parser.get(key)) for found in _REFERENCE.findall(text)}
        if not given & {key, *refers_to}:
            parser[key] = value


def given_to_training(*names: str) -> dict[str, Any]:
    """Return the ids of ``train.yaml`` that the run was given, for further trainings by the same recipe.

    Args:
        names: files of the bundle that the running config is made of, the lowest first. What the last one sets is its
            own, and so are the network, the recipe's name, the seed, and where data and results are.
    """
    files = [str(config_file(name)) for name in names]
    known, own = _merged([str(config_file("train.yaml"))]), load_config(files[-1])
    own_ids = {*own, *_OWN}
    return {
        key: value
        for key, value in _given(running_workflow().parser.get(), parsed_config(files))
        if (first := key.split("::")[0]) in known and first not in own_ids
    }


_OWN = {
    "bundle_root",
    "channels",
    "dataset_dir",
    "force",
    "network_def",
    "output_dir",
    "recipe",
    "scale",
    "seed",
    "wait",
}


def check_ids(*names: str) -> None:
    """Refuse ids of the running config that no file knows and nothing refers to, and values of a wrong kind.

    Args:
        names: files of the bundle that may be part of the run.

    Raises:
        ValueError: for the first id or value that is refused, with the nearest known id.
    """
    workflow = running_workflow()
    folder = Path(workflow.config_root_path)
    beside = [folder / name if (folder / name).is_file() else config_file(name) for name in names]
    _check(workflow, list(map(str, beside)))


def check_overlay_ids(name: str) -> None:
    """Refuse ids of the running config that neither the other bundle nor the overlay knows, and values of a wrong kind.

    Where the run was not started by ``monai.bundle``, the other bundle's files are not known; then only an id that
    nothing refers to and that is nearly the name of another is refused.

    Args:
        name: name of the overlay, a file of this bundle.

    Raises:
        ValueError: for the first id or value that is refused, with the nearest known id.
    """
    workflow = running_workflow()
    parser, ours, theirs = workflow.parser, _merged([str(config_file(name))]), _named_files()
    known = set(ours) | set(_merged(theirs))
    for key in _unknown(workflow, known):
        if theirs and key == "run":
            raise ValueError(f"--run has no effect beside --run_id {workflow.run_id}: leave one of them out.")
        names = known | (set(parser.get()) - {key})
        if theirs or difflib.get_close_matches(key, names, n=1, cutoff=0.8):
            raise unknown_setting(key, names, name)
    _check_values(parser, ours)


def _unknown(workflow: ConfigWorkflow, known: Iterable[str]) -> list[str]:
    """Return the ids of a config that are not known, not referred to, and none of MONAI's own."""
    config = workflow.parser.get()
    referred = {found for text in texts(config) for found in _REFERENCE.findall(text)}
    run_ids = {workflow.run_id, workflow.init_id, workflow.final_id, ConfigParser.meta_key}
    return [key for key in config if key not in {*known, *referred, *run_ids, *_TRACKING}]


def _named_files() -> list[str]:
    """Return the config files that MONAI's command, or its function of the same name, was given."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "create_workflow" and "config_file" in frame.f_locals:
            return [str(file) for file in ensure_tuple(frame.f_locals["config_file"])]
        frame = frame.f_back
    return []


def network_def_beside(name: str) -> Any:
    """Return ``network_def`` of the config files that the run was given, but for one; ``None`` where there is none.

    Args:
        name: name of that one, a file of this bundle.
    """
    ours = config_file(name).resolve()
    return _merged(file for file in _named_files() if Path(file).resolve() != ours).get("network_def")


def named_networks() -> list[str]:
    """Return the dotted names of code in the config files that the run was given: to name a bundle is to trust it.

    Those that are of none of the places that a file may name anyway are printed.
    """
    named = sorted(set().union(*(named_in(load_config(file)) for file in _named_files())))
    own = [
        name for name in named if "." in name and not name.startswith(("monai.", "monai_ccnet.", "torch.", "ignite."))
    ]
    if own:
        print(f"Trusted, since the config files that were named hold it: {', '.join(own)}.")
    return named


def _typed_paths() -> Iterator[tuple[str, str]]:
    """Return the path settings of MONAI's command line as they were typed: of ``a#b`` it hands on ``a`` alone."""
    words = sys.argv[1:]
    if not _is_monais_command():
        return
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in SETTINGS and SETTINGS[name].kind.startswith("path"):
            yield name, value if equals else following


def _is_monais_command() -> bool:
    return Path(sys.argv[0]).parts[-3:-1] == ("monai", "bundle")


def _check_values(parser: ConfigParser, known: Iterable[str]) -> None:
    for key, text in _typed_paths():
        check_value(key, text)
    for key in set(known) & set(parser.get()):
        if (checked := check_value(key, parser[key])) is not parser[key]:
            parser[key] = checked


def _check(workflow: ConfigWorkflow, files: list[str]) -> None:
    parser = workflow.parser
    config, known, name = parser.get(), _merged([*files, *_named_files()]), Path(files[0]).name
    for key in _unknown(workflow, known):
        raise unknown_setting(key, known, name)
    for section in set(config) & set(known):
        ours = known[section]
        if isinstance(ours, Mapping) and isinstance(config[section], Mapping) and _is_section(ours):
            for key in config[section]:
                if key not in ours and not any(f"{section}::{key}" in text for text in texts(config)):
                    raise unknown_setting(f"{section}#{key}", [f"{section}#{each}" for each in ours], name)
    _check_values(parser, config)


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse settings for training runs that train.yaml does not know, or of a wrong kind.

    Args:
        recipe: settings by the ids of train.yaml.

    Raises:
        ValueError: for the first setting that is refused, with the nearest known one.
    """
    known = _merged([str(config_file("train.yaml")), str(config_file("evaluate.yaml"))])
    for key, value in recipe.items():
        if key.replace("#", "::").split("::")[0] not in known:
            raise unknown_setting(key, known, "train.yaml")
        check_value(key, value)


def _is_section(config: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary of a config is a group of ids, and no component's or user's own."""
    return bool(config) and "_target_" not in config


def _merged(files: Iterable[str]) -> dict[str, Any]:
    """Return all ids of some files with their values, of files that lie over others too."""
    merged: dict[str, Any] = {}
    for file in files:
        for key, value in load_config(file).items():
            first, _, rest = key.lstrip("+").replace("#", "::").partition("::")
            if rest:
                section = merged.setdefault(first, {})
                section.setdefault(rest.split("::")[0], value)
            elif isinstance(value, Mapping) and isinstance(merged.get(first), Mapping):
                merged[first] = {**merged[first], **value}
            else:
                merged[first] = value
    return merged


def parsed_config(files: Iterable[str]) -> dict[str, Any]:
    """Return the config of some files, the later over the earlier, as a parser holds it once it was parsed."""
    parser = ConfigParser({})
    for file in files:
        for key, value in load_config(file).items():
            merge_kv(parser, key, value)
    parser.resolve_macro_and_relative_ids()
    return parser.get()


def _given(config: Mapping[str, Any], files: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the ids, with their values, in which a config differs from what its files say."""
    for key, value in config.items():
        ours = files.get(key)
        if prefix + key == ConfigParser.meta_key:
            continue
        if (
            isinstance(value, Mapping)
            and isinstance(ours, Mapping)
            and ours
            and value.get("_target_") == ours.get("_target_")
        ):
            yield from _given(value, ours, f"{prefix}{key}::")
        elif key not in files or type(value) is not type(ours) or value != ours:
            yield prefix + key, value


def texts(config: Any) -> Iterator[str]:
    """Return all strings of a config."""
    if isinstance(config, str):
        yield config
    elif isinstance(config, Mapping):
        for each in config.values():
            yield from texts(each)
    elif isinstance(config, (list, tuple)):
        for each in config:
            yield from texts(each)


def end_with_cause(folder_id: str = "output_dir") -> None:
    """Let the process of the running config end with the cause of an error, or with how to go on, in its last line.

    Args:
        folder_id: id of the folder for the file of a traceback.
    """
    parser = running_workflow().parser
    ending.end_with_cause(str(parser.get_parsed_content(folder_id)), parser.get("traceback", False) is True)
    if _is_monais_command():
        ending.interrupt_in_order()
