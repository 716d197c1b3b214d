"""Take a sweep's records in, fit the models that the package ships, and write the page of results.

    python tests/benchmarks/ship_calibration.py SWEEP_FOLDER DATA_FOLDER
    python tests/benchmarks/ship_calibration.py            # only fit again and write, from the records beside the page

SWEEP_FOLDER holds trials as ``run_sweep`` leaves them, DATA_FOLDER the data sets, of which only the complexity is kept.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from compare_allocations import report, saved_rows
from monai.data import load_decathlon_datalist
from summarise_comparisons import markdown

from monai_ccnet import bundle_root
from monai_ccnet.calibration import degradation_points, predict_left_out, profiles_for, refit
from monai_ccnet.calibration.fit import RECORDS, network_family
from monai_ccnet.complexity import MEASURES, ComplexityProfile, measure_dataset, measure_settings, rank_measures
from monai_ccnet.degradation import CALIBRATED, DegradationModel, DegradationPoint
from monai_ccnet.figures import draw_degradation, draw_measures, save_figure
from monai_ccnet.files import read_json
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import MULTIPLIERS, load_records
from monai_ccnet.values import load_values, save_values

FAMILIES = {
    ("PlainUNet", 2): "plain_unet",
    ("PlainUNet", 3): "plain_unet_3d",
    ("CUMedVision", 2): "cumedvision",
    ("UCUNet", 2): "ucunet",
}
PAGE = bundle_root() / "docs" / "calibration.md"
RECIPES = PAGE.parent / "comparison" / "recipes.csv"  # of compare_recipes.py


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


def results(network: str) -> str:
    """Fit and save the models of a network; return what the page says of it."""
    records = load_records(records_file(network))
    full = {record.dataset for record in records if record.multiplier == 1}
    channels = next("-".join(map(str, r.network_def["channels"])) for r in records if r.multiplier == 1)
    words = [f"## {network}", "", f"Full size: {channels}.", ""]
    used = [record for record in records if record.multiplier in MULTIPLIERS]
    dead = sum(not record.has_learned for record in records)
    others = (
        f", and {len(records) - len(used)} of other widths, held out of the law" if len(records) > len(used) else ""
    )
    taken = f"{len(used)} trainings at the paper's widths{others}; {dead} did not learn"
    narrowest = [record for record in used if record.multiplier == min(MULTIPLIERS)]
    if narrowest:
        taken += f" ({sum(not record.has_learned for record in narrowest)} of {len(narrowest)} at the narrowest width)"
    words += [f"{taken}; data sets: {', '.join(sorted(full))}.", ""]
    widths = sorted({record.multiplier for record in records if record.multiplier is not None}, reverse=True)
    words += [convergence(records, widths), ""]
    for metric in ("f1", "iu"):
        rows = []
        for dataset in sorted(full):
            cells = []
            for width in widths:
                scores = [r.scores[metric] for r in records if (r.dataset, r.multiplier) == (dataset, width)]
                spread = f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
                cells.append(f"{np.mean(scores):.3f}{spread}" if scores else "")
            rows.append([dataset, *cells])
        words += [f"{metric.upper()} on the test images by multiplier (± deviation over seeds):", ""]
        words += [markdown(["data set", *(f"{width:g}" for width in widths)], rows), ""]
        if len(full) < 3:
            continue
        models, curved = refit(network, metric), refit(network, metric, curvature=None)
        models[0].save(CALIBRATED / network / f"{metric}.json")
        words += [ranking(models, curved), ""]
        words += [f"Shipped for {metric.upper()}: {models[0]}.", ""]
        tried = relative_scores(records, network, metric, models[0])
        fitted = relative_scores(used, network, metric, models[0])
        words += [influence(fitted), "", left_out(tried, fitted), "", beyond(tried, fitted), "", adapted(fitted), ""]
    if len(full) < 3:
        return "\n".join(
            [*words, "Fewer than three data sets, through which there is a line by any measure: no law is shipped.", ""]
        )
    best = DegradationModel.calibrated(network)
    points = relative_scores(used, network, "f1", best)
    save_figure(PAGE.parent / f"calibration_{network}.png", draw_degradation(best, points))
    words += [f"![The law of {network}](calibration_{network}.png)", ""]
    if len(best.dataset_slopes) >= 3:
        fits = rank_measures([p for p in profiles_of(network) if p.dataset in best.dataset_slopes], best.dataset_slopes)
        save_figure(PAGE.parent / f"measures_{network}.png", draw_measures(fits))
        words += [f"![Measures beside the degradation](measures_{network}.png)", ""]
    return "\n".join(words)


def convergence(records: list[TrialRecord], widths: list[float]) -> str:
    """Return how much the training loss still fell at the end, by width."""
    falls = {
        width: [np.mean(r.losses[-2:]) / np.mean(r.losses[-4:-2]) for r in records if r.multiplier == width]
        for width in widths
    }
    return (
        "Convergence: mean training loss of the last eighth of the steps per that of the eighth before, median over "
        "data sets:\n\n"
        + markdown(list(map("{:g}".format, falls)), [[f"{np.median(each):.2f}" for each in falls.values()]])
    )


def ranking(models: list[DegradationModel], curved: list[DegradationModel]) -> str:
    """Return a table of the measures, the best predictor first."""
    by_measure = {model.settings["measure"]: model for model in curved}
    rows = []
    for model in models:
        other = by_measure[model.settings["measure"]]
        errors, mixes = model.standard_errors, "omega" in model.settings
        rows.append(
            [
                str(model.settings["measure"]) + (f" (ω {model.settings['omega']:g})" if mixes else ""),
                "-" if model.left_out_error is None else f"{model.left_out_error:.4f}",
                "-" if other.left_out_error is None else f"{other.left_out_error:.4f} (c = {other.curvature:.2f})",
                "-" if model.r_squared is None else f"{model.r_squared:.2f}",
                f"{model.slope:.4g} ± {errors[0]:.2g}" if errors else f"{model.slope:.4g}",
                f"{model.intercept:.4g} ± {errors[1]:.2g}" if errors else f"{model.intercept:.4g}",
            ]
        )
    return markdown(["measure", "error left out, line", "error left out, curve", "R² of slopes", "λ", "δ"], rows)


def relative_scores(
    records: list[TrialRecord], network: str, metric: str, model: DegradationModel
) -> list[DegradationPoint]:
    """Return the networks of some trainings, with the complexities that a model rests on."""
    complexities = {profile.dataset: profile.at(1) for profile in profiles_for(model, profiles_of(network))}
    return degradation_points(records, complexities, metric)


def profiles_of(network: str) -> list[ComplexityProfile]:
    return load_values(records_file(network), ComplexityProfile)


def influence(points: list[DegradationPoint]) -> str:
    """Return the law as it would be without each of the data sets."""
    names = sorted({point.dataset for point in points})
    if len(names) < 4:
        return "Too few data sets to leave one out."
    rows = []
    for name in names:
        model = DegradationModel.fit([point for point in points if point.dataset != name])
        errors = model.standard_errors or (float("nan"), float("nan"))
        rows.append(
            [
                name,
                f"{model.slope:.4g} ± {errors[0]:.2g}",
                f"{model.intercept:.4g} ± {errors[1]:.2g}",
                "-" if model.r_squared is None else f"{model.r_squared:.2f}",
            ]
        )
    return "How much of the law is one data set's:\n\n" + markdown(["without", "λ", "δ", "R² of slopes"], rows)


def left_out(points: list[DegradationPoint], fitted: list[DegradationPoint]) -> str:
    """Return predicted against achieved near 8 and 32 times fewer weights, each data set left out of its own fit."""
    tried = [point for point in points if any(0.8 < point.compression / times < 1.25 for times in (8, 32))]
    if len({point.dataset for point in fitted}) < 4 or not tried:
        return "Too few data sets to leave one out and still have an interval."
    pairs = predict_left_out(tried, fitted)
    rows = [
        [
            point.dataset,
            f"{point.compression:.1f}x",
            f"{prediction.score:.3f} ({prediction.low:.3f} to {prediction.high:.3f})",
            f"{point.score:.3f}",
        ]
        for point, prediction in sorted(pairs, key=lambda pair: (pair[0].dataset, pair[0].compression))
    ]
    error = np.mean([abs(point.score - prediction.score) for point, prediction in pairs])
    # No score above the full-size network's is ever predicted: one that was reached counts as equal to it.
    covered = np.mean([p.low <= min(point.score, 1.0) <= p.high for point, p in pairs])
    above = sum(point.score > 1 for point, _ in pairs)
    return (
        markdown(["data set left out", "fewer weights", "predicted (90 % interval)", "achieved"], rows)
        + f"\n\nMean absolute error {error:.3f}; the 90 % interval covers {covered:.0%} of {len(pairs)}, of which "
        f"{above} do better than the full-size\nnetwork, which no interval reaches and which counts as equal to it."
    )


def beyond(tried: list[DegradationPoint], fitted: list[DegradationPoint]) -> str:
    """Return predicted against achieved for networks narrower than any that the law was fitted to."""
    most = max(point.compression for point in fitted)
    further = [point for point in tried if point.compression > most]
    if not further:
        return "Nothing narrower was tried."
    rows, pairs = [], predict_left_out(further, fitted)
    for name in sorted({point.dataset for point in further}):
        own = [(point, prediction) for point, prediction in pairs if point.dataset == name]
        scores, (point, prediction) = [each.score for each, _ in own], own[0]
        rows.append(
            [
                name,
                f"{point.compression:.0f}x",
                f"{prediction.score:.3f} ({prediction.low:.3f} to {prediction.high:.3f})",
                f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})",
                str(sum(not each.has_learned for each, _ in own)),
            ]
        )
    header = ["data set left out", "fewer weights", "extrapolated (90 % interval)", "achieved (least to most)", "dead"]
    return (
        "Beyond what the law was fitted to: half the narrowest of the paper's widths, two filters in the first stage.\n"
        "Two sets lose far more there than a line through wider networks foretells, for want of training more than of\n"
        "filters ([with a leaky ReLU](#narrow-networks-that-train) they lose 7 %). A plan from a floor goes no further "
        "than\nwas measured:\n\n" + markdown(header, rows)
    )


def adapted(points: list[DegradationPoint]) -> str:
    """Return what a few narrow networks of a data set's own buy for the prediction of its wider ones."""
    names = sorted({point.dataset for point in points})
    if len(names) < 4:
        return "Too few data sets to adapt the law of the others to one."
    rows = []
    for count in range(4):
        widths, misses = [], []
        for name in names:
            model = DegradationModel.fit([point for point in points if point.dataset != name])
            own = {round(point.compression): point for point in points if point.dataset == name}
            narrowest = sorted(own.values(), key=lambda point: -point.compression)
            wide = next(point for point in narrowest if point.compression < 20)
            if count:
                model = model.adapt(narrowest[:count])
            predicted = model.predict_interval(wide.complexity, wide.compression)
            widths.append(predicted.score - predicted.low)  # the other end is cut off at the full-size network's score
            misses.append(abs(predicted.score - min(1.0, wide.score)))
        rows.append([str(count), f"{np.mean(misses):.4f}", f"{np.mean(widths):.3f}"])
    header = [
        "narrow networks of its own",
        "mean absolute error",
        "mean reach of the 90 % interval downwards",
    ]
    return (
        "The law of the other data sets, adapted by the narrowest networks of the one left out (the first has 256\n"
        "times fewer weights), to predict its network with 16 times fewer. Most of the interval is how single\n"
        "trainings scatter, which no law and no further network takes away:\n\n" + markdown(header, rows)
    )


def main() -> None:
    if len(sys.argv) > 2:
        take_in(Path(sys.argv[1]), Path(sys.argv[2]))
    networks = sorted(path.stem for path in RECORDS.glob("*.jsonl"))
    text = "\n".join(results(network) for network in networks)
    recipes = report(saved_rows(RECIPES), "study", "recipe")
    PAGE.write_text(f"{INTRODUCTION}\n{recipes}\n{text.rstrip()}\n", encoding="utf-8")
    print(text)


INTRODUCTION = """# What was measured: the degradation of networks as they narrow

Each number is a training of the bundle's `train.yaml` on a public image set, whole test images scored. The records are
beside this page in a checkout of the source, `calibration/<network>.jsonl`, one line a training, then one line a
profile of the data; they are not in the wheel. `python tests/benchmarks/ship_calibration.py` fits them again, to the
digit, and writes this page.

Limits: one subject or recording a data set, split in space, so that nothing is said of other patients or scanners; few
data sets; short trainings (800 steps), compared on the test images that also choose the measure; one machine. Scores
are relative to the full-size network's mean. "Error left out" is the root mean square error of the relative score of a
data set's networks as predicted by all the other sets.

What it comes to, of PlainUNet: down to 256 times fewer weights four of six sets lose nothing beyond the scatter of
single trainings; epithelium loses some 6 % and mni_gm 2 %. How complex the label is tells them apart, by the length of
its boundary or the bytes of its JPEG; JPEG complexity of the image, the paper's choice, hardly does, nor does any mix
of it with the foreground density (JB). The slope of F1's line is eight standard errors from 0, and three without
epithelium, the one set that loses much; thirteen measures were tried on six sets, so that some of this may be chance.
A curvature does not help. Most networks with 8 to 32 times fewer weights do better than the full-size one, which has
one seed and no more steps than they. CUMedVision and UCU-Net were measured on three sets by the paper's fast scheme
(three widths, one seed): they lose more than PlainUNet on mni_gm at their narrowest, and three sets say next to nothing
of which measure is best, nor can a mix be searched on them. The intervals are as wide as all that, and say nothing of
widths or data far from these.

## Narrow networks that train

At a rate of 0.005 with 20 steps of warm-up, a cosine and batch normalisation, a network of four filters in its first
stage, the narrowest of the paper's, leaves the all-background answer every time: below stands how many trainings there
were. With fewer filters some come to rest where they tell the head from the background and not what is in it. A leaky
ReLU (slope 0.1, as in MONAI's BasicUNet) gets them out, and makes no difference at four filters. It is not the default,
for the full-size networks of the law were trained with the paper's ReLU; where a budget leaves fewer than about seven
filters in the first stage, ask for it: `--network_def::act "['LEAKYRELU', {'negative_slope': 0.1}]"`.

In 3-D (chest_ct_3d, lung and bone, full size 16 to 256, one seed; F1 0.911) it is no matter of two filters only: with
four the ReLU's network died, and the leaky one reaches 0.886; with two both find the lung alone (0.493). So in 3-D ask
for it below eight filters ([recipes_3d.csv](comparison/recipes_3d.csv); `train.yaml` and `evaluate.yaml` with
`--channels "[4,8,16,32,64]" --precision bfloat16`).

Whether 800 steps are enough was judged by the fall of the training loss at their end (the tables of convergence) and by
training twice as long. That adds 0.010 to F1 on average at a sixteenth of the width and 0.005 at a quarter (three sets,
one seed): nearly converged, the narrow networks a little less, which the law counts as degradation. F1, mean over seeds
with the deviation, by `python tests/benchmarks/compare_recipes.py`:
"""


if __name__ == "__main__":
    main()
