"""Training runs of a comparison: the network of every method for every constraint, each once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from monai.utils import set_determinism

from monai_ccnet.comparison.methods import (
    FULL_SIZE,
    METHODS,
    Rival,
    constraints_taken,
    folder_of,
    planned_network,
    stored_budget,
)
from monai_ccnet.complexity.profile import ComplexityProfile
from monai_ccnet.constraints import AccuracyFloor, Budget, InfeasibleConstraintError
from monai_ccnet.degradation import Law
from monai_ccnet.locks import held
from monai_ccnet.names import named_in
from monai_ccnet.networks import build_network, default_input_shape, network_def_of, scale_of, weights_name
from monai_ccnet.posttraining import prune
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import (
    begin_stages,
    evaluate_network,
    finish_stage,
    finished_stage,
    load_trained,
    read_run,
    run_trial,
    train_network,
)

__all__ = ["compare"]


def compare(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraints: Iterable[Budget | AccuracyFloor],
    *,
    complexity: ComplexityProfile,
    degradation: Law,
    further_laws: Sequence[tuple[ComplexityProfile, Law]] = (),
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0,),
    **recipe: Any,
) -> list[Rival]:
    """Train the network of every method for every constraint with every seed; finished runs are kept.

    Args:
        bundle_root: folder of the bundle whose ``train.yaml`` trains and whose ``evaluate.yaml`` scores.
        output_dir: folder of the comparison, with one subfolder per network.
        network_def: the full-size network's MONAI config, with references resolved; all methods' networks work at its
            scale.
        constraints: budgets on bytes, multiply-adds or memory, and accuracy floors; a method is applied to those
            that it supports.
        complexity: profile of the data set.
        degradation: law that decides the widths of layer-wise plans and predicts the scores.
        further_laws: profiles and laws that predict other metrics of the same networks.
        methods: names of ``METHODS``.
        seeds: seeds of the training runs.
        recipe: overrides of ``train.yaml`` by their ids, ``dataset_dir`` among them.

    Returns:
        One rival per method, constraint and seed; none if no network of the method meets the constraint.

    Raises:
        ValueError: if a method is not among ``METHODS``.
    """
    if unknown := set(methods) - set(METHODS):
        raise ValueError(f"unknown methods {sorted(unknown)}: choose from {', '.join(METHODS)}.")
    network_def, output_dir, constraints = network_def_of(network_def), Path(output_dir), list(constraints)
    laws = [(complexity, degradation), *further_laws]
    rivals = []
    for seed, method in itertools.product(seeds, methods):
        for constraint in constraints_taken(METHODS[method], constraints):
            folder, given = output_dir / folder_of(method, constraint, seed), {**recipe, "seed": seed}
            try:
                if "importance" in METHODS[method]:
                    full = output_dir / folder_of(FULL_SIZE, None, seed)
                    rivals.append(_prune(bundle_root, folder, full, network_def, method, constraint, given))
                    continue
                planned, predicted, settings = planned_network(METHODS[method], network_def, constraint, laws)
            except InfeasibleConstraintError as error:
                print(f"{method}: {error}")
                continue
            record = run_trial(bundle_root, folder, planned, **{**given, **settings})
            rivals.append(Rival(method, constraint, seed, predicted, record, record.seconds))
    return rivals


def _prune(
    bundle_root: str | os.PathLike,
    folder: Path,
    full: Path,
    network_def: dict[str, Any],
    method: str,
    budget: Budget,
    recipe: dict[str, Any],
) -> Rival:
    """Return the trained full-size network pruned to a budget, fine-tuned and scored; or what an earlier run left.

    Raises:
        ValueError: if the folder holds what came of other data, another recipe or other settings of the method.
    """
    full_record = run_trial(bundle_root, full, network_def, **recipe)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {**_asked(full), "method": METHODS[method], "constraint": budget.to_dict()}
    with held(folder):
        _check_same(folder, asked)
        if finished_stage(folder, "pruning") is None:
            (folder / "run.json").unlink(missing_ok=True)
            rival = _pruned(bundle_root, folder, full_record, full, method, budget, recipe)
            rival.save(folder / "rival.json")
            begin_stages(folder, asked)
            weights = folder / weights_name(recipe.get("weights_format", "torch"))
            finish_stage(folder, "pruning", [folder / "rival.json", weights])
        return Rival.load(folder / "rival.json", named_in(network_def))


def _asked(folder: Path) -> dict[str, Any]:
    """Return what a run in a folder was asked for."""
    return {key: value for key, value in read_run(folder).items() if key not in ("format_version", "stages")}


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a pruning of something else."""
    found, whole = _asked(folder), json.loads(json.dumps(asked))
    if found and (differing := sorted(key for key in {**found, **whole} if found.get(key) != whole.get(key))):
        raise ValueError(
            f"{folder} holds a network of another {', '.join(differing)}: choose another output_dir, or start again "
            "with --force True."
        )


def _pruned(
    bundle_root: str | os.PathLike,
    folder: Path,
    full_record: TrialRecord,
    full: Path,
    method: str,
    budget: Budget,
    recipe: dict[str, Any],
) -> Rival:
    network_def = full_record.network_def
    start, settings = time.monotonic(), {"share": 0.25, "epochs": 2, "merge": False, **METHODS[method]}
    stored, bits = stored_budget(METHODS[method], budget)
    network = load_trained(build_network(network_def), full / weights_name(recipe.get("weights_format", "torch")))
    train = ConfigParser()
    train.read_config(str(Path(bundle_root) / "configs" / "train.yaml"))
    scale = scale_of(network_def)
    train.update(
        {
            **recipe,
            "bundle_root": str(bundle_root),
            "device": "cpu",
            "scale": scale if isinstance(scale, int) else list(scale),
        }
    )
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


_BATCHES = 10  # on which an importance is measured
