"""Tabulate the trainings at several working scales: what each reaches, what the labels said, and what the rule chose.

    python tests/benchmarks/summarise_scales.py FOLDER --results RESULTS --data DATA   # writes three tables into FOLDER
    python tests/benchmarks/summarise_scales.py FOLDER                                 # prints the summary of them

RESULTS is what train_scales.py wrote, DATA the folder of data sets. ``images.csv`` has a row for each image and
training, ``trainings.csv`` one for each training, ``ceilings.csv`` one for each data set and scale.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
from csv_tables import saved_rows
from train_scales import PATIENTS

from monai_ccnet.complexity import measure_ceiling
from monai_ccnet.constraints import choose_scale
from monai_ccnet.data import open_dataset
from monai_ccnet.files import write_table
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import scale_words

TAPERED = "12-10-9-7-6"
THRESHOLDS = (0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)


def collect(folder, results):
    images, trainings = [], []
    for path in sorted(Path(results).glob("*/held_out.json")):
        told = json.loads(path.read_text())
        record = TrialRecord.load(path.parent / "record.json")
        names = [row["filename"] for row in saved_rows(path.parent / "f1_raw.csv")]
        surface = [float(row["mean"]) for row in saved_rows(path.parent / "surface_dice_raw.csv")]
        training = {
            "dataset": record.dataset,
            "network": "-".join(map(str, told["channels"])),
            "scale": told["scale"],
            "seed": record.recipe["seed"],
        }
        f1 = record.per_image["f1"]
        parts = ["held out"] * told["held_out"] + ["test"] * (len(f1) - told["held_out"])
        for name, part, score, near in zip(names, parts, f1, surface, strict=True):
            shown = ["" if value is None or math.isnan(value) else round(value, 5) for value in (score, near)]
            images.append(
                {**training, "part": part, "image": Path(name).name, "f1": shown[0], "surface_dice": shown[1]}
            )
        trainings.append(
            {
                **training,
                "macs": record.size.macs,
                "file_bytes": record.file_bytes,
                "training_bytes": record.size.training_bytes,
                "seconds": record.seconds,
                "failed": record.failure is not None,
            }
        )
    write_table(Path(folder) / "images.csv", images)
    write_table(Path(folder) / "trainings.csv", trainings)


def ceilings(folder, data):
    rows = []
    for path in sorted(each.parent for each in Path(data).glob("*/dataset.json")):
        dataset, start = open_dataset(path), time.monotonic()
        ceiling = measure_ceiling(dataset.training, name=dataset.name)
        seconds = time.monotonic() - start
        chosen, reason = choose_scale(ceiling, 16)
        for place, scale in enumerate(ceiling.scales):
            rows.append(
                {
                    "dataset": dataset.name,
                    "scale": scale_words(scale),
                    "dice": round(ceiling.worst(scale), 4),
                    "smallest_structure": round(ceiling.smallest_structure, 2),
                    "unit": ceiling.unit,
                    "structures": ceiling.structures,
                    "vanished": ceiling.vanished[place],
                    "smaller": ceiling.specks,
                    "smaller_vanished": ceiling.vanished_specks[place],
                    "largest_lost": round(ceiling.largest_lost[place], 2),
                    "joined": ceiling.merged[place],
                    "centre_lines": "" if ceiling.skeleton is None else round(ceiling.skeleton[place], 4),
                    "chosen": scale_words(chosen),
                    "reason": reason,
                    "seconds": round(seconds, 2),
                }
            )
    write_table(Path(folder) / "ceilings.csv", rows)


class Scores:
    """Mean scores of images by data set, network and scale."""

    def __init__(self, folder):
        self.images, self.trainings = saved_rows(folder / "images.csv"), saved_rows(folder / "trainings.csv")
        self.ceilings = {(row["dataset"], row["scale"]): row for row in saved_rows(folder / "ceilings.csv")}

    def of(self, part, score, dataset, network, scale):
        """Return the mean over seeds of each image's score, empty if there was no such training."""
        seeds = {}
        for row in self.images:
            if (row["part"], row["dataset"], row["network"], row["scale"]) == (part, dataset, network, str(scale)):
                seeds.setdefault(row["seed"], []).append(float(row[score]) if row[score] else math.nan)
        return np.nanmean(list(seeds.values()), axis=0) if seeds else np.array([])

    def scales(self, dataset, network):
        found = {int(row["scale"]) for row in self.trainings if (row["dataset"], row["network"]) == (dataset, network)}
        return sorted(found)

    def mean(self, part, score, dataset, network, scale):
        values = self.of(part, score, dataset, network, scale)
        return float(np.nanmean(values)) if len(values) else math.nan

    def dice(self, dataset, scale):
        """Return what labels keep of their Dice at a scale, isotropic."""
        return 1.0 if scale == 1 else float(self.ceilings[dataset, str(scale)]["dice"])


def interval(differences, draws=2000):
    """Return the 95 % interval of a mean by the bootstrap over images."""
    values = differences[~np.isnan(differences)]
    picked = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    return np.quantile(values[picked].mean(axis=1), (0.025, 0.975))


def chosen_by(scores, dataset, network, threshold):
    """Return the coarsest scale whose labels, and those of all finer ones, keep a share of their Dice."""
    scales = scores.scales(dataset, network)
    kept = list(itertools.takewhile(lambda scale: scores.dice(dataset, scale) >= threshold, scales))
    return kept[-1] if kept else 1


def print_summary(folder):
    scores = Scores(folder)
    networks = sorted({row["network"] for row in scores.trainings}, key=lambda name: int(name.split("-")[-1]))
    print("| set | network | scale | labels keep | F1 | difference from 1 | surface Dice | million multiply-adds | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for dataset in dict.fromkeys(row["dataset"] for row in scores.trainings):
        for network in networks:
            whole = scores.of("test", "f1", dataset, network, 1)
            for scale in scores.scales(dataset, network):
                f1 = scores.of("test", "f1", dataset, network, scale)
                change = ""
                if scale != 1 and len(whole):
                    low, high = interval(f1 - whole)
                    change = f"{np.nanmean(f1 - whole):+.3f} ({low:+.3f} to {high:+.3f})"
                same = [
                    row
                    for row in scores.trainings
                    if (row["dataset"], row["network"], row["scale"]) == (dataset, network, str(scale))
                ]
                surface = scores.mean("test", "surface_dice", dataset, network, scale)
                seconds = [f"{float(row['seconds']):.0f}" for row in same if row["seconds"]]  # blank where it paused
                kept = f"{scores.dice(dataset, scale):.3f}"
                macs = f"{float(same[0]['macs']) / 1e6:,.0f}"
                print(
                    f"| {dataset} | {network} | {scale} | {kept} | {np.nanmean(f1):.3f} | {change} | {surface:.3f} "
                    f"| {macs} | {min(seconds, key=int, default='')} |"
                )
    print_rules(scores)
    print_law(scores, networks)


def print_rules(scores):
    """Print what each rule loses against the best scale of each set, on test images, and leaving that set out."""
    sets = [name for name in PATIENTS if 1 in scores.scales(name, TAPERED)]
    rules = {f"labels keep {each:g}": lambda name, t=each: chosen_by(scores, name, TAPERED, t) for each in THRESHOLDS}
    rules |= {"always 1": lambda name: 1, "always 1/2": lambda name: 2}

    def regret(part, name, scale):
        known = [scores.mean(part, "f1", name, TAPERED, each) for each in scores.scales(name, TAPERED)]
        return max(known) - scores.mean(part, "f1", name, TAPERED, scale)

    print("\n| rule | " + " | ".join(sets) + " | mean regret, held out | mean regret, test | mean multiply-adds |")
    print("|---" * (len(sets) + 4) + "|")
    for rule, choose in rules.items():
        found = [choose(name) for name in sets]
        held, test = (
            np.mean([regret(part, *pair) for pair in zip(sets, found, strict=True)]) for part in ("held out", "test")
        )
        share = np.mean([scale**-2 for scale in found])
        print(f"| {rule} | {' | '.join(f'1/{scale}' for scale in found)} | {held:.4f} | {test:.4f} | {share:.0%} |")
    left_out = []
    for name in sets:
        others = [other for other in sets if other != name]
        best = min(
            THRESHOLDS,
            key=lambda t: np.mean([regret("held out", each, chosen_by(scores, each, TAPERED, t)) for each in others]),
        )
        scale = chosen_by(scores, name, TAPERED, best)
        left_out.append(regret("test", name, scale))
        print(
            f"without {name} the best threshold is {best:g}: 1/{scale} there, regret on its test images "
            f"{left_out[-1]:.4f}"
        )
    print(f"mean regret of a set left out: {np.mean(left_out):.4f}")


def print_law(scores, networks):
    """Print how often the ratio of F1 to that at 1 stays below what labels keep, and how far above it goes."""
    ratios = [
        (
            scores.mean("test", "f1", name, network, scale) / scores.mean("test", "f1", name, network, 1),
            scores.dice(name, scale),
        )
        for name in dict.fromkeys(row["dataset"] for row in scores.trainings)
        for network in networks
        for scale in scores.scales(name, network)
        if scale > 1 and 1 in scores.scales(name, network)
    ]
    below = sum(ratio < kept - 0.015 for ratio, kept in ratios)
    gained = sum(ratio > 1 for ratio, _ in ratios)
    print(f"\n{below} of {len(ratios)} ratios are more than 0.015 below what labels keep; {gained} are above 1.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results")
    parser.add_argument("--data")
    given = parser.parse_args()
    if given.results:
        given.folder.mkdir(parents=True, exist_ok=True)
        collect(given.folder, given.results)
    if given.data:
        ceilings(given.folder, given.data)
    print_summary(given.folder)


if __name__ == "__main__":
    main()
