"""Fit the laws that the package ships to the records of the calibration, and write their tables and pictures.

    python tests/benchmarks/ship_calibration.py                           # from the records that are there
    python tests/benchmarks/ship_calibration.py SWEEP_FOLDER DATA_FOLDER  # take in further records first
    python tests/benchmarks/ship_calibration.py --check                   # only compare the tables with the saved ones

The records are in ``docs/calibration/<network>.jsonl`` of the bundle. The laws go to
``monai_ccnet/degradation/calibrated/<network>/<metric>.json``, the pictures to ``docs/*.png``, the tables to
``docs/calibration/*.csv``; laws and tables that did not change stay as they are, and pages are not touched.
``recipes.csv`` there is of other runs: ``compare_recipes.py`` makes it. SWEEP_FOLDER holds runs as ``run_sweep`` leaves
them, DATA_FOLDER the data sets, of which only the complexity is kept.
"""

import argparse
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from csv_tables import deviation, saved_rows
from monai.data import load_decathlon_datalist

from monai_ccnet import bundle_root
from monai_ccnet.calibration import degradation_points, predict_left_out, profiles_for, refit
from monai_ccnet.calibration.fit import RECORDS, network_family
from monai_ccnet.complexity import (
    MEASURES,
    ComplexityProfile,
    jb_complexity,
    measure_dataset,
    measure_settings,
    rank_measures,
)
from monai_ccnet.degradation import CALIBRATED, DegradationModel, DegradationPoint, Prediction
from monai_ccnet.figures import draw_degradation, draw_measures, save_figure
from monai_ccnet.files import read_json, write_table
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import MULTIPLIERS, load_records
from monai_ccnet.values import load_values, save_values

FAMILIES = {
    ("PlainUNet", 2): "plain_unet",
    ("PlainUNet", 3): "plain_unet_3d",
    ("CUMedVision", 2): "cumedvision",
    ("UCUNet", 2): "ucunet",
}
METRICS = ("f1", "iu")
Row = dict[str, Any]


def family_of(record: TrialRecord) -> str:
    return FAMILIES[network_family(record.network_def), record.network_def["spatial_dims"]]


def records_file(network: str) -> Path:
    return RECORDS / f"{network}.jsonl"


def take_in(sweep: Path, data: Path) -> None:
    """Add the finished records of data sets whose full-size network is finished too, and their complexity."""
    found = [TrialRecord.load(path) for path in sorted(sweep.glob("*/record.json"))]
    for network in sorted({family_of(record) for record in found if record.error is None}):
        path = records_file(network)
        known = load_records(path) if path.exists() else []
        new = [record for record in found if record.error is None and family_of(record) == network]
        trials = {trial_of(record): record for record in [*known, *map(without_place, new)]}
        full = {record.dataset for record in trials.values() if record.multiplier == 1}
        records = [record for record in trials.values() if record.dataset in full]
        by_trial = sorted(records, key=lambda record: (record.dataset, record.multiplier, record.recipe["seed"]))
        save_values(path, [*by_trial, *measured(full, data, profiles_of(network) if known else [])])


def without_place(record: TrialRecord) -> TrialRecord:
    return replace(record, recipe={key: value for key, value in record.recipe.items() if key != "dataset_dir"})


def trial_of(record: TrialRecord) -> str:
    """Return what was trained on what and how: a record of the same takes the place of an earlier one."""
    return json.dumps([record.dataset, record.network_def, record.recipe], sort_keys=True)


def measured(names: set[str], data: Path, known: list[ComplexityProfile]) -> list[ComplexityProfile]:
    """Return the profiles of some data sets by every measure; only those that are not known are measured."""
    profiles = {(profile.dataset, profile.settings["measure"]): profile for profile in known}
    folders = {read_json(path)["name"]: path.parent for path in data.glob("*/dataset.json")}
    for key in [(name, measure) for name in names for measure in MEASURES]:
        name, measure = key
        if key not in profiles or profiles[key].settings != measure_settings(measure):
            items = load_decathlon_datalist(folders[name] / "dataset.json")
            profiles[key] = measure_dataset(items, measure, name=name)
    return [profiles[key] for key in sorted(profiles)]


def profiles_of(network: str) -> list[ComplexityProfile]:
    return load_values(records_file(network), ComplexityProfile)


class Calibration:
    """The records of one network and what is fitted to them."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.records = load_records(records_file(network))
        self.used = [record for record in self.records if record.multiplier in MULTIPLIERS]
        self.full = [record for record in self.records if record.multiplier == 1]
        self.datasets = sorted({record.dataset for record in self.full})
        widths = {record.multiplier for record in self.records if record.multiplier is not None}
        self.widths = sorted(widths, reverse=True)

    @cached_property
    def models(self) -> dict[str, list[DegradationModel]]:
        """The laws of each metric, the best first; none if any line would go through so few data sets."""
        if len(self.datasets) < 3:
            return {}
        return {metric: refit(self.network, metric) for metric in METRICS}

    def points(self, metric: str, records: list[TrialRecord] | None = None) -> list[DegradationPoint]:
        """Return the networks of the records at the paper's widths, or of others, by the measure of the best law."""
        profiles = profiles_for(self.models[metric][0], profiles_of(self.network))
        return degradation_points(
            self.used if records is None else records, {each.dataset: each.at(1) for each in profiles}, metric
        )

    def complexity_of_the_paper(self, dataset: str, law: DegradationModel) -> float:
        """Return the complexity by the measure of one of the paper's laws: JPEG, or its mix with the foreground."""
        found = {each.settings["measure"]: each.at(1) for each in profiles_of(self.network) if each.dataset == dataset}
        omega = law.settings.get("omega", 1.0)
        return jb_complexity(found["jpeg"], found["foreground"], omega)

    def save(self) -> None:
        """Save the best laws, and draw that of F1 and the measures beside it."""
        for metric, (model, *_) in self.models.items():
            path = CALIBRATED / self.network / f"{metric}.json"
            if not path.exists() or without_last_digits(DegradationModel.load(path)) != without_last_digits(model):
                model.save(path)
        if self.models:
            best, docs = self.models["f1"][0], bundle_root() / "docs"
            save_figure(docs / f"calibration_{self.network}.png", draw_degradation(best, self.points("f1")))
            profiles = [each for each in profiles_of(self.network) if each.dataset in best.dataset_slopes]
            fits = rank_measures(profiles, best.dataset_slopes)
            save_figure(docs / f"measures_{self.network}.png", draw_measures(fits))


def without_last_digits(model: DegradationModel) -> str:
    """Return a law as text, without the digits in which the arithmetic of two machines differs."""
    return re.sub(r"\d+\.\d+(e[+-]\d+)?", lambda number: f"{float(number[0]):.9g}", repr(model))


def networks(each: Calibration) -> Iterator[Row]:
    narrowest = [record for record in each.used if record.multiplier == min(MULTIPLIERS)]
    yield {
        "full_size_channels": "-".join(map(str, each.full[0].network_def["channels"])),
        "runs_at_the_papers_widths": len(each.used),
        "held_out_runs": len(each.records) - len(each.used),
        "runs_that_failed_to_learn": failures(each.records),
        "runs_at_the_narrowest_width": len(narrowest) or None,
        "of_these_failed_to_learn": failures(narrowest) if narrowest else None,
        "data_sets": " ".join(each.datasets),
    }


def failures(records: list[TrialRecord]) -> int:
    return sum(not record.has_learned for record in records)


def convergence(each: Calibration) -> Iterator[Row]:
    """How much the training loss still fell at the end: the last eighth of the steps, by the eighth before."""
    for width in each.widths:
        runs = [record.losses for record in each.records if record.multiplier == width]
        ratios = [np.mean(losses[-2:]) / np.mean(losses[-4:-2]) for losses in runs]
        yield {"width_multiplier": f"{width:g}", "median_loss_ratio": f"{np.median(ratios):.2f}"}


def scores(each: Calibration) -> Iterator[Row]:
    for metric in METRICS:
        for dataset in each.datasets:
            for width in each.widths:
                found = [r.scores[metric] for r in each.records if (r.dataset, r.multiplier) == (dataset, width)]
                if found:
                    yield {
                        "metric": metric,
                        "data_set": dataset,
                        "width_multiplier": f"{width:g}",
                        "score": f"{np.mean(found):.3f}",
                        "standard_deviation_over_seeds": deviation(found),
                    }


def measures(each: Calibration) -> Iterator[Row]:
    for metric, models in each.models.items():
        curved = {model.settings["measure"]: model for model in refit(each.network, metric, curvature=None)}
        for model in models:
            curve = curved[model.settings["measure"]]
            yield {
                "metric": metric,
                "measure": model.settings["measure"],
                "omega": f"{model.settings['omega']:g}" if "omega" in model.settings else "",
                "leave_one_set_out_error_line": rounded(model.left_out_error, 4),
                "leave_one_set_out_error_curve": rounded(curve.left_out_error, 4),
                "curvature": f"{curve.curvature:.2f}",
                "r_squared_of_slopes": rounded(model.r_squared, 2),
                **constants(model),
            }


def rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def constants(model: DegradationModel) -> Row:
    errors = [f"{error:.2g}" for error in model.standard_errors or ()] or ["", ""]
    return {
        "slope": f"{model.slope:.4g}",
        "slope_standard_error": errors[0],
        "intercept": f"{model.intercept:.4g}",
        "intercept_standard_error": errors[1],
    }


def laws(each: Calibration) -> Iterator[Row]:
    """The shipped laws."""
    for metric, (model, *_) in each.models.items():
        yield {
            "metric": metric,
            "measure": model.settings["measure"],
            **constants(model),
            "training_runs": len(each.used),
            "r_squared": rounded(model.r_squared, 2),
            "data_sets": model.datasets,
            "leave_one_set_out_error": rounded(model.left_out_error, 3),
            **{f"error_{name}": rounded(error, 3) for name, error in sorted(model.left_out_errors.items())},
        }


def without_one_set(each: Calibration) -> Iterator[Row]:
    """The laws as they would be without each of the data sets."""
    for metric in metrics_to_leave_out(each):
        points = each.points(metric)
        complexities = {point.dataset: point.complexity for point in points}
        centred = np.array(list(complexities.values())) - np.mean(list(complexities.values()))
        leverages = dict(zip(complexities, 1 / len(centred) + centred**2 / np.sum(centred**2), strict=True))
        for name in each.datasets:
            model = DegradationModel.fit([point for point in points if point.dataset != name])
            yield {
                "metric": metric,
                "data_set_left_out": name,
                **constants(model),
                "r_squared_of_slopes": rounded(model.r_squared, 2),
                "leverage_in_the_law_of_all": f"{leverages[name]:.2f}",
            }


def metrics_to_leave_out(each: Calibration) -> list[str]:
    """Return the metrics whose law still has an interval if a data set is left out."""
    return list(each.models) if len(each.datasets) > 3 else []


def predictions(each: Calibration) -> Iterator[Row]:
    """Predicted and achieved scores near 8 and 32 times fewer weights, each data set left out of its own fit."""
    for metric in metrics_to_leave_out(each):
        points = each.points(metric, each.records)
        tried = [point for point in points if any(0.8 < point.compression / times < 1.25 for times in (8, 32))]
        pairs = predict_left_out(tried, each.points(metric))
        for point, prediction in sorted(pairs, key=lambda pair: (pair[0].dataset, pair[0].compression)):
            yield {
                "metric": metric,
                "data_set_left_out": point.dataset,
                "times_fewer_weights": f"{point.compression:.1f}",
                "predicted": f"{prediction.score:.3f}",
                **interval(prediction),
                "achieved": f"{point.score:.3f}",
            }


def interval(prediction: Prediction) -> Row:
    return {"interval_low": f"{prediction.low:.3f}", "interval_high": f"{prediction.high:.3f}"}


def extrapolations(each: Calibration) -> Iterator[Row]:
    """Predicted and achieved scores of networks narrower than any that the law was fitted to."""
    for metric in metrics_to_leave_out(each):
        fitted = each.points(metric)
        most = max(point.compression for point in fitted)
        further = [point for point in each.points(metric, each.records) if point.compression > most]
        pairs = predict_left_out(further, fitted)
        for name in each.datasets:
            own = [(point, prediction) for point, prediction in pairs if point.dataset == name]
            if not own:
                continue
            achieved, (point, prediction) = [tried.score for tried, _ in own], own[0]
            yield {
                "metric": metric,
                "data_set_left_out": name,
                "times_fewer_weights": f"{point.compression:.0f}",
                "extrapolated": f"{prediction.score:.3f}",
                **interval(prediction),
                "achieved_mean": f"{np.mean(achieved):.3f}",
                "achieved_least": f"{min(achieved):.3f}",
                "achieved_most": f"{max(achieved):.3f}",
                "runs_that_failed_to_learn": sum(not tried.has_learned for tried, _ in own),
            }


def adapted(each: Calibration) -> Iterator[Row]:
    """What the narrowest networks of a data set's own buy for the prediction of its network 16 times smaller."""
    for metric in metrics_to_leave_out(each):
        points = each.points(metric)
        for count in range(4):
            reaches, misses = [], []
            for name in each.datasets:
                model = DegradationModel.fit([point for point in points if point.dataset != name])
                own = {round(point.compression): point for point in points if point.dataset == name}
                narrowest = sorted(own.values(), key=lambda point: -point.compression)
                wide = next(point for point in narrowest if point.compression < 20)
                if count:
                    model = model.adapt(narrowest[:count])
                predicted = model.predict_interval(wide.complexity, wide.compression)
                reaches.append(predicted.score - predicted.low)  # the other end is cut off at the full-size score
                misses.append(abs(predicted.score - min(1.0, wide.score)))
            yield {
                "metric": metric,
                "narrow_networks_of_its_own": count,
                "mean_absolute_error": f"{np.mean(misses):.4f}",
                "mean_reach_of_interval_downwards": f"{np.mean(reaches):.3f}",
            }


def baselines(each: Calibration) -> Iterator[Row]:
    """The error of the law beside simpler predictions on sets left out; each set and width counts once, or each run."""
    widths = [width for width in each.widths if min(MULTIPLIERS) <= width < 1]
    for metric in metrics_to_leave_out(each):
        fitted, paper = each.points(metric), DegradationModel.named("paper", each.full[0].network_def, metric)
        models = {
            name: DegradationModel.fit([point for point in fitted if point.dataset != name]) for name in each.datasets
        }
        misses: dict[str, list[list[float]]] = defaultdict(list)
        for width in widths:
            points = each.points(metric, [*each.full, *(r for r in each.records if r.multiplier == width)])
            tried = {name: [p for p in points if p.dataset == name and p.compression > 1] for name in each.datasets}
            tried = {name: own for name, own in tried.items() if own}
            achieved = {name: float(np.mean([point.score for point in own])) for name, own in tried.items()}
            for name, own in tried.items():
                others = [score for other, score in achieved.items() if other != name]
                predicted = {
                    "nothing is lost": 1.0,
                    "law": models[name].predict(own[0].complexity, own[0].compression),
                    "mean loss at that width on the other sets": float(np.mean(others)),
                    "the paper's constants": paper.predict(
                        each.complexity_of_the_paper(name, paper), own[0].compression
                    ),
                }
                for by, score in predicted.items():
                    misses[by].append([abs(point.score - score) for point in own])
        for by, found in misses.items():
            yield {
                "metric": metric,
                "prediction": by,
                "mean_absolute_error": f"{np.mean([np.mean(runs) for runs in found]):.4f}",
                "data_sets_and_widths": len(found),
                "mean_absolute_error_of_runs": f"{np.mean(np.concatenate(found)):.4f}",
                "runs": sum(map(len, found)),
            }


def chance(each: Calibration) -> Iterator[Row]:
    """How often the best of the measures fits the data sets' slopes as well if the slopes are dealt out at random."""
    for metric in metrics_to_leave_out(each):
        slopes = each.models[metric][0].dataset_slopes
        complexities: dict[str, dict[str, float]] = defaultdict(dict)
        for profile in profiles_of(each.network):
            complexities[profile.settings["measure"]][profile.dataset] = profile.at(1)
        columns = [[values[name] for name in slopes] for values in complexities.values()]
        measured = standardized([values for values in columns if len(set(values)) > 1])
        dealt = standardized(list(itertools.permutations(slopes.values())))  # the first is as they are
        best = ((measured @ dealt.T) ** 2).max(axis=0)
        yield {
            "metric": metric,
            "measures": len(measured),
            "data_sets": len(slopes),
            "best_r_squared_of_slopes": f"{best[0]:.2f}",
            "permutation_p": f"{np.mean(best >= best[0] - 1e-9):.3f}",
        }


def standardized(rows: list) -> np.ndarray:
    """Return rows of mean 0 and length 1, whose products are correlations."""
    centred = np.asarray(rows, dtype=float)
    centred -= centred.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


TABLES = (
    *(networks, scores, convergence, measures, laws, without_one_set),
    *(predictions, extrapolations, adapted, baselines, chance),
)


def filled(rows: list[Row]) -> list[Row]:
    """Return rows that all have the columns of all, those that a row lacks left empty."""
    columns = dict.fromkeys(column for row in sorted(rows, key=len, reverse=True) for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="SWEEP_FOLDER DATA_FOLDER")
    parser.add_argument("--check", action="store_true", help="only compare the tables with the saved ones")
    given = parser.parse_args()
    if len(given.folders) not in (0, 2) or (given.check and given.folders):
        parser.error("give SWEEP_FOLDER and DATA_FOLDER, or neither, and neither with --check.")
    if given.folders:
        take_in(*given.folders)
    calibrations = [Calibration(path.stem) for path in sorted(RECORDS.glob("*.jsonl"))]
    differing = []
    for table in TABLES:
        rows = filled([{"network": each.network, **row} for each in calibrations for row in table(each)])
        path = RECORDS / f"{table.__name__}.csv"
        same = [{column: "" if value is None else str(value) for column, value in row.items()} for row in rows]
        if not path.exists() or saved_rows(path) != same:
            differing.append(path.name)
            if not given.check:
                write_table(path, rows)
    if given.check:
        raise SystemExit(f"these tables differ from the records: {differing}" if differing else 0)
    for each in calibrations:
        each.save()
    print(f"tables that changed: {', '.join(differing) or 'none'}")


if __name__ == "__main__":
    main()
