"""What calibrate.yaml and compare.yaml call: data sets of a sweep, its profiles, laws and rivals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ccnet import figures
from monai_ccnet.bundle.runs import NO_PICTURES, measure_by_law
from monai_ccnet.calibration import calibrate, calibrate_width, degradation_points, profiles_for
from monai_ccnet.comparison import Rival, compare, compare_table, rival_latencies
from monai_ccnet.complexity import (
    ComplexityProfile,
    measure_dataset,
    measure_settings,
    rank_measures,
    scales_with,
)
from monai_ccnet.configs import check_recipe
from monai_ccnet.constraints import (
    AccuracyFloor,
    Budget,
    scales_needed,
)
from monai_ccnet.data import (
    DataReading,
    DatasetFolder,
    check_scorable,
    open_dataset,
    read_dataset,
    safe_name,
)
from monai_ccnet.degradation import DegradationModel, Law, law_named
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import Trial, loading_of, segment_sweep

__all__ = [
    "check_calibration",
    "check_profiles",
    "check_shared_recipe",
    "compare_all",
    "dataset_of",
    "law_on_data",
    "measure_for_calibration",
    "reading_of",
    "save_calibration",
    "save_comparison",
    "sweep_source",
]

_READ_AS = ("label_values", "allow_overlap")  # ids of train.yaml that say how a data set is read


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
        recipe: ids of ``train.yaml``; ``label_values`` and ``allow_overlap`` may be among them.
        output_dir: folder that keeps it, in a file of the data set's name.
    """
    data = dataset_of(dataset_dir, recipe)
    saved = Path(output_dir) / f"data-{safe_name(data.name)}.json"
    reading = _read(data, recipe, saved)
    reading.keep(saved)
    return reading


def _read(data: DatasetFolder, recipe: Mapping[str, Any], saved: Path | None = None) -> DataReading:
    given = {key: recipe[key] for key in _READ_AS if key in recipe}
    return read_dataset(data, saved=saved, progress=True, **given)


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
        loading = loading_of(recipe, _read(data, recipe))
        for measure in measures:
            saved = Path(output_dir) / "profiles" / f"{safe_name(data.name)}-{measure}.json"
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
    """Fit the laws, print them, and draw what was found.

    The best law in complexity is written as ``degradation.json``, the law in width as ``width.json``.

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
    in_width = calibrate_width(records, metric=given.get("metric", "f1"), source=given.get("source", ""))[0]
    best, chosen = laws[0], profiles_for(laws[0], profiles)
    best.save(folder / "degradation.json")
    in_width.save(folder / "width.json")
    print(*laws, in_width, sep="\n")
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
    training: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a calibration that could not be fitted, before anything is trained.

    Args:
        dataset_dirs: Decathlon folders.
        multipliers: multipliers of the training runs.
        measures: measures of complexity.
        metric: score that the law predicts.
        training: ids of ``train.yaml`` for the training runs.

    Raises:
        ValueError: if there are fewer than two data sets, no full-size network, or an unknown measure or metric; or a
            data set cannot be used or scored.
    """
    names = [open_dataset(folder).name for folder in dataset_dirs]
    check_shared_recipe(training or {})
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
        check_scorable(_read(dataset_of(folder, training or {}), training or {}))


def check_shared_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse settings for several training runs that each run has its own of, or that are unknown.

    Args:
        recipe: ids of ``train.yaml``.

    Raises:
        ValueError: with the setting to give in its place.
    """
    own = {"seed": "seeds", "dataset_dir": "dataset_dirs or dataset_dir", "output_dir": "output_dir"}
    own |= {"scale": "scale", "recipe": "recipe"}
    for name in own.keys() & recipe.keys():
        raise ValueError(f"training holds {name}, and each training run has its own: give --{own[name]} instead.")
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
) -> tuple[ComplexityProfile, Law]:
    """Return the profile of a data set by the measure of a law, at the scales that the network needs, and the law.

    Args:
        law: name of a law, as :func:`~monai_ccnet.degradation.law_named` takes it.
        network_def: the full-size network's config.
        metric: score that the law predicts.
        data: the data set.
        output_dir: folder that keeps the profile.
        recipe: ids of ``train.yaml`` for the training runs, some of which say how images are read.
    """
    family = NetworkFamily.of(network_def)
    model = law_named(law, family.network_def, metric)
    scales = scales_with(scales_needed(family, family.scale))
    saved = Path(output_dir) / ("complexity.json" if metric == "f1" else f"complexity_{metric}.json")
    loading = loading_of(recipe, _read(data, recipe))
    profile = measure_by_law(
        data.training, model, scales=scales, name=data.name, folder=data.folder, saved=saved, loading=loading
    )
    return profile, model.assuming(profile.settings)


def compare_all(
    bundle_root: str | os.PathLike,
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    constraints: Sequence[Budget | AccuracyFloor],
    laws: Sequence[tuple[ComplexityProfile, Law]],
    *,
    training: Mapping[str, Any],
    **given: Any,
) -> list[Rival]:
    """Train every method, as :func:`~monai_ccnet.comparison.compare` does.

    Args:
        bundle_root: folder of the bundle.
        output_dir: folder of the comparison.
        network_def: the full-size network's config.
        constraints: budgets and floors.
        laws: profiles and laws; the first is that of the plans.
        training: ids of ``train.yaml``.
        given: ``methods``, ``seeds`` and ``dataset_dir``.
    """
    (complexity, degradation), *further = laws
    training = {key: value for key, value in training.items() if key not in ("network_def", "channels")}
    rivals = compare(
        bundle_root,
        output_dir,
        network_def,
        constraints,
        complexity=complexity,
        degradation=degradation,
        further_laws=further,
        **given,
        **training,
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
