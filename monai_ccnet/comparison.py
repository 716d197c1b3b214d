"""Every way to a smaller network, trained and scored alike on one data set, at equal budgets."""

from __future__ import annotations

import codecs
import csv
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from monai.bundle.config_parser import ConfigParser
from monai.utils import set_determinism

from monai_ccnet.calibration import TrialRecord, evaluate_network, run_trial, train_network
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints import (
    AccuracyFloor,
    Budget,
    DiskBudget,
    InfeasibleConstraintError,
    compress,
    predicted_by,
    with_fewer_filters,
)
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.networks import build_network, default_input_shape, load_weights, narrow, network_def_of
from monai_ccnet.networks.latency import LatencyComparison, compare_latency
from monai_ccnet.posttraining import load_pruned, prune
from monai_ccnet.values import Value, atomically, write_json

__all__ = ["METHODS", "Rival", "compare", "compare_table", "rival_latencies", "save_table"]

# How each method comes to its network. Those with a ``multiplier`` take no constraint: they need what they need. Those
# with ``fewer`` filters than planned are for an accuracy floor, which they should miss: ε in the paper's Table 9.
METHODS: dict[str, dict[str, Any]] = {
    "full size": {"multiplier": 1.0},
    "half width": {"multiplier": 0.5},  # CC-Net (2019)
    "quarter width": {"multiplier": 0.25},  # the laziest answer
    "uniform": {"layerwise": False},
    "layer-wise": {"allocation": "complexity"},
    "taper": {"allocation": "taper"},
    "uniform, one filter fewer": {"layerwise": False, "fewer": 1},
    "uniform, two filters fewer": {"layerwise": False, "fewer": 2},
    "layer-wise, one filter fewer": {"allocation": "complexity", "fewer": 1},
    "layer-wise, two filters fewer": {"allocation": "complexity", "fewer": 2},
    "squeeze": {"_target_": "monai_ccnet.networks.SqueezeUNet", "layerwise": False},
    "uniform, int8": {"layerwise": False, "bits_per_weight": 8},
    "taper, int8": {"allocation": "taper", "bits_per_weight": 8},
    # After training: the full-size network is pruned in rounds, each followed by some training.
    "random pruning": {"importance": "random"},
    "L1 pruning": {"importance": "l1"},  # Li et al. (2017)
    "Taylor pruning": {"importance": "taylor"},  # Molchanov et al. (2017)
    "importance estimation": {"importance": "estimation"},  # Molchanov et al. (2019)
    "importance estimation, int8": {"importance": "estimation", "bits_per_weight": 8},
    # And without any training after it: in one shot, merged or not.
    "L1 pruning, untrained": {"importance": "l1", "share": 1.0, "epochs": 0},
    "neuron merging": {"importance": "l1", "share": 1.0, "epochs": 0, "merge": True},  # Kim et al. (2020)
}


@dataclass(frozen=True)
class Rival(Value):
    """One network of a comparison.

    Attributes:
        method: one of ``METHODS``.
        constraint: what the network was made for; ``None`` for a method that takes none.
        seed: of the training.
        predicted: by metric, the score relative to the full-size network's that was expected; empty where none was.
        record: what was trained, and what it reached.
        seconds: of all that led to it: training, searching, fine-tuning, evaluation.
    """

    method: str
    constraint: Budget | AccuracyFloor | None
    seed: int
    predicted: dict[str, float]
    record: TrialRecord
    seconds: float


def compare(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraints: Iterable[Budget | AccuracyFloor],
    *,
    complexity: ComplexityProfile,
    degradation: DegradationModel,
    further_laws: Sequence[tuple[ComplexityProfile, DegradationModel]] = (),
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0,),
    **recipe: Any,
) -> list[Rival]:
    """Train the network of every method for every constraint with every seed; do only what is not done yet.

    Args:
        bundle_root: folder of the bundle whose ``train.yaml`` trains and whose ``evaluate.yaml`` scores.
        output_dir: folder of the comparison; each network has one of its own in it.
        network_def: the full-size network's MONAI config, with references resolved.
        constraints: budgets on bytes, multiply-adds or memory, and accuracy floors; a method is tried for those that it
            can be made for.
        complexity: profile of the data set.
        degradation: by which layer-wise plans share, and scores are predicted.
        further_laws: profiles and models that predict other metrics of the same networks.
        methods: names of ``METHODS``.
        seeds: of the trainings.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.

    Returns:
        One rival a method, constraint and seed; none where a method has no network that keeps to the constraint.

    Raises:
        ValueError: for a method that is not among ``METHODS``.
    """
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"unknown methods {sorted(unknown)}: choose from {', '.join(METHODS)}.")
    network_def, output_dir, constraints = network_def_of(network_def), Path(output_dir), list(constraints)
    laws = [(complexity, degradation), *further_laws]
    rivals = []
    for seed, method in itertools.product(seeds, methods):
        for constraint in _taken(METHODS[method], constraints):
            folder, given = output_dir / _folder(method, constraint, seed), {**recipe, "seed": seed}
            try:
                if "importance" in METHODS[method]:
                    full = output_dir / _folder(_FULL, None, seed)
                    rivals.append(_prune(bundle_root, folder, full, network_def, method, constraint, given))
                    continue
                planned, predicted, settings = _planned(METHODS[method], network_def, constraint, laws)
            except InfeasibleConstraintError as error:
                print(f"{method}: {error}")
                continue
            record = run_trial(bundle_root, folder, planned, **{**given, **settings})
            rivals.append(Rival(method, constraint, seed, predicted, record, record.seconds))
    return rivals


def _taken(method: Mapping[str, Any], constraints: Sequence[Budget | AccuracyFloor]) -> list[Any]:
    """Return the constraints that a method can be made for, ``[None]`` if it takes none."""
    if "multiplier" in method:
        return [None]
    if "fewer" in method:
        kinds: tuple[type, ...] = (AccuracyFloor,)
    elif "bits_per_weight" in method:  # fewer bits help with bytes alone
        kinds = (DiskBudget,)
    else:  # of a squeezed network no law is known, and pruning goes on until a budget is met
        kinds = (Budget,) if {"importance", "_target_"} & set(method) else (Budget, AccuracyFloor)
    return [each for each in constraints if isinstance(each, kinds)]


def _folder(method: str, constraint: Budget | AccuracyFloor | None, seed: int) -> str:
    asked_for = [] if constraint is None else [f"{type(constraint).__name__}-{_limit(constraint)}"]
    return "-".join([re.sub(r"\W+", "-", method), *asked_for, f"seed{seed}"])


def _limit(constraint: Budget | AccuracyFloor) -> float:
    return constraint.min_score if isinstance(constraint, AccuracyFloor) else constraint.limit


def _prune(
    bundle_root: str | os.PathLike,
    folder: Path,
    full: Path,
    network_def: dict[str, Any],
    method: str,
    budget: Budget,
    recipe: dict[str, Any],
) -> Rival:
    """Return the trained full-size network pruned to a budget, fine-tuned and scored; or what an earlier run left."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "rival.json").exists():
            _pruned(bundle_root, folder, full, network_def, method, budget, recipe).save(folder / "rival.json")
        return Rival.load(folder / "rival.json")


def _pruned(
    bundle_root: str | os.PathLike,
    folder: Path,
    full: Path,
    network_def: dict[str, Any],
    method: str,
    budget: Budget,
    recipe: dict[str, Any],
) -> Rival:
    full_record = run_trial(bundle_root, full, network_def, **recipe)
    start, settings = time.monotonic(), {"share": 0.25, "epochs": 2, "merge": False, **METHODS[method]}
    stored, bits = _stored(METHODS[method], budget)
    network = load_weights(build_network(network_def), full / "model.pt")
    train = ConfigParser()
    train.read_config(str(Path(bundle_root) / "configs" / "train.yaml"))
    train.update({**recipe, "bundle_root": str(bundle_root), "device": "cpu"})
    set_determinism(recipe["seed"])

    def losses(pruned: torch.nn.Module) -> Iterator[torch.Tensor]:
        for batch in itertools.islice(train.get_parsed_content("train#dataloader"), _BATCHES):
            yield train.get_parsed_content("deep_supervision")(pruned(batch["image"]), batch["label"])

    def fine_tune(pruned: torch.nn.Module) -> None:
        shutil.rmtree(folder / "round", ignore_errors=True)
        train_network(bundle_root, folder / "round", pruned, **{**recipe, "max_epochs": settings["epochs"]})
        shutil.rmtree(folder / "round")

    pruned = prune(
        network,
        stored,
        input_shape=full_record.size.input_shape or default_input_shape(network_def),
        importance=settings["importance"],
        losses=losses,
        fine_tune=fine_tune if settings["epochs"] else None,
        share=settings["share"],
        merge=settings["merge"],
        rng=np.random.default_rng(recipe["seed"]),
    )
    record = evaluate_network(bundle_root, folder, pruned, network_def, **{**recipe, **bits})
    seconds = full_record.seconds + round(time.monotonic() - start, 1)
    return Rival(method, budget, recipe["seed"], {}, record, seconds)


_BATCHES = 10  # that an importance is measured on


def _planned(
    method: Mapping[str, Any],
    network_def: dict[str, Any],
    constraint: Budget | AccuracyFloor | None,
    laws: Sequence[tuple[ComplexityProfile, DegradationModel]],
) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """Return the network of a method, its predicted relative scores by metric, and the settings of its training."""
    method = dict(method)
    if constraint is None:
        return narrow(network_def, method["multiplier"]), {}, {}
    constraint, settings = _stored(method, constraint)
    method.pop("bits_per_weight", None)
    if target := method.pop("_target_", None):
        plan = compress({**network_def, "_target_": target}, constraint, **method)  # of which no law is known
        return plan.network_def, {}, settings
    fewer = method.pop("fewer", 0)
    complexity, degradation = laws[0]
    plan = compress(network_def, constraint, complexity=complexity, degradation=degradation, **method)
    if fewer:
        plan = with_fewer_filters(plan, fewer)
    predicted = {law.metric: predicted_by(plan, profile, law).score for profile, law in laws}
    return plan.network_def, predicted, settings


def _stored(method: Mapping[str, Any], constraint: Any) -> tuple[Any, dict[str, int]]:
    """Return a budget on bytes at the bits a weight that a method stores, and these as a setting of ``train.yaml``."""
    if "bits_per_weight" not in method or not isinstance(constraint, DiskBudget):
        return constraint, {}
    bits = {"bits_per_weight": method["bits_per_weight"]}
    return replace(constraint, **bits), bits


def rival_latencies(output_dir: str | os.PathLike, rivals: Iterable[Rival]) -> LatencyComparison:
    """Measure the rivals of one comparison in turns on the machine at hand; one of each method and constraint.

    Args:
        output_dir: folder of the comparison.
        rivals: as :func:`compare` returned them; the first is what the others are compared with.

    Returns:
        Latencies by method and constraint, as the rows of :func:`compare_table` find them.
    """
    networks: dict[str, Any] = {}
    shape = None
    for rival in rivals:
        weights = Path(output_dir) / _folder(rival.method, rival.constraint, rival.seed) / "model.pt"
        network_def, shape = rival.record.network_def, shape or rival.record.size.input_shape
        networks.setdefault(
            _folder(rival.method, rival.constraint, 0),
            load_pruned(network_def, torch.load(weights, weights_only=True))
            if "importance" in METHODS[rival.method]
            else network_def,
        )
    return compare_latency(networks, shape or ())


def compare_table(rivals: Iterable[Rival], latencies: LatencyComparison | None = None) -> list[dict[str, Any]]:
    """Return one row a method and constraint: means over the seeds, with the deviation of the scores.

    Scores are F1 and IU, predicted and achieved. Predictions are relative to the mean of the full-size network's scores
    and therefore stated where that network is among the rivals.

    Args:
        rivals: as :func:`compare` returns them.
        latencies: as :func:`rival_latencies` returns them; without them nothing is said of latency.
    """
    groups: dict[tuple, list[Rival]] = {}
    for rival in rivals:
        groups.setdefault((rival.constraint, rival.method), []).append(rival)
    full = [rival.record.scores for (_, method), found in groups.items() for rival in found if method == _FULL]
    rows = []
    for (constraint, method), found in groups.items():
        latency = latencies.latencies[_folder(method, constraint, 0)] if latencies is not None else None
        records = [rival.record for rival in found]
        size = records[0].size
        scores = {name: [record.scores[name] for record in records] for name in ("f1", "iu")}
        expected = found[0].predicted if full else {}
        rows.append(
            {
                "constraint": constraint.words(constraint.limit)
                if isinstance(constraint, Budget)
                else str(constraint or ""),
                "method": method,
                "seeds": len(found),
                **{
                    f"predicted_{name}": expected[name] * float(np.mean([each[name] for each in full]))
                    if name in expected
                    else None
                    for name in scores
                },
                **{name: float(np.mean(values)) for name, values in scores.items()},
                **{f"{name}_deviation": _deviation(values) for name, values in scores.items()},
                "learned": sum(record.has_learned for record in records),
                "weights": size.weights,
                "file_bytes": records[0].file_bytes,
                "macs": size.macs,
                "memory_bytes": None if size.activation_bytes is None else size.state_bytes + size.activation_bytes,
                "latency_seconds": latency.median_seconds if latency is not None else None,
                "training_seconds": float(np.mean([rival.seconds for rival in found])),
            }
        )
    return rows


_FULL = "full size"


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def save_table(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as the kind of file that its name says: ``.csv``, ``.json`` or ``.md``; atomically.

    Raises:
        ValueError: for another kind, or a table without rows.
    """
    kind = Path(path).suffix
    if not rows or kind not in (".csv", ".json", ".md"):
        raise ValueError(f"a table of {len(rows)} rows cannot be written as {kind or path}: give .csv, .json or .md.")
    if kind == ".json":
        write_json(path, [dict(row) for row in rows])
        return
    with atomically(path) as file:
        text = codecs.getwriter("utf-8")(file)
        if kind == ".csv":
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)]
            text.write("".join(f"| {' | '.join(line)} |\n" for line in lines))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
