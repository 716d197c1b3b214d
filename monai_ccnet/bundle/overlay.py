"""What the overlays do to the configs of another bundle: its network is the planned one, its file the budgeted one.

MONAI makes the imports of a config before anything else of it, wherever they stand among the files. Each overlay
imports a name from here under an id of its own, which no other file takes away, and by that :func:`complete` is called.
Nothing is built then: only the config is changed, and what cannot be changed is refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.configs import (
    as_described,
    config_file,
    end_with_cause,
    load_config,
    named_networks,
    network_def_beside,
    running_workflow,
    texts,
)
from monai_ccnet.constraints import AccuracyFloor, CompressionPlan, DiskBudget
from monai_ccnet.degradation import Law
from monai_ccnet.ending import root_cause
from monai_ccnet.handlers import KeepBest
from monai_ccnet.locks import release
from monai_ccnet.networks import (
    WEIGHTS_FORMATS,
    WeightsError,
    build_network,
    inner_def,
    load_weights,
    network_def_of,
    weights_name,
)
from monai_ccnet.networks.building import NetworkDef, arguments_of, class_of

__all__ = [
    "assumed",
    "complete",
    "complete_config",
    "load_planned",
    "measure_if_possible",
    "planned_network",
    "planned_weights",
    "refuse",
    "save_planned_weights",
]

_REFUSED = "refused"  # id of the message
_FILES = "name the bundle's own config files before the overlay"
_TRAINS = ", with overlay/compress.yaml, or give --planned_weights FILE"
_OWN = "own_network_def"  # id of the bundle's own network, described
_RULE = {"key_metric_name": None, "key_metric_negative_sign": False, "key_metric_greater_or_equal": False}
_KEPT, _WRITTEN = "@keep_best", "$@written"


def __getattr__(name: str) -> bool:
    """Complete the running config for an overlay, whose file imports this name; see the module's first lines.

    What is refused is kept for the network's id, since MONAI passes over the errors of an import.
    """
    if name not in ("compress_overlay", "planned_overlay"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    parser = running_workflow().parser
    try:
        complete(name.partition("_")[0])
    except Exception as error:  # any, since MONAI would pass over it
        parser[_REFUSED] = str(error) if isinstance(error, ValueError) else repr(error)
        parser["network"] = parser["network_def"] = f"$monai_ccnet.bundle.refuse(@{_REFUSED})"
        parser.parse(reset=True)
    return True


def refuse(message: str) -> None:
    """Raise a ``ValueError`` with a message, which is the last line of the process too."""
    with contextlib.suppress(KeyError, ValueError, RuntimeError):  # of a config that is not whole
        end_with_cause("plan_dir")
    raise ValueError(message)


def complete(overlay: str) -> None:
    """Do :func:`complete_config` to the running config.

    A second call changes nothing, and must not: what is set in a config empties what MONAI has made of it.
    """
    workflow = running_workflow()
    parser = workflow.parser
    if _REFUSED in parser:
        raise ValueError(parser[_REFUSED])
    before = repr(parser.get())
    complete_config(parser, workflow.run_id, overlay)
    if repr(parser.get()) != before:
        parser.parse(reset=True)


def complete_config(parser: ConfigParser, run_id: str, overlay: str) -> None:
    """Let a config under an overlay train, or use, the planned network and its file; nothing is built.

    In training the best weights are kept in the file, by the rule of the bundle's own ``CheckpointSaver``, else by the
    key metric of its validator. Elsewhere each of its ``CheckpointLoader`` loads the file.

    Args:
        parser: the config, with relative ids resolved.
        run_id: id of what is run.
        overlay: ``"compress"`` or ``"planned"``.

    Raises:
        ValueError: if another file or an override takes back what the overlay sets, or the run trains nothing, or
            trains without the id of the network.
    """
    name = f"overlay/{overlay}.yaml"
    ours = load_config(config_file(name))
    if overlay == "planned":
        _take_network(parser, name, ours)
    elif parser["network_def"] == ours["+network_def"]:
        raise ValueError(f"no config file has a network_def, which {name} plans: let the bundle's network be that id.")
    elif isinstance(own := parser["network_def"], Mapping) and own != as_described(own):
        parser["network_def"] = as_described(own)
    if overlay == "compress" or parser.get("scale_roi") is True:
        _check_order(parser, name, ours)
    reached = _run_of(parser, run_id, "network" if overlay == "compress" else "network_def")
    if reached and _trains(parser, run_id):
        _keep_best(parser, run_id, reached)
        if overlay == "planned" and parser.get("planned_weights") != ours["planned_weights"]:
            raise ValueError(
                "planned_weights is what evaluation and inference load, and a training would replace it: leave it out, "
                "and the weights are written to plan_dir."
            )
        if overlay == "planned" and parser["starts_with"] is not None:
            parser["starts_with"] = None
    elif reached and overlay == "compress":
        raise ValueError(f"{run_id!r} trains nothing: {_named(parser, run_id) or _FILES}.")
    elif overlay == "planned":
        _load_planned_file(parser)
    if overlay == "compress":
        _find_data(parser, reached or parser.get())


def _take_network(parser: ConfigParser, name: str, ours: Mapping[str, Any]) -> None:
    """Let ``network_def`` be the planned network; a plan from elsewhere is compared with the bundle's own."""
    if (own := parser.get("network_def")) != ours["network_def"]:
        print(f"{name}: network_def is the planned network, in place of the one that is named after the overlay.")
        parser["network_def"] = ours["network_def"]
    elif _OWN not in parser:
        own = network_def_beside(name)
    if _OWN not in parser:
        elsewhere = isinstance(own, Mapping) and parser["plan_dir"] != ours["plan_dir"]
        parser[_OWN] = as_described(own) if elsewhere else None


def _check_order(parser: ConfigParser, name: str, ours: Mapping[str, Any]) -> None:
    """Refuse files and overrides after an overlay that take back what it sets."""
    initialize = parser.get("initialize", [])
    lost = ["network"] if "network" in ours and parser.get("network") != ours["network"] else []
    lost += [] if all(each in initialize for each in ours["+initialize"]) else ["initialize"]
    if lost:
        raise ValueError(
            f"{name} must be the last of the config files: what comes after it sets {' and '.join(lost)} again, so "
            "that another network than the planned one would be trained."
        )


def _run_of(parser: ConfigParser, run_id: str, network: str) -> dict[str, Any]:
    """Return what a run leads to, by id; nothing if it is empty."""
    if run_id not in parser:
        raise ValueError(f"there is no {run_id!r} in the config files: {_named(parser, run_id) or _FILES}.")
    reached = _reached(parser, run_id) if parser[run_id] else {}
    if reached and network not in reached:
        ways = [*filter(None, [_named(parser, run_id)]), "let the bundle's engines refer to @network"]
        raise ValueError(
            f"{run_id!r} does not lead to the id {network!r}, which the overlay makes the planned network: "
            f"{', or '.join(ways)}."
        )
    return reached


def _named(parser: ConfigParser, run_id: str) -> str:
    """Return in words which other lists of a config run something; nothing if none does."""
    runs = [
        key
        for key, value in parser.get().items()
        if key != run_id and isinstance(value, list) and any(".run()" in text for text in texts(value))
    ]
    return f"give --run_id {' or '.join(runs)}" if runs else ""


def _reached(parser: ConfigParser, start: str, through_evaluators: bool = True) -> dict[str, Any]:
    """Return the config at an id and all that it leads to by references, by id.

    Without ``through_evaluators`` what evaluators hold, and checkpoints are loaded into, is left out.
    """
    found: dict[str, Any] = {}
    ahead = [start]
    while ahead:
        name = ahead.pop()
        if name not in found and name in parser:
            found[name] = parser[name] if through_evaluators else _without_evaluators(parser[name])
            ahead += [each for text in texts(found[name]) for each in ReferenceResolver.match_refs_pattern(text)]
    return found


def _without_evaluators(config: Any) -> Any:
    """Return a config without the evaluators and the loaders of checkpoints in it."""
    if isinstance(config, Mapping):
        if "_target_" in config and (_is_evaluator(config) or _is(config, "CheckpointLoader")):
            return None
        return {key: _without_evaluators(each) for key, each in config.items()}
    return [_without_evaluators(each) for each in config] if isinstance(config, list) else config


def _components(configs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the components within some configs, by id."""
    found: dict[str, dict[str, Any]] = {}
    for name, config in configs.items():
        if isinstance(config, Mapping) and "_target_" in config:
            found[name] = dict(config)
        if isinstance(config, (Mapping, list)):
            inner = config.items() if isinstance(config, Mapping) else enumerate(config)
            found |= _components({f"{name}::{key}": each for key, each in inner})
    return found


def _is(config: Mapping[str, Any], kind: str) -> bool:
    return str(config["_target_"]).rsplit(".", 1)[-1].endswith(kind)


def _trainers(reached: Mapping[str, Any]) -> list[str]:
    found = _components(reached).items()
    return [place for place, each in found if "train_data_loader" in each or _is(each, "Trainer")]


def _is_evaluator(config: Any) -> bool:
    is_component = isinstance(config, Mapping) and "_target_" in config
    return is_component and ("val_data_loader" in config or _is(config, "Evaluator"))


def _trains(parser: ConfigParser, run_id: str) -> bool:
    """Tell whether a run leads to a trainer or an optimizer, other than one that an evaluator knows."""
    reached = _reached(parser, run_id, through_evaluators=False)
    optimizers = any("params" in each for each in _components(reached).values())
    return bool(_trainers(reached)) or optimizers or any("optim." in text for text in texts(list(reached.values())))


def _keep_best(parser: ConfigParser, run_id: str, reached: Mapping[str, Any]) -> None:
    """Let a training keep its best weights: by the rule of its own checkpoint, else by its validator's key metric."""
    trainers = _trainers(reached)
    attached = _components({**_reached(parser, "initialize"), **reached})  # also to trainers that do not name them
    handlers = [place for place, each in attached.items() if "validator" in each]
    validators = _validators(parser, [*trainers, *handlers])
    savers = {place: _saver(parser, place) for place in [*validators, *(() if validators else trainers)]}
    judge = next((place for place, saver in savers.items() if saver), next(iter(validators), None))
    keeping, saver = parser["keep_best"], savers.get(str(judge))
    if saver and keeping["rule"] is None:
        keeping["rule"] = {key: saver.get(key, default) for key, default in _RULE.items()}
    keeping["in_training"] = judge in trainers
    for place in [*trainers, *validators]:
        if place in trainers or place == judge:
            _add_handler(parser, place)
    run = parser[run_id] if isinstance(parser[run_id], list) else [parser[run_id]]
    if not any("@written" in text for text in texts(run)):
        parser[run_id] = [*run, _WRITTEN]


def _find_data(parser: ConfigParser, reached: Mapping[str, Any]) -> None:
    """Let the training items be measured where they stand, if not at the usual id, or at one that was given.

    Raises:
        ValueError: if the trainer's loader does not lead to them.
    """
    if parser["complexity_data"] != "@train::dataset::data" or "train::dataset::data" in parser:
        return
    for trainer in _trainers(reached):
        for place, each in _components(_reached(parser, f"{trainer}::train_data_loader")).items():
            if _is(each, "Dataset") and "data" in each:
                parser["complexity_data"] = f"@{place}::data"
                return
    raise ValueError(
        "what is measured was not found: neither train#dataset#data nor the trainer's loader leads to the data of a "
        'Dataset. Name the id of the list of training items: --complexity_data "@ID".'
    )


def _validators(parser: ConfigParser, places: Sequence[str]) -> list[str]:
    """Return the ids of the engines that trainers and handlers lead to, and so validate during a training."""
    found = [item for place in places for item in _components(_reached(parser, place)).items()]
    return list(dict.fromkeys(place for place, each in found if _is_evaluator(each)))


def _handlers_of(parser: ConfigParser, engine: str) -> tuple[str, Any]:
    """Return the id at which the handlers of an engine stand, and what stands there."""
    place = f"{engine}::{'train_handlers' if engine in _trainers({engine: parser[engine]}) else 'val_handlers'}"
    value = parser.get(place)
    while isinstance(value, str) and value.startswith("@") and value[1:].replace("#", "::") in parser:
        place = value[1:].replace("#", "::")
        value = parser[place]
    return place, value


def _saver(parser: ConfigParser, engine: str) -> dict[str, Any] | None:
    """Return the config of the handler by which an engine saves its best network, if it has one."""
    place, _ = _handlers_of(parser, engine)
    for each in _components(_reached(parser, place)).values():
        if _is(each, "CheckpointSaver") and each.get("save_key_metric") and each.get("_disabled_") is not True:
            return each
    return None


def _add_handler(parser: ConfigParser, engine: str) -> None:
    place, handlers = _handlers_of(parser, engine)
    if handlers is None and not {"train_data_loader", "val_data_loader"} & set(parser[engine]):
        return  # it is no engine of MONAI's
    if any(_KEPT in text for text in texts(handlers)):
        return
    if isinstance(handlers, str):
        parser[place] = f"$[*(({handlers.removeprefix('$')}) or []), {_KEPT}]"
    else:
        parser.set([*(handlers or []), _KEPT], place)


def _load_planned_file(parser: ConfigParser) -> None:
    """Let each ``CheckpointLoader`` of the network load the planned network's file."""
    for place, each in _components(parser.get()).items():
        if _is(each, "CheckpointLoader") and "network_def" in _reached(parser, f"{place}::load_dict"):
            print(f"{place} loads the planned network's weights, in place of {each.get('load_path')}.")
            loader = {"network": "@network_def", "path": "@planned_weights"}
            parser[place] = {"_target_": "monai_ccnet.handlers.LoadWeights", **loader}


def measure_if_possible() -> None:
    """Measure the running config's training items; where they cannot be read and no constraint needs it, go without.

    Raises:
        RuntimeError: by the config, if they cannot be measured and have to be.
    """
    parser = running_workflow().parser
    try:
        parser.get_parsed_content("complexity")
    except RuntimeError as error:
        if not parser.get_parsed_content("complexity_data"):
            raise
        floors = any(isinstance(each, AccuracyFloor) for each in parser.get_parsed_content("constraint"))
        law, rule = (parser.get_parsed_content(name) for name in ("model", "allocation"))
        given = parser.get_parsed_content("measure") is not None
        if floors or given or law.settings or rule == "complexity" or not isinstance(root_cause(error), ValueError):
            raise
        print(f"Not measured, and the budget needs no complexity: {root_cause(error)}")
        parser.ref_resolver.resolved_content["complexity"] = None  # a new config would undo what was built before


def assumed(law: Law, complexity: ComplexityProfile | None) -> Law:
    """Return a law as if it held for the settings of a profile; as it is without one."""
    return law if complexity is None else law.assuming(complexity.settings)


def load_planned(plan_dir: str | os.PathLike) -> CompressionPlan:
    """Return the plan in a folder for the running config of another bundle, whose own networks it may name.

    Args:
        plan_dir: folder of the plan.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, names code of neither MONAI, torch, this package nor the bundle, or is of another
            bundle.
    """
    end_with_cause("plan_dir")
    path = Path(plan_dir) / "plan.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: plan one first, by overlay/compress.yaml, or give --plan_dir.")
    plan = CompressionPlan.load(path, named_networks())
    try:
        own = _task_of(network_def_of(running_workflow().parser.get_parsed_content(_OWN)))
    except Exception:  # an expression builds it, or what it refers to is not here: it cannot be compared
        return plan
    if (planned := _task_of(plan.network_def)) != own:
        raise ValueError(
            f"{path} is the plan of another bundle: it is for {planned}, and this bundle's network_def is {own}. Give "
            "the plan_dir of this bundle, or, if it was planned with another --network_def, give that here too."
        )
    return plan


def _task_of(network_def: NetworkDef) -> str:
    """Return in words what a bundle's own network and the planned one have in common."""
    arguments = arguments_of(inner_def(network_def))
    names = ("in_channels", "out_channels", "spatial_dims")
    given = ", ".join(f"{name} {arguments[name]}" for name in names if name in arguments)
    return f"{class_of(arguments['_target_']).__name__} ({given})"


def planned_weights(plan: CompressionPlan, plan_dir: str | os.PathLike) -> str:
    """Return the path of the file of a planned network's weights: in the format of its budget, else the newest one.

    Args:
        plan: the plan.
        plan_dir: its folder.
    """
    formats = [each.weights_format for each in plan.constraints if isinstance(each, DiskBudget)] or [*WEIGHTS_FORMATS]
    paths = [Path(plan_dir) / weights_name(each, "compressed") for each in formats]
    there = sorted((path for path in paths if path.is_file()), key=os.path.getmtime)
    return str(there[-1] if there else paths[0])


def planned_network(plan: CompressionPlan, weights: str | os.PathLike | None) -> torch.nn.Module:
    """Build the network of a plan, with the weights of its file if one is given, which then nothing replaces.

    Whatever another config loads into it later is its own checkpoint; a word says so, and the weights stay.

    Args:
        plan: the plan.
        weights: file of its weights; ``None`` for a training, which begins without.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it holds the weights of another network.
    """
    network = build_network(plan.network_def)
    if weights is None:
        return network
    if not os.path.isfile(weights):
        raise FileNotFoundError(f"there is no {weights}, the weights of the planned network: train it first{_TRAINS}.")
    try:
        load_weights(network, weights)
    except WeightsError as error:
        raise WeightsError(f"{error} For the planned network: train it again{_TRAINS}.") from error
    network.register_load_state_dict_pre_hook(functools.partial(_stay, path=str(weights)))
    print(f"network_def: the planned network, with the {os.path.getsize(weights):,} bytes of {weights}.")
    return network


def _stay(network: torch.nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any, path: str) -> None:
    """Put a network's own weights in place of those that are about to be loaded into it."""
    own = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    given = {name: state_dict[name] for name in own if isinstance(state_dict.get(name), torch.Tensor)}
    if any(not _equal(given.get(name), tensor) for name, tensor in own.items()):
        print(f"The planned network keeps the weights of {path}: what this config loads into it is another file's.")
    state_dict.clear()
    state_dict.update(own)


def _equal(given: torch.Tensor | None, own: torch.Tensor) -> bool:
    return given is not None and given.shape == own.shape and torch.equal(given.to(own), own)


def save_planned_weights(best: KeepBest, plan: CompressionPlan) -> None:
    """Write the weights of a planned network if no epoch was kept, and say what the file holds.

    Args:
        best: handler of the training, which is over.
        plan: the plan, whose budget the file is held to.
    """
    best.finish()
    if best.first_process:
        plan.check_file_bytes(os.path.getsize(best.path), str(best.path))
        release(best.path.parent)
        print(f"Written: {best.path} of {os.path.getsize(best.path):,} bytes, {best.words}; and its plan.json.")
