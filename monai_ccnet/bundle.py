"""What the configs of the bundle call: each function does what one of their lines says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_ccnet import figures
from monai_ccnet.calibration import calibrate, degradation_points, profiles_for
from monai_ccnet.comparison import Rival, compare, compare_table, rival_latencies
from monai_ccnet.complexity import ComplexityProfile, measure_dataset, measure_settings, rank_measures
from monai_ccnet.configs import check_recipe, running_workflow
from monai_ccnet.constraints import (
    AccuracyFloor,
    Budget,
    CompressionPlan,
    ComputeBudget,
    DiskBudget,
    LatencyBudget,
    MemoryBudget,
    least_needed,
    trade_off,
)
from monai_ccnet.data import (
    DataReading,
    DatasetFolder,
    check_scorable,
    load_image,
    open_dataset,
    read_dataset,
    safe_name,
)
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily, save_weights
from monai_ccnet.records import TrialRecord
from monai_ccnet.reporting import save_html_report, save_report, save_trade_off
from monai_ccnet.training import Trial, check_data, finish_run, forget_run, segment_examples, segment_sweep

__all__ = [
    "NO_PICTURES",
    "check_calibration",
    "check_constraints",
    "check_profiles",
    "check_run",
    "check_shared_recipe",
    "compare_all",
    "constraints_from",
    "dataset_of",
    "distributed",
    "law_on_data",
    "measure_by_law",
    "measure_for_calibration",
    "measure_settings_for",
    "reading_of",
    "save_calibration",
    "save_comparison",
    "save_measured",
    "save_planned_weights",
    "save_run",
    "sweep_source",
    "train_planned",
]

DEFAULT_FLOOR = 0.95

_LOADING = ("label_values", "spacing")  # ids of train.yaml that say how a file is read
_READ_AS = (*_LOADING, "allow_overlap")

NO_PICTURES = 'No pictures: pip install "monai_ccnet[figures]" for them.'


def constraints_from(
    input_shape: Sequence[int] | None = None,
    *,
    budget_bytes: Sequence[int] | int | None = None,
    budget_memory_bytes: int | None = None,
    budget_macs: Sequence[int] | int | None = None,
    budget_latency_seconds: float | None = None,
    min_score: Sequence[float] | float | None = None,
    bits_per_weight: int = 32,
    count: str = "parameters",
    default: float | None = DEFAULT_FLOOR,
) -> list[Budget | AccuracyFloor]:
    """Return the constraints that a run's settings ask for.

    Args:
        input_shape: ``(B, C, H, W[, D])`` for which memory, multiply-adds and latency are limited.
        budget_bytes: largest size of the file of weights; several are several constraints, as are the next.
        budget_memory_bytes: most memory for weights and activations.
        budget_macs: most multiply-adds.
        budget_latency_seconds: longest time on this machine.
        min_score: least score relative to the full-size network's.
        bits_per_weight: number of bits of a stored weight.
        count: kind of weights that the disk budget counts beside the file.
        default: the floor if nothing else is asked for; ``None`` for none.

    >>> print(*constraints_from(budget_bytes=250_000))
    at most 250,000 bytes on disk (parameters at 32 bits, and the file)
    >>> print(*constraints_from())
    at least 95.0% of the full-size network's score
    """
    shape = tuple(input_shape or ())
    asked: list[Budget | AccuracyFloor] = [DiskBudget(each, bits_per_weight, count) for each in _several(budget_bytes)]
    asked += [MemoryBudget(each, shape) for each in _several(budget_memory_bytes)]
    asked += [ComputeBudget(each, shape) for each in _several(budget_macs)]
    asked += [LatencyBudget(each, shape) for each in _several(budget_latency_seconds)]
    asked += [AccuracyFloor(each) for each in _several(min_score)]
    return asked or [AccuracyFloor(each) for each in _several(default)]


def _several(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) else [given]


def measure_settings_for(
    law: DegradationModel, measure: str | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``measure`` and its settings: those that a law holds for, unless others are given.

    Args:
        law: the law that predicts.
        measure: a measure; ``None`` for the law's.
        settings: settings of the measure, which take the place of the law's.
    """
    known = {key: value for key, value in law.settings.items() if key != "source"}
    if measure is not None and measure != known.get("measure"):
        known = {"measure": measure}
    return {**known, **(settings or {})}


def measure_by_law(
    items: Any,
    law: DegradationModel,
    *,
    measure: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **given: Any,
) -> ComplexityProfile:
    """Return the profile of a data set by the measure that a law holds for, or by another one.

    Args:
        items: images and labels, as in :func:`~monai_ccnet.complexity.measure_dataset`.
        law: the law that predicts.
        measure: another measure.
        settings: settings of the measure; other arguments of ``measure_dataset`` may be among them.
        given: other arguments of ``measure_dataset``.
    """
    return measure_dataset(items, **{**given, **measure_settings_for(law, measure, settings)})


def check_run(
    output_dir: str | os.PathLike,
    reading: DataReading,
    measured: Mapping[str, Any],
    scales: Sequence[int],
    force: bool = False,
) -> None:
    """Refuse a folder whose run is on other data or by another measure, and keep what was read.

    Args:
        output_dir: folder of the run.
        reading: what was read of the data set.
        measured: the measure and its settings, as :func:`measure_settings_for` returns them.
        scales: scales at which the data set is measured.
        force: whether an earlier run in the folder is forgotten.

    Raises:
        OSError: if the folder cannot be written to.
        ValueError: if a training run was begun in the folder on other data, or after another measurement.
    """
    settings = dict(measured)
    asked = measure_settings(settings.pop("measure"), **settings), tuple(sorted(set(scales)))
    forget_run(output_dir, force)
    check_data(output_dir, reading)
    profile_file = Path(output_dir) / "complexity.json"
    if profile_file.exists() and (Path(output_dir) / "run.json").exists():
        known = ComplexityProfile.load(profile_file)
        if (known.settings, known.scales) != asked:
            raise ValueError(
                f"{output_dir} holds a run by {known.settings} at {known.scales}, asked for is {asked[0]} at "
                f"{asked[1]}: choose another output_dir, or start again with --force True."
            )


def check_constraints(family: NetworkFamily, constraints: Sequence[Budget | AccuracyFloor]) -> None:
    """Refuse a budget below what the smallest network of a family needs, before anything is measured.

    Raises:
        InfeasibleConstraintError: if no width fits; the message says what can be had.
    """
    for each in constraints:
        if isinstance(each, Budget) and not isinstance(each, LatencyBudget):  # that one takes seconds to measure
            least_needed(family, each)


def train_planned(plan: CompressionPlan) -> TrialRecord:
    """Train and evaluate the planned network in the running config, each once; see ``monai_ccnet.training.finish_run``.

    Args:
        plan: whose network the config's ``network`` is.
    """
    return finish_run(running_workflow().parser, plan.network_def)


def save_run(
    output_dir: str | os.PathLike,
    plan: CompressionPlan,
    record: TrialRecord,
    *,
    data: DatasetFolder,
    reading: DataReading,
    planning: Mapping[str, Any],
    full_size_score: float | None = None,
    pictures: bool = True,
) -> None:
    """Write what a run of ``compress.yaml`` leaves: plan, trade-off, report, pictures, page; and print the report.

    Args:
        output_dir: folder of the run.
        plan: the plan.
        record: the record of the network that was trained by it.
        data: the data set.
        reading: what was read of it.
        planning: arguments that the plan was made with, for the trade-off.
        full_size_score: the full-size network's own score, where it is known.
        pictures: whether to draw them.
    """
    folder = Path(output_dir)
    plan.save(folder / "plan.json")
    plans = trade_off(plan.family, **{key: value for key, value in planning.items() if key != "widths"})
    save_trade_off(folder / "trade_off.csv", plans)
    words = save_report(folder / "report.json", plan, record, full_size_score)
    print(*filter(None, [record.failure, plan, words]), sep="\n")
    if pictures:
        drawn = {"plan": figures.draw_plan(plan), "trade_off": figures.draw_trade_off(plans, plan)}
        if plan.complexity is not None:
            drawn["scales"] = _drawn_scales(data, reading, plan.complexity)
        segmented = segment_examples(running_workflow().parser, record.per_image["f1"])
        drawn["overlays"] = figures.draw_overlays({"this plan": segmented})
        for name, figure in drawn.items():
            figures.save_figure(folder / f"{name}.png", figure)
    save_html_report(folder / "report.html", plan, record, full_size_score, reading)


def save_measured(
    output_dir: str | os.PathLike,
    data: DatasetFolder,
    reading: DataReading,
    profile: ComplexityProfile,
    table: str | os.PathLike,
) -> None:
    """Draw what ``measure.yaml`` measured.

    Args:
        output_dir: folder of the run.
        data: the data set.
        reading: what was read of it.
        profile: complexity of the data set.
        table: the CSV file with one row an image.
    """
    if not figures.has_matplotlib:
        print(NO_PICTURES)
        return
    folder = Path(output_dir)
    figures.save_figure(folder / "complexity.png", figures.draw_complexity(profile, table, folder=data.folder))
    figures.save_figure(folder / "scales.png", _drawn_scales(data, reading, profile))


def _drawn_scales(data: DatasetFolder, reading: DataReading, profile: ComplexityProfile) -> Any:
    shown = data.middle
    label = load_image(shown["label"], label=True, label_values=reading.label_values)
    return figures.draw_scales(shown["image"], profile, label=label)


def dataset_of(dataset_dir: str | os.PathLike, recipe: Mapping[str, Any]) -> DatasetFolder:
    """Return a data set with the parts that the training runs of a recipe will see.

    Args:
        dataset_dir: folder of the data set.
        recipe: ids of ``train.yaml``; ``held_out_by`` may be among them.
    """
    return open_dataset(dataset_dir, recipe.get("held_out_by", "auto"))


def reading_of(dataset_dir: str | os.PathLike, recipe: Mapping[str, Any], output_dir: str | os.PathLike) -> DataReading:
    """Return what is read of a data set as the training runs of a recipe will read it, and keep it.

    Args:
        dataset_dir: folder of the data set.
        recipe: ids of ``train.yaml``; ``label_values``, ``spacing`` and ``allow_overlap`` may be among them.
        output_dir: folder that keeps it, in a file of the data set's name.
    """
    data = dataset_of(dataset_dir, recipe)
    saved = Path(output_dir) / f"data-{safe_name(data.name)}.json"
    given = {key: recipe[key] for key in _READ_AS if key in recipe}
    reading = read_dataset(data, saved=saved, progress=True, **given)
    reading.keep(saved)
    return reading


def measure_for_calibration(
    dataset_dirs: Sequence[str | os.PathLike],
    measures: Sequence[str],
    output_dir: str | os.PathLike,
    recipe: Mapping[str, Any],
) -> list[ComplexityProfile]:
    """Return the profile of each data set by each measure; those that are there already are not measured again.

    Args:
        dataset_dirs: folders of the data sets.
        measures: keys of ``MEASURES``.
        output_dir: folder of the calibration; the profiles are kept in its ``profiles``.
        recipe: ids of ``train.yaml`` for the training runs, some of which say how images are read.
    """
    profiles = []
    for data in (dataset_of(folder, recipe) for folder in dataset_dirs):
        for measure in measures:
            saved = Path(output_dir) / "profiles" / f"{safe_name(data.name)}-{measure}.json"
            loading = {key: recipe.get(key) for key in _LOADING}
            profile = measure_dataset(
                data.training, measure, name=data.name, folder=data.folder, saved=saved, loading=loading
            )
            profiles.append(profile)
    return profiles


def save_calibration(
    output_dir: str | os.PathLike,
    trials: Sequence[Trial],
    records: Sequence[TrialRecord],
    profiles: Sequence[ComplexityProfile],
    *,
    pictures: bool = True,
    **given: Any,
) -> list[DegradationModel]:
    """Fit the law of each measure, write the best as ``degradation.json``, print all, and draw what was found.

    Args:
        output_dir: folder of the calibration.
        trials: training runs of the sweep.
        records: records of these runs.
        profiles: complexity of their data sets, by each measure.
        pictures: whether to draw them.
        given: ``metric``, ``curvature``, ``omegas`` and ``source`` of :func:`~monai_ccnet.calibration.calibrate`.
    """
    folder = Path(output_dir)
    if errors := [record.error for record in records if record.error is not None]:
        print(f"{len(errors)} of {len(records)} training runs failed, such as by {errors[0]}")
        if len(errors) == len(records):
            raise ValueError(f"all {len(errors)} training runs failed, the first by {errors[0]}")
    laws = calibrate(records, profiles, **given)
    best, chosen = laws[0], profiles_for(laws[0], profiles)
    best.save(folder / "degradation.json")
    print(*laws, sep="\n")
    if not pictures:
        print(NO_PICTURES)
        return laws
    points = degradation_points(records, {profile.dataset: profile.at(1) for profile in chosen}, best.metric)
    drawn = {"degradation": figures.draw_degradation(best, points), "profiles": figures.draw_profiles(chosen)}
    if len(best.dataset_slopes) > 2:
        drawn["measures"] = figures.draw_measures(rank_measures(profiles, best.dataset_slopes))
    for dataset, segmented in segment_sweep(trials).items():
        drawn[f"overlays-{safe_name(dataset)}"] = figures.draw_overlays(segmented)
    for name, figure in drawn.items():
        figures.save_figure(folder / f"{name}.png", figure)
    return laws


def check_calibration(
    dataset_dirs: Sequence[str | os.PathLike],
    multipliers: Sequence[float],
    measures: Sequence[str],
    metric: str,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a calibration that could not be fitted, before anything is trained.

    Args:
        dataset_dirs: Decathlon folders.
        multipliers: multipliers of the training runs.
        measures: measures of complexity.
        metric: score that the law predicts.
        recipe: ids of ``train.yaml`` for the training runs.

    Raises:
        ValueError: if there are fewer than two data sets, no full-size network, or an unknown measure or metric; or a
            data set cannot be used or scored.
    """
    names = [open_dataset(folder).name for folder in dataset_dirs]
    check_shared_recipe(recipe or {})
    if len(set(names)) < 2:
        raise ValueError(f"a law needs at least two data sets, got {names}: give --dataset_dirs \"['A','B']\".")
    if 1 not in multipliers:
        raise ValueError(f"multiplier 1 must be among {list(multipliers)}: scores relate to the full-size network's.")
    if len(set(multipliers)) < 2:
        raise ValueError(f"a law needs a narrower network beside the full-size one: add one to {list(multipliers)}.")
    if not measures:
        raise ValueError("measures is empty: name one, or leave it out for all.")
    for measure in measures:
        measure_settings(measure)
    if metric not in ("f1", "iu"):
        raise ValueError(f"metric must be 'f1' or 'iu', got {metric!r}.")
    for folder in dataset_dirs:
        data, given = dataset_of(folder, recipe or {}), {k: v for k, v in (recipe or {}).items() if k in _READ_AS}
        check_scorable(read_dataset(data, progress=True, **given))


def check_shared_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse settings for several training runs that each run has its own of, or that are unknown.

    Args:
        recipe: ids of ``train.yaml``.

    Raises:
        ValueError: with the setting to give in its place.
    """
    own = {"seed": "seeds", "dataset_dir": "dataset_dirs or dataset_dir", "output_dir": "output_dir"}
    for name in own.keys() & recipe.keys():
        raise ValueError(f"recipe holds {name}, and each training run has its own: give --{own[name]} instead.")
    check_recipe(recipe)


def check_profiles(profiles: Sequence[ComplexityProfile]) -> None:
    """Refuse data sets that no measure tells apart, before anything is trained on them.

    Raises:
        ValueError: if each measure gives all of them the same complexity at full scale.
    """
    by_measure: dict[str, set[float]] = {}
    for profile in profiles:
        by_measure.setdefault(profile.settings["measure"], set()).add(profile.at(1))
    if all(len(found) < 2 for found in by_measure.values()):
        raise ValueError(
            f"all data sets are equally complex by {', '.join(sorted(by_measure))}, so that no law can be fitted: "
            "choose sets that differ."
        )


def sweep_source(dataset_dirs: Sequence[str | os.PathLike]) -> str:
    """Return how predictions name a sweep on some data sets."""
    return f"a sweep on {', '.join(open_dataset(folder).name for folder in dataset_dirs)}"


def law_on_data(
    law: str,
    network_def: Mapping[str, Any],
    metric: str,
    data: DatasetFolder,
    output_dir: str | os.PathLike,
    recipe: Mapping[str, Any],
) -> tuple[ComplexityProfile, DegradationModel]:
    """Return the profile of a data set by the measure of a law, and the law.

    Args:
        law: name of a law, as :meth:`DegradationModel.named` takes it.
        network_def: the full-size network's config.
        metric: score that the law predicts.
        data: the data set.
        output_dir: folder that keeps the profile.
        recipe: ids of ``train.yaml`` for the training runs, some of which say how images are read.
    """
    model = DegradationModel.named(law, network_def, metric)
    saved = Path(output_dir) / ("complexity.json" if metric == "f1" else f"complexity_{metric}.json")
    loading = {key: recipe.get(key) for key in _LOADING}
    profile = measure_by_law(data.training, model, name=data.name, folder=data.folder, saved=saved, loading=loading)
    return profile, model.assuming(profile.settings)


def compare_all(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraints: Sequence[Budget | AccuracyFloor],
    laws: Sequence[tuple[ComplexityProfile, DegradationModel]],
    *,
    recipe: Mapping[str, Any],
    **given: Any,
) -> list[Rival]:
    """Train every method, as :func:`~monai_ccnet.comparison.compare` does.

    Args:
        bundle_root: folder of the bundle.
        output_dir: folder of the comparison.
        network_def: the full-size network's config.
        constraints: budgets and floors.
        laws: profiles and laws; the first is that of the plans.
        recipe: ids of ``train.yaml``.
        given: ``methods``, ``seeds`` and ``dataset_dir``.
    """
    (complexity, degradation), *further = laws
    recipe = {key: value for key, value in recipe.items() if key not in ("network_def", "channels")}
    rivals = compare(
        bundle_root,
        output_dir,
        network_def,
        constraints,
        complexity=complexity,
        degradation=degradation,
        further_laws=further,
        **given,
        **recipe,
    )
    if not rivals:
        raise ValueError("no method has a network that keeps to any of the constraints: raise the budgets.")
    return rivals


def save_comparison(output_dir: str | os.PathLike, rivals: Sequence[Rival], *, pictures: bool = True) -> None:
    """Write the table of a comparison in three forms, draw it, and print it.

    Args:
        output_dir: folder of the comparison.
        rivals: networks that were trained.
        pictures: whether to draw them.
    """
    folder = Path(output_dir)
    rows = compare_table(rivals, rival_latencies(folder, rivals))
    for kind in (".csv", ".json", ".md"):
        write_table(folder / f"comparison{kind}", rows)
    for what in ("file_bytes", "macs") if pictures else ():
        figures.save_figure(folder / f"comparison_{what}.png", figures.draw_comparison(rows, what))
    print((folder / "comparison.md").read_text(encoding="utf-8"))


def distributed(network: torch.nn.Module, device: Any) -> torch.nn.Module:
    """Return a network on its device, wrapped where a process group has been set up."""
    network, device = network.to(device), torch.device(device)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return network
    ids = [device] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=ids)


def save_planned_weights(
    network: torch.nn.Module, path: str | os.PathLike, bits_per_weight: int, first_process: bool = True
) -> None:
    """Write the weights of a planned network, in the first process, and say so.

    Args:
        network: after its training; wrapped or not.
        path: path of the file.
        bits_per_weight: number of bits of a stored weight.
        first_process: whether this is the one that writes.
    """
    if first_process:
        written = save_weights(network, path, bits_per_weight)
        print(f"Written: {path} of {written:,} bytes, and its plan.json.")
