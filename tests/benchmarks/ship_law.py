"""Fit the laws in width that the package ships, and judge them on data sets that were left out.

    python tests/benchmarks/ship_law.py                      # from the records that are there
    python tests/benchmarks/ship_law.py RESULTS DATA         # take in what train_widths.py left first
    python tests/benchmarks/ship_law.py --check              # only refit, and compare with what is shipped

The records are in ``docs/law/<network>.jsonl`` of the bundle, with the ceilings and complexities of the data sets. The
laws go to ``monai_ccnet/degradation/calibrated/<network>/<metric>_width.json``, the tables to ``docs/law/*.csv``.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from ship_calibration import without_place

from monai_ccnet.calibration import calibrate_width, load_width_records, planned_scales, refit_width, width_points
from monai_ccnet.calibration.fit import SEVERAL_PATIENTS, WIDTH_RECORDS
from monai_ccnet.complexity import MEASURES, ComplexityProfile, LabelCeiling, measure_dataset
from monai_ccnet.data import open_dataset
from monai_ccnet.degradation import CALIBRATED, WIDTH_MEASURES, WidthLaw, WidthPoint
from monai_ccnet.files import write_table
from monai_ccnet.networks import inner_def
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import per_axis, scale_words
from monai_ccnet.values import load_values, save_values

NETWORKS = {2: "plain_unet", 3: "plain_unet_3d"}
METRICS = ("f1", "iu")
WIDE = 16  # channels of the first stage, from which a network is a reference
FEWEST_SETS = 5  # to which a law is fitted
Row = dict[str, Any]


def channels_of(record: TrialRecord) -> tuple[int, ...]:
    return tuple(inner_def(record.network_def)["channels"])


def words(channels: tuple[int, ...]) -> str:
    return "-".join(map(str, channels))


def take_in(results: Path, data: Path) -> None:
    """Replace the records by those of finished trainings, and measure the data sets that are not measured yet."""
    found = [TrialRecord.load(path) for path in sorted(results.glob("*/record.json"))]
    ceilings = {each.dataset: each for each in map(LabelCeiling.load, sorted(results.glob("*.ceiling.json")))}
    for dims, network in NETWORKS.items():
        records = [
            replace(without_place(record), per_image={"f1": record.per_image["f1"]})
            for record in found
            if record.error is None and inner_def(record.network_def)["spatial_dims"] == dims
        ]
        if not records:
            continue
        path = WIDTH_RECORDS / f"{network}.jsonl"
        names = sorted({record.dataset for record in records})
        known = load_values(path, ComplexityProfile) if path.exists() else []
        profiles = {(each.dataset, each.settings["measure"]): each for each in known}
        for name, measure in itertools.product(names, MEASURES):
            if (name, measure) not in profiles:
                items = open_dataset(data / name).training
                profiles[name, measure] = measure_dataset(items, measure, name=name)
        records.sort(key=lambda r: (r.dataset, str(r.scale), channels_of(r), r.recipe["seed"]))
        kept = [profiles[key] for key in sorted(profiles) if key[0] in names]
        save_values(path, [*records, *(ceilings[name] for name in names), *kept])


class Records:
    """The trainings of one network at the planned scales, and what is known of their data sets."""

    def __init__(self, network: str) -> None:
        self.network, self.all = network, load_width_records(network)
        self.scales = planned_scales(network)
        self.planned = [record for record in self.all if record.scale == self.scales[record.dataset]]
        self.sets = sorted({record.dataset for record in self.planned})
        self.fitted = [name for name in self.sets if name in SEVERAL_PATIENTS]  # the others only judge
        self.has_law = len(self.fitted) >= FEWEST_SETS
        self.complexities: dict[str, dict[str, float]] = defaultdict(dict)
        for profile in load_values(WIDTH_RECORDS / f"{network}.jsonl", ComplexityProfile):
            self.complexities[profile.settings["measure"]][profile.dataset] = profile.mean[0]

    def of(self, name: str) -> list[TrialRecord]:
        return [record for record in self.planned if record.dataset == name]

    def reference(self, name: str, metric: str) -> list[TrialRecord]:
        return [record for record in self.of(name) if channels_of(record)[0] >= WIDE and record.has_learned]

    def usable_measures(self) -> list[str]:
        return [each for each, known in self.complexities.items() if len(set(known.values())) > 1]


def chosen_law(records: Records, sets: list[str], metric: str, with_complexity: bool) -> tuple[WidthLaw, str]:
    """Return the law of some data sets whose measure of width, and of complexity, has the largest evidence."""
    kept = [record for record in records.planned if record.dataset in sets]
    fitted: list[tuple[float, WidthLaw, str]] = []
    for measure in WIDTH_MEASURES:
        law, evidence = WidthLaw.with_evidence(width_points(kept, measure, metric), measure=measure, metric=metric)
        fitted.append((evidence, law, ""))
    if with_complexity:
        best = max(fitted, key=lambda each: each[0])[1].measure
        for name in records.usable_measures():
            points = width_points(kept, best, metric, records.complexities[name])
            given = {"measure": best, "metric": metric, "settings": {"measure": name}}
            law, evidence = WidthLaw.with_evidence(points, **given)
            fitted.append((evidence, law, name))
    _, law, complexity = max(fitted, key=lambda each: each[0])
    return law, complexity


def width_of(record: TrialRecord, law: WidthLaw) -> float:
    return width_points([record], law.measure)[0].width


def judged(records: Records, metric: str) -> tuple[list[Row], list[Row]]:
    """Return errors, coverage and Brier scores of each prediction on sets left out, and the predictions themselves.

    Where sets are too few for a law, that of 2-D networks is judged in its place, and each set by all others.
    """
    predicted: list[Row] = []
    for name in records.sets:
        others = [each for each in (records.fitted if records.has_law else records.sets) if each != name]
        if records.has_law:
            plain, _ = chosen_law(records, others, metric, with_complexity=False)
            complex_law, complexity = chosen_law(records, others, metric, with_complexity=True)
            laws = {"law in width": (plain, ""), "law in width and complexity": (complex_law, complexity)}
        else:
            laws = {"law in width": (WidthLaw.calibrated(NETWORKS[2], metric), "")}
        reference = records.reference(name, metric)
        full = float(np.mean([record.score(metric) for record in reference]))
        at = {measure: known.get(name, 0.0) for measure, known in records.complexities.items()}
        for record in records.of(name):
            if channels_of(record)[0] >= WIDE or not record.has_learned:
                continue
            mean = means_of_others(records, others, channels_of(record), metric)
            for by, (law, complexity) in laws.items():
                value = at.get(complexity, 0.0)
                wide = float(np.exp(np.mean([np.log(width_of(each, law)) for each in reference])))
                found = law.predict_interval(width_of(record, law), wide, value)
                ratios = [record.score(metric) / each.score(metric) for each in reference]
                predicted.append(
                    {
                        "metric": metric,
                        "data_set": name,
                        "channels": words(channels_of(record)),
                        "seed": record.recipe["seed"],
                        "by": by,
                        "width": law.measure,
                        "complexity": complexity,
                        "predicted": found.score,
                        "low": found.low,
                        "high": found.high,
                        "achieved": record.score(metric) / full,
                        "inside": float(np.mean([found.low <= ratio <= found.high for ratio in ratios])),
                        "sure_of_95": law.probability(0.95, width_of(record, law), wide, value),
                        "reached_95": float(np.mean([ratio >= 0.95 for ratio in ratios])),
                        "nothing_is_lost": 1.0,
                        "mean_of_the_others": mean[0],
                        "share_of_the_others_above_95": mean[1],
                    }
                )
    parts = {"several patients": records.fitted, "one subject": sorted({*records.sets} - {*records.fitted})}
    if not records.has_law:
        parts = {"all": records.sets}
    rows = [
        {"of": part, **row}
        for part, names in parts.items()
        if names
        for row in errors(records, metric, [each for each in predicted if each["data_set"] in names])
    ]
    return rows, predicted


def means_of_others(records: Records, others: list[str], channels: tuple[int, ...], metric: str) -> tuple[float, float]:
    """Return the mean relative score of a network on the other sets, and the share of its trainings above 95 %."""
    found: list[float] = []
    above: list[float] = []
    for name in others:
        full = np.mean([each.score(metric) for each in records.reference(name, metric)])
        own = [r.score(metric) / full for r in records.of(name) if channels_of(r) == channels and r.has_learned]
        if own:
            found.append(float(np.mean(own)))
            above.append(float(np.mean(np.array(own) >= 0.95)))
    return (float(np.mean(found)), float(np.mean(above))) if found else (np.nan, np.nan)


def errors(records: Records, metric: str, predicted: list[Row]) -> list[Row]:
    law = [row for row in predicted if row["by"] == "law in width"]
    rival = [row for row in predicted if row["by"] == "law in width and complexity"]
    ways: dict[str, tuple[list[Row], Callable[[Row], float], Callable[[Row], float] | None]] = {
        "law in width": (law, lambda row: row["predicted"], lambda row: row["sure_of_95"]),
        "law in width and complexity": (rival, lambda row: row["predicted"], lambda row: row["sure_of_95"]),
        "nothing is lost": (law, lambda row: 1.0, lambda row: 1.0),
        "mean of the other sets at that width": (
            law,
            lambda row: row["mean_of_the_others"],
            lambda row: row["share_of_the_others_above_95"],
        ),
        "other seed of the same network (noise)": (law, lambda row: other_seed(law, row), None),
    }
    rows = []
    for by, (found, score, sure) in ways.items():
        if not found:
            continue
        misses = {
            name: [abs(r["achieved"] - score(r)) for r in found if r["data_set"] == name] for name in records.sets
        }
        misses = {name: [x for x in own if np.isfinite(x)] for name, own in misses.items()}
        misses = {name: own for name, own in misses.items() if own}
        narrow = {words(channels_of(record)) for record in records.planned if channels_of(record)[0] < 8}
        narrowest = [abs(r["achieved"] - score(r)) for r in found if r["channels"] in narrow]
        by_set = [np.mean(own) for own in misses.values()]
        brier = None
        if sure is not None:
            per_set = defaultdict(list)
            for r in found:
                p, share = sure(r), r["reached_95"]
                per_set[r["data_set"]].append(share * (1 - p) ** 2 + (1 - share) * p**2)
            brier = np.mean([np.mean(own) for own in per_set.values()])
        has_interval = by.startswith("law")
        inside = [np.mean([r["inside"] for r in found if r["data_set"] == name]) for name in misses]
        if not by_set:
            continue
        rows.append(
            {
                "network": records.network,
                "metric": metric,
                "prediction": by if records.has_law else by.replace("law in width", "law in width of 2-D networks"),
                "mean_absolute_error": f"{np.mean(by_set):.4f}",
                "standard_error_over_sets": f"{stats.sem(by_set):.4f}" if len(by_set) > 1 else "",
                "below_8_filters": f"{np.nanmean(narrowest):.4f}",
                "inside_90_percent_interval": f"{np.mean(inside):.3f}" if has_interval else "",
                "brier_of_95_percent": "" if brier is None else f"{brier:.4f}",
                "data_sets": len(by_set),
                "trainings": len(found),
            }
        )
    return rows


def other_seed(rows: list[Row], row: Row) -> float:
    """Return what the other seed of a network reached, shrunk so that the miss is that of the network's mean."""
    pair = [r for r in rows if (r["data_set"], r["channels"]) == (row["data_set"], row["channels"]) and r is not row]
    return row["achieved"] + (pair[0]["achieved"] - row["achieved"]) / 2**0.5 if pair else np.nan


def chance(records: Records, metric: str) -> Row:
    """How often the best measure of complexity fits the losses as well when these are dealt out at random."""
    law = refit_width(records.network, metric)[0]
    losses = np.array([law.dataset_losses[name] for name in records.fitted])
    columns = {
        m: np.array([records.complexities[m][name] for name in records.fitted]) for m in records.usable_measures()
    }
    fits = {measure: stats.spearmanr(column, losses).statistic ** 2 for measure, column in columns.items()}
    best = max(fits, key=fits.__getitem__)
    rng = np.random.default_rng(0)
    ranks = np.array([stats.rankdata(column) for column in columns.values()])
    dealt = [
        np.corrcoef(np.vstack([ranks, rng.permutation(stats.rankdata(losses))]))[-1, :-1] ** 2 for _ in range(2000)
    ]
    return {
        "network": records.network,
        "metric": metric,
        "measures": len(columns),
        "data_sets": len(losses),
        "best_measure": best,
        "rank_correlation_squared": f"{fits[best]:.2f}",
        "permutation_p": f"{np.mean([each.max() >= fits[best] - 1e-9 for each in dealt]):.3f}",
    }


def fits(records: Records, metric: str) -> Iterator[Row]:
    """The law for each measure of width."""
    kept = [record for record in records.planned if record.dataset in records.fitted]
    for measure in WIDTH_MEASURES:
        law, evidence = WidthLaw.with_evidence(width_points(kept, measure, metric), measure=measure)
        yield {
            "network": records.network,
            "metric": metric,
            "width": measure,
            "log_evidence": f"{evidence:.1f}",
            "exponent": f"{law.exponent:.2f}",
            "reference": f"{law.reference:.3g}",
            "loss": f"{law.loss:.4f}",
            "loss_error": f"{law.loss_error:.4f}",
            "loss_deviation": f"{law.loss_deviation:.4f}",
            "noise": f"{law.noise:.4f}",
            "noise_spread": f"{law.noise_spread:.2f}",
            "failed_to_learn": law.not_learned,
            "trainings": law.points,
        }


def scores(records: Records) -> Iterator[Row]:
    """F1 and IU of each network on each set at each scale, means over seeds."""
    found: dict[tuple[Any, ...], list[TrialRecord]] = defaultdict(list)
    for record in records.all:
        found[record.dataset, scale_words(record.scale), channels_of(record)].append(record)
    for (name, scale, channels), own in sorted(found.items()):
        yield {
            "network": records.network,
            "data_set": name,
            "scale": scale,
            "is_planned": own[0].scale == records.scales[name],
            "channels": words(channels),
            "f1": f"{np.mean([record.scores['f1'] for record in own]):.4f}",
            "iu": f"{np.mean([record.scores['iu'] for record in own]):.4f}",
            "trainings": len(own),
            "failed_to_learn": sum(not record.has_learned for record in own),
            "file_bytes": own[0].file_bytes,
            "macs": own[0].size.macs,
        }


# Pairs of a uniform and a tapered network that are about equal in bytes, or in multiply-adds.
PAIRS = {
    "bytes": [((4, 8, 16, 32, 64), (32, 26, 22, 19, 16)), ((2, 4, 8, 16, 32), (12, 10, 9, 7, 6))],
    "multiply-adds": [((4, 8, 16, 32, 64), (7, 6, 5, 4, 4)), ((16, 32, 64, 128, 256), (32, 26, 22, 19, 16))],
}


def allocations(records: Records) -> Iterator[Row]:
    """What the tapered network of a pair gains over the uniform one, relative, on the sets of several patients."""
    for equal, pairs in PAIRS.items():
        for uniform, tapered in pairs:
            gains = {}
            for name in records.sets:
                means = [
                    [r.scores["f1"] for r in records.of(name) if channels_of(r) == each] for each in (uniform, tapered)
                ]
                if all(means):
                    gains[name] = float(np.mean(means[1]) / np.mean(means[0]) - 1)
            for part, names in (("several patients", records.fitted), ("all", list(gains))):
                own = np.array([gain for name, gain in gains.items() if name in names])
                if len(own) < 3:
                    continue
                reach = stats.t.ppf(0.95, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5
                yield {
                    "network": records.network,
                    "equal": equal,
                    "uniform": words(uniform),
                    "tapered": words(tapered),
                    "data_sets": part,
                    "number": len(own),
                    "mean_gain": f"{own.mean():+.4f}",
                    "low_90": f"{own.mean() - reach:+.4f}",
                    "high_90": f"{own.mean() + reach:+.4f}",
                    "sets_that_gain": int((own > 0).sum()),
                }


def scale_choices(records: Records) -> Iterator[Row]:
    """What is lost by a rule for the scale against the best scale that was tried, on the sets of several scales."""
    lost: dict[str, list[float]] = defaultdict(list)
    for name in records.sets:
        by_scale: dict[Any, dict[tuple[int, ...], float]] = defaultdict(dict)
        for record in records.all:
            if record.dataset == name:
                by_scale[record.scale].setdefault(channels_of(record), record.scores["f1"] or 0.0)
        networks = set.intersection(*(set(each) for each in by_scale.values()))
        if len(by_scale) < 2 or not networks:
            continue
        for channels in networks:
            found = {scale: each[channels] for scale, each in by_scale.items()}
            best = max(found.values())
            lost["planned by the labels"].append(1 - found[records.scales[name]] / best)
            rules = {"the finest that was tried": max, "the coarsest that was tried": min}
            for rule, pick in rules.items():
                at = pick(found, key=lambda scale: -float(np.prod(per_axis(scale, 2))))
                lost[rule].append(1 - found[at] / best)
    for rule, losses in lost.items():
        yield {
            "network": records.network,
            "rule": rule,
            "mean_lost": f"{np.mean(losses):.4f}",
            "most_lost": f"{np.max(losses):.4f}",
            "networks_and_sets": len(losses),
        }


def adapted(records: Records, metric: str) -> Iterator[Row]:
    """What a set's own narrow trainings buy for the prediction of the rest of its networks, the set left out."""
    for own_networks in (
        (),
        ((4, 3, 3, 2, 2), (12, 10, 9, 7, 6)),
        ((4, 3, 3, 2, 2), (7, 6, 5, 4, 4), (12, 10, 9, 7, 6)),
    ):
        misses, inside = [], []
        for name in records.fitted:
            kept = [r for r in records.planned if r.dataset in records.fitted and r.dataset != name]
            law = calibrate_width(kept, metric=metric)[0]
            points: list[WidthPoint] = width_points(
                [r for r in records.of(name) if channels_of(r) in own_networks], law.measure, metric
            )
            law = law.adapt(points) if any(point.has_learned for point in points) else law
            reference = records.reference(name, metric)
            full = np.mean([each.score(metric) for each in reference])
            wide = float(np.exp(np.mean([np.log(width_of(each, law)) for each in reference])))
            rest = [
                r
                for r in records.of(name)
                if channels_of(r)[0] < WIDE and channels_of(r) not in own_networks and r.has_learned
            ]
            found = [(law.predict_interval(width_of(r, law), wide), r.score(metric) / full) for r in rest]
            misses.append(np.mean([abs(each.score - score) for each, score in found]))
            inside.append(np.mean([each.low <= score <= each.high for each, score in found]))
        yield {
            "network": records.network,
            "metric": metric,
            "own_networks": " ".join(map(words, own_networks)) or "none",
            "mean_absolute_error": f"{np.mean(misses):.4f}",
            "inside_90_percent_interval": f"{np.mean(inside):.3f}",
        }


def tables_of(records: Records) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {
        "scores": list(scores(records)),
        "allocations": list(allocations(records)),
        "scales": list(scale_choices(records)),
    }
    for metric in METRICS:
        rows, predicted = judged(records, metric)
        shown = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in predicted]
        found.setdefault("judged", []).extend(rows)
        found.setdefault("predictions", []).extend({"network": records.network, **row} for row in shown)
        if not records.has_law:
            continue
        found.setdefault("chance", []).append(chance(records, metric))
        found.setdefault("fits", []).extend(fits(records, metric))
        found.setdefault("adapted", []).extend(adapted(records, metric))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="RESULTS DATA")
    parser.add_argument("--check", action="store_true", help="only refit, and compare with what is shipped")
    given = parser.parse_args()
    if len(given.folders) not in (0, 2) or (given.check and given.folders):
        parser.error("give RESULTS and DATA, or neither, and neither with --check.")
    if given.folders:
        take_in(*given.folders)
    found: dict[str, list[Row]] = defaultdict(list)
    for network in NETWORKS.values():
        if not (WIDTH_RECORDS / f"{network}.jsonl").exists():
            continue
        records = Records(network)
        for metric in METRICS if records.has_law else ():
            law = refit_width(network, metric)[0]
            if not given.check:
                (CALIBRATED / network).mkdir(exist_ok=True)
                law.save(CALIBRATED / network / f"{metric}_width.json")
            elif abs(law.loss - WidthLaw.calibrated(network, metric).loss) > 1e-3:
                raise SystemExit(f"the shipped law of {network}, {metric}, is not that of its records.")
        if not given.check:
            for name, rows in tables_of(records).items():
                found[name] += rows
    for name, rows in ((name, rows) for name, rows in found.items() if rows):
        write_table(WIDTH_RECORDS / f"{name}.csv", rows)
        print(f"{name}.csv: {len(rows)} rows")


if __name__ == "__main__":
    main()
