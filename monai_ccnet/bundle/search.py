"""What search.yaml calls: the trainings of a search, and the plan that it ends with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_ccnet import figures
from monai_ccnet.bundle.runs import constraints_from
from monai_ccnet.calibration.search import Rung, Search, Step, Training, next_step
from monai_ccnet.complexity import ComplexityProfile, LabelCeiling
from monai_ccnet.constraints import (
    AccuracyFloor,
    Budget,
    CompressionPlan,
    InfeasibleConstraintError,
    Outlook,
    choose_scale,
    ladder,
    plan_at,
)
from monai_ccnet.data import DataReading, DatasetFolder, folds
from monai_ccnet.degradation import WidthLaw, WidthPoint
from monai_ccnet.files import read_json, shown, write_json, write_table
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.records import TrialRecord, remedies
from monai_ccnet.scales import Scale, per_axis, resolution_words, scale_words
from monai_ccnet.training import Trial, largest_structure, median_lengths, plan_batch, plan_recipe, run_sweep

__all__ = ["NothingLearnedError", "check_search", "search_plan"]

_LEAST_KEPT = 0.95  # Dice that the labels keep at the coarsest scale that is tried
_SHARE_OF_CLIMBER = 0.01  # cost of the network that climbs, of one full-size training, at the finest scale
_WIDER = 3  # times wider is what is expected of a network that the law was not measured on
_MINIMISE = ("bytes", "macs", "memory")


class NothingLearnedError(RuntimeError):
    """No network of a search learned, at any scale; the message says what is likely to help."""


def check_search(
    law: Any, minimise: str, allocation: str, tolerance: Any, min_score: float | None, confidence: Any
) -> None:
    """Refuse a search that could not be begun, before anything is read.

    Args:
        law: the law that is its prior.
        minimise: what is to be small.
        allocation: rule of the widths.
        tolerance: share of the score that may be lost.
        min_score: least score that was given in its place.
        confidence: probability with which no more is lost.

    Raises:
        ValueError: with what is allowed.
    """
    if min_score is not None and not (0 < min_score < 1 and abs(1 - min_score - (tolerance or 0)) < 1e-9):
        raise ValueError(
            f"min_score of a search must lie in (0, 1) and leave a tolerance of 1 - min_score, got {shown(min_score)} "
            f"and {shown(tolerance)}: give one of the two."
        )
    for name, value in (("tolerance", tolerance), ("confidence", confidence)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"{name} of a search must lie in (0, 1), got {shown(value)}.")
    if allocation == "complexity":
        raise ValueError("a search has one number for the width: leave allocation out, or give --layerwise False.")
    if minimise not in _MINIMISE:
        raise ValueError(f"minimise must be one of {', '.join(_MINIMISE)}, got {shown(minimise)}.")
    if not isinstance(law, WidthLaw):
        raise ValueError("a search begins with a law in width: leave law out, or give the width.json of a calibration.")


def search_plan(
    family: NetworkFamily,
    *,
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    data: DatasetFolder,
    reading: DataReading,
    ceiling: LabelCeiling,
    complexity: ComplexityProfile,
    law: WidthLaw,
    budgets: Mapping[str, Any],
    keeping: Mapping[str, Any],
    training: Mapping[str, Any],
    recipe: str = "planned",
    scale: int | Sequence[int] | str = "auto",
    held_out_by: str = "auto",
    tolerance: float = 0.02,
    confidence: float = 0.9,
    minimise: str = "bytes",
    max_cost: float = 0.1,
    allocation: str | None = "taper",
    n_jobs: int | None = None,
    backend: str | None = None,
    pictures: bool = True,
) -> CompressionPlan:
    """Train on a part of the training images until the smallest network that is good enough is known; return its plan.

    No image of the test part is used. Interrupted, the same call goes on from the trainings that are done. The folder
    gets ``search.json``, what was trained and decided, and ``search.csv``.

    Args:
        family: the network at any width.
        bundle_root: folder of the bundle.
        output_dir: folder of the run; the trainings are in its ``search``.
        data: the data set.
        reading: what was read of it.
        ceiling: what the training labels keep at each scale.
        complexity: profile of the data set, for the plan.
        law: the law that is the prior.
        budgets: what :func:`constraints_from` is given; every network that is tried keeps to them.
        keeping: what :func:`~monai_ccnet.complexity.measure_ceiling` is given beside the images.
        training: ids of ``train.yaml`` for every training.
        recipe: name of the recipe.
        scale: the only scale that is tried, or ``"auto"``.
        held_out_by: what is held out together, as in :func:`~monai_ccnet.data.folds`.
        tolerance: share of the score that may be lost.
        confidence: probability with which no more is lost.
        minimise: what is to be small: ``"bytes"``, ``"macs"`` or ``"memory"``.
        max_cost: most that may be spent, as a share of one training of the full-size network.
        allocation: rule of the widths, or ``None`` for one multiplier of all stages.
        n_jobs: number of trainings at once, as joblib counts them.
        backend: name of joblib's backend.
        pictures: whether to draw what was found.

    Raises:
        InfeasibleConstraintError: if no network keeps to the budgets.
        NothingLearnedError: if no network learned.
        ValueError: if no training image can be held out.
    """
    folder = Path(output_dir)
    asked: dict[str, Any] = {
        "tolerance": tolerance,
        "confidence": confidence,
        "minimise": minimise,
        "max_cost": max_cost,
        "budgets": {key: value for key, value in budgets.items() if value is not None},
        "scale": scale,
        "held_out_by": held_out_by,
        "allocation": allocation,
        "recipe": recipe,
        "training": training,
        "law": law.to_dict(),
        "network_def": family.network_def,
        "data": reading.digest,
    }
    _check_asked(folder / "search.json", asked)
    if (assumed := Outlook(family, None, None, law).assumption) is not None:
        # What is known of another network says little of this one.
        law = replace(law, loss_deviation=_WIDER * law.loss_deviation, noise_spread=max(1.0, law.noise_spread))
    split = folds(data.training, data.folder, held_out_by)
    patches = _patches(family, data, reading, ceiling, keeping, training, recipe, scale)
    allocation = allocation if family.layerwise else None
    rungs = _rungs(family, patches, law, budgets, minimise, allocation, max_cost, len(split))
    cheapest = min(rung.cost for each in rungs.values() for rung in each)
    if cheapest > max_cost:
        raise ValueError(
            f"max_cost {max_cost:g} does not pay for one training: the cheapest takes {cheapest:.2g} of the "
            "multiply-adds of one full-size training. Raise it."
        )
    climber = _climber(rungs)
    planned = choose_scale(ceiling, family.coarsest)[0]
    images = sum(len(held) for _, held in split)
    full_width = family.width(family.channels, law.measure)
    search = Search(rungs, planned, climber, law, full_width, tolerance, confidence, max_cost, images)
    given = {**training, "recipe": recipe, "dataset_dir": str(data.folder)}
    if held_out_by in ("image", "file_name"):  # as asked: images of one subject may stand on both sides
        given["allow_overlap"] = True

    def trials(rung: Rung, seed: int) -> list[Trial]:
        words = "-".join(map(str, rung.channels))
        network_def = family.at(rung.channels, rung.scale)
        return [
            Trial(
                str(bundle_root),
                str(folder / "search" / f"{words}_{scale_words(rung.scale).replace(' ', '')}_{seed}_{number}"),
                network_def,
                None,
                {
                    **given,
                    "seed": int(training.get("seed", 0)) + seed,
                    "patch_size": list(patches[rung.scale][0]),
                    "train_datalist": inner,
                    "test_datalist": held,
                    "val_datalist": [],
                },
                rung.cost,
            )
            for number, (inner, held) in enumerate(split)
        ]

    trainings: list[Training] = []
    rows: list[dict[str, Any]] = []
    losses: Sequence[float] = ()
    while (step := next_step(search, trainings)).train:
        wanted = [trial for rung, seed in step.train for trial in trials(rung, seed)]
        left = iter(run_sweep(wanted, n_jobs=n_jobs, backend=backend))
        for rung, seed in step.train:
            records = [next(left) for _ in split]
            trainings.append(_training_of(rung, seed, records))
            rows.append(_row(trainings[-1], records, step.reason))
            losses = records[0].losses
            print(_progress(search, trainings, step.reason), flush=True)
    _report(folder, search, trainings, step, rows, asked, assumed, len(split), pictures)
    if step.chosen is None:
        raise NothingLearnedError(f"no network learned at any scale. {remedies(losses)}")
    own = [each for each in trainings if each.rung.scale == step.chosen.scale]
    adapted = law.adapt([WidthPoint(data.name, each.rung.width, each.score, each.has_learned) for each in own])
    chosen = replace(family, scale=step.chosen.scale)
    shape = _shape(family, patches[chosen.scale][0])
    floor = AccuracyFloor(1 - tolerance, confidence)
    constraints = (*constraints_from(shape, **{**budgets, "min_score": None, "default": None}), floor)
    plan = plan_at(
        Outlook(chosen, allocation, complexity, adapted),
        step.chosen.channels,
        constraints,
        floor,
        shape,
        ceiling=ceiling,
        image_shape=_shape(family, ceiling.size),
    )
    return replace(plan, probability=step.probability)


def _shape(family: NetworkFamily, lengths: Sequence[int]) -> tuple[int, ...]:
    return (1, family.input_shape[1], *lengths)


Patches = dict[Scale, tuple[tuple[int, ...], int]]  # patch in pixels of the input, and batch, at each scale


def _patches(
    family: NetworkFamily,
    data: DatasetFolder,
    reading: DataReading,
    ceiling: LabelCeiling,
    keeping: Mapping[str, Any],
    training: Mapping[str, Any],
    recipe: str,
    scale: int | Sequence[int] | str,
) -> Patches:
    """Return the scales that are tried, from the coarsest to the finest, each with its patch and batch."""
    scales: list[Scale] = [each for each in ceiling.scales if _is_possible(family, ceiling, each)]
    if not isinstance(scale, str):
        scales, least = [], [scale if isinstance(scale, int) else tuple(scale)]
    else:
        least = [1]
    found: Patches = {}
    lengths = median_lengths(reading, keeping.get("loading", {}).get("spacing"))
    for each in (*sorted(scales, key=lambda s: -math.prod(per_axis(s, family.spatial_dims))), *least):
        largest = largest_structure(lengths, each, data.training, keeping)
        planned = plan_recipe(recipe, lengths, each, divisor=family.divisor, largest=largest)
        patch = tuple(training.get("patch_size", planned.patch_size))
        found[each] = patch, int(training.get("batch_size", plan_batch(recipe, patch, each)))
    return found


def _is_possible(family: NetworkFamily, ceiling: LabelCeiling, scale: Scale) -> bool:
    """Tell whether labels keep enough at a scale, and the median image some pixels of the coarsest stage."""
    pairs = zip(ceiling.size, per_axis(scale, family.spatial_dims), family.coarsest, strict=True)
    return ceiling.worst(scale) >= _LEAST_KEPT and all(
        length // by >= min(length, 2 * unit) for length, by, unit in pairs
    )


def _rungs(
    family: NetworkFamily,
    patches: Patches,
    law: WidthLaw,
    budgets: Mapping[str, Any],
    minimise: str,
    allocation: str | None,
    max_cost: float,
    splits: int,
) -> dict[Scale, list[Rung]]:
    """Return the networks that keep to the budgets at each scale, as far as one training of theirs can be paid for.

    Raises:
        InfeasibleConstraintError: if there is none at any scale.
    """
    patch, batch = patches[next(reversed(patches))]
    full = float(family.size(family.channels, _shape(family, patch), scale=1).macs or 1) * batch
    steps = {channels: family.width(channels, law.measure) for channels in ladder(family, allocation)}
    found: dict[Scale, list[Rung]] = {}
    refused: list[str] = []
    for scale, (patch, batch) in patches.items():
        shape = _shape(family, patch)
        limits = [each for each in constraints_from(shape, **{**budgets, "default": None}) if isinstance(each, Budget)]
        rungs: list[Rung] = []
        for channels, width in steps.items():
            if width < 0.999 * law.narrowest:
                continue
            network_def = family.at(channels, scale)
            if broken := [each for each in limits if each.needed(network_def) > each.limit]:
                if not rungs:
                    refused.append(f"at {resolution_words(scale)} {'-'.join(map(str, channels))} is above {broken[0]}")
                break
            size = family.size(channels, shape, scale)
            cost = splits * float(size.macs or 0) * batch / full
            if cost > max_cost / 2 and rungs:
                break
            small = {"bytes": size.file_bytes, "macs": size.macs, "memory": size.activation_bytes}[minimise]
            rungs.append(Rung(channels, scale, width, float(small or 1), size.file_bytes, float(size.macs or 0), cost))
        if rungs:
            found[scale] = rungs
    if not found:
        raise InfeasibleConstraintError(
            f"no network that was measured before keeps to the budgets: {'; '.join(refused)}. Raise the budget, or "
            "plan beyond what was measured: monai-ccnet compress."
        )
    return found


def _climber(rungs: Mapping[Scale, Sequence[Rung]]) -> float:
    """Return the width of the network that climbs the scales: the widest that is cheap at the finest of them."""
    finest = list(rungs.values())[-1]
    cheap = [rung.width for rung in finest if rung.cost <= _SHARE_OF_CLIMBER]
    return max(cheap, default=finest[0].width)


def _training_of(rung: Rung, seed: int, records: Sequence[TrialRecord]) -> Training:
    """Return what the records of one training, one of each fold, say of a rung.

    Raises:
        RuntimeError: if one of them was stopped by an error.
    """
    if errors := [record.error for record in records if record.error is not None]:
        raise RuntimeError(f"a training of the search failed: {errors[0]}")
    scores = [each for record in records for each in record.per_image["f1"] if each is not None]
    learned = bool(scores) and all(record.has_learned for record in records)
    return Training(rung, seed, max(float(np.mean(scores)) if scores else 0.0, 1e-6), learned)


def _progress(search: Search, trainings: Sequence[Training], reason: str) -> str:
    last, spent = trainings[-1], sum(training.rung.cost for training in trainings)
    word = "F1" if last.has_learned else "failed to learn, F1"
    return (
        f"Search, training {len(trainings)}: {reason}. {word} {last.score:.4f} on {search.images} held-out images; "
        f"{spent:.2%} of the multiply-adds of one full-size training spent, {search.most_cost:.0%} allowed."
    )


def _row(training: Training, records: Sequence[TrialRecord], reason: str) -> dict[str, Any]:
    rung = training.rung
    return {
        "channels": "-".join(map(str, rung.channels)),
        "scale": scale_words(rung.scale),
        "seed": training.seed,
        "f1": round(training.score, 4),
        "has_learned": training.has_learned,
        "file_bytes": rung.file_bytes,
        "macs": round(rung.macs),
        "cost": round(rung.cost, 6),
        "seconds": round(sum(record.seconds for record in records), 1),
        "reason": reason,
    }


def _report(
    folder: Path,
    search: Search,
    trainings: Sequence[Training],
    step: Step,
    rows: list[dict[str, Any]],
    asked: Mapping[str, Any],
    assumed: str | None,
    splits: int,
    pictures: bool,
) -> None:
    """Write what was trained and decided, draw it, and print it."""
    for row, training in zip(rows, trainings, strict=True):
        row["is_chosen"] = training.rung == step.chosen
    seconds = sum(row["seconds"] for row in rows)
    dearest = max(rows, key=lambda row: row["cost"], default=None)
    pace = dearest["seconds"] / dearest["cost"] if dearest else 0.0
    words = [*found_words(search, trainings, step, seconds, pace, splits), *([assumed] if assumed else [])]
    content = {
        "words": words,
        "chosen": None if step.chosen is None else list(step.chosen.channels),
        "scale": None if step.chosen is None else step.chosen.scale,
        "probability": step.probability,
        "asked": asked,
        "folds": splits,
        "held_out_images": search.images,
        "noise": search.noise_after(trainings),
        "trainings": rows,
    }
    write_json(folder / "search.json", content)
    write_table(folder / "search.csv", rows)
    if pictures:
        figures.save_figure(folder / "search.png", figures.draw_search(content))
    print(*words, sep="\n", flush=True)


def found_words(
    search: Search, trainings: Sequence[Training], step: Step, seconds: float, pace: float, splits: int = 1
) -> list[str]:
    """Return what a search found, in words: the answer, what more would cost and bring, and what it has cost.

    Args:
        search: what was searched.
        trainings: what was trained.
        step: the last step.
        seconds: duration of the trainings.
        pace: seconds that one training of the full-size network takes, at the pace of the dearest training.
        splits: number of folds, in each of which a network is trained.
    """
    spent = sum(training.rung.cost for training in trainings)
    cost = (
        f"The search took {len(trainings)} training{'s' if len(trainings) != 1 else ''}"
        f"{f' in {splits} folds each' if splits > 1 else ''} and {seconds:,.0f} s, {spent:.1%} of the multiply-adds of "
        f"one training of the full-size network, which takes about {pace:,.0f} s at the pace of the dearest of these."
    )
    if step.chosen is None:
        return ["No network learned at any scale.", cost]
    chosen = step.chosen
    tried = dict.fromkeys(resolution_words(each.rung.scale) for each in trainings)
    claim = f"within {search.tolerance:.1%} of any wider one at the scales that were tried ({', '.join(tried)})"
    sure = f"{step.probability:.0%} sure to be {claim}"
    if step.probability < search.confidence:
        sure = f"only {step.probability:.0%} sure to be {claim}, {search.confidence:.0%} was asked for ({step.reason})"
    lines = [
        f"{'-'.join(map(str, chosen.channels))} at {resolution_words(chosen.scale)}, "
        f"{chosen.file_bytes:,} bytes: {sure}."
    ]
    own = _scores_of(trainings, chosen)
    for other in sorted({each.rung for each in trainings}, key=lambda rung: (rung.macs, rung.size)):
        theirs = _scores_of(trainings, other)
        if other == chosen or not theirs or not own:
            continue
        gain = np.mean(theirs) / np.mean(own) - 1
        error = 1.645 * search.noise_after(trainings) * math.sqrt(1 / len(own) + 1 / len(theirs))
        lines.append(
            f"{'-'.join(map(str, other.channels))} at {resolution_words(other.scale)}: "
            f"{other.file_bytes / chosen.file_bytes:.2g} times the bytes and {other.macs / chosen.macs:.2g} times the "
            f"multiply-adds for {gain:+.1%} ({gain - error:+.1%} to {gain + error:+.1%})."
        )
    for rung in dict.fromkeys(each.rung for each in trainings):
        runs = [each for each in trainings if each.rung == rung]
        if failed := sum(not each.has_learned for each in runs):
            where = f"{'-'.join(map(str, rung.channels))} at {resolution_words(rung.scale)}"
            lines.append(f"{where} failed to learn in {failed} of {len(runs)}.")
    return [*lines, cost]


def _check_asked(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a folder with a search that was asked for something else, before anything is trained.

    Raises:
        ValueError: with what differs.
    """
    if not path.is_file():
        return
    known, wanted = read_json(path).get("asked", {}), json.loads(json.dumps(asked))
    if differing := [key for key in wanted if known.get(key) != wanted[key]]:
        raise ValueError(
            f"{path.parent} holds a search with another {', '.join(differing)}: choose another output_dir, or start "
            "again with --force True."
        )


def _scores_of(trainings: Sequence[Training], rung: Rung) -> list[float]:
    return [each.score for each in trainings if each.rung == rung and each.has_learned]
