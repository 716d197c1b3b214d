"""Replay the search on records of trainings, and compare what it chose with the best of the wide networks.

    python tests/benchmarks/replay_search.py RECORDS.jsonl [--tolerance 0.02] [--confidence 0.9] [--same_images]

Each data set is searched twice: half of its test images stand for held-out ones, on which the search decides, and the
other half for test images, on which its choice is judged; then the other way round. With ``--same_images`` all of them
decide and judge. The law leaves the data set out, nothing is trained. What is lost is stated against the plateau, the
mean of the wide networks (16 and 32 filters) at their best scale, and against the best of them, a largest of noisy
numbers.
"""

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_ccnet.calibration import calibrate_width, scale_gains
from monai_ccnet.calibration.fit import SEVERAL_PATIENTS
from monai_ccnet.calibration.search import Rung, Search, Training, next_step
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily, inner_def
from monai_ccnet.records import TrialRecord
from monai_ccnet.scales import per_axis
from monai_ccnet.training import load_records

FULL = (64, 128, 256, 512, 1024)
CLIMBER = (12, 10, 9, 7, 6)


def mean_of(records: list[TrialRecord], images: slice) -> float:
    return float(np.mean([each for record in records for each in record.per_image["f1"][images] if each is not None]))


def searches(records: list[TrialRecord], same_images: bool = False, **asked: Any) -> Iterator[dict[str, Any]]:
    by_set: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        by_set[record.dataset].append(record)
    planned = {name: max(counts(own), key=counts(own).__getitem__) for name, own in by_set.items()}
    at_planned = [record for record in records if record.scale == planned[record.dataset]]
    for name, own in by_set.items():
        others = {each for each in SEVERAL_PATIENTS if each != name}
        law = calibrate_width([record for record in at_planned if record.dataset in others])[0]
        law = replace(law, **scale_gains([record for record in records if record.dataset in others], planned))
        halves = slice(0, None, 2), slice(1, None, 2)
        for held, test in [(slice(None), slice(None))] if same_images else [halves, halves[::-1]]:
            yield replayed(name, own, planned[name], law, held, test, **asked)


def counts(records: list[TrialRecord]) -> dict[Any, int]:
    found: dict[Any, int] = defaultdict(int)
    for record in records:
        found[record.scale] += 1
    return found


def replayed(
    name: str, records: list[TrialRecord], planned: Any, law: Any, held: slice, test: slice, **asked: Any
) -> dict[str, Any]:
    runs: dict[tuple[Any, ...], list[TrialRecord]] = defaultdict(list)
    for record in records:
        runs[record.scale, tuple(inner_def(record.network_def)["channels"])].append(record)
    family = NetworkFamily.of(inner_def(records[0].network_def))
    one = next(record for record in records if record.size.input_shape)
    lengths = [math.ceil(n / by) * by for n, by in zip(one.size.input_shape[2:], family.divisor, strict=True)]
    full = family.size(FULL, (*one.size.input_shape[:2], *lengths), scale=1).macs * one.recipe["batch_size"]
    rungs: dict[Any, list[Rung]] = defaultdict(list)
    for (scale, channels), found in runs.items():
        width, size = family.width(channels, law.measure), found[0].size
        cost = size.macs * found[0].recipe["batch_size"] / full
        rungs[scale].append(Rung(channels, scale, width, size.file_bytes, size.file_bytes, size.macs, cost))
    coarse_to_fine = sorted(rungs, key=lambda scale: -float(np.prod(per_axis(scale, 2))))
    search = Search(
        rungs={scale: sorted(rungs[scale], key=lambda rung: rung.width) for scale in coarse_to_fine},
        planned=planned,
        climber=family.width(CLIMBER, law.measure) * 1.001,
        law=law,
        full_width=family.width(FULL, law.measure),
        images=len(records[0].per_image["f1"][held]),
        most_seeds=2,
        most_cost=0.1,
        **asked,
    )
    trainings: list[Training] = []
    repeated = 0
    while (step := next_step(search, trainings)).train:
        for rung, seed in step.train:
            found = sorted(runs[rung.scale, rung.channels], key=lambda record: record.recipe["seed"])
            repeated += seed >= len(found)  # a seed that was not trained is the last one once more
            record = found[min(seed, len(found) - 1)]
            trainings.append(Training(rung, seed, mean_of([record], held), record.has_learned))
    wide: dict[Any, list[float]] = defaultdict(list)
    for (scale, channels), found in runs.items():
        if channels[0] >= 16:
            wide[scale].append(mean_of(found, test))
    plateau, best = max(map(np.mean, wide.values())), max(itertools.chain(*wide.values()))
    reached = mean_of(runs[step.chosen.scale, step.chosen.channels], test) if step.chosen else 0.0
    return {
        "data_set": name,
        "chosen": "-".join(map(str, step.chosen.channels)) if step.chosen else "none",
        "scale": step.chosen.scale if step.chosen else "",
        "file_bytes": step.chosen.file_bytes if step.chosen else "",
        "sure": f"{step.probability:.2f}",
        "claimed": step.probability >= search.confidence,
        "lost": f"{1 - reached / plateau:.4f}",
        "lost_to_best": f"{1 - reached / best:.4f}",
        "true": reached >= (1 - search.tolerance) * plateau,
        "trainings": len(trainings),
        "repeated": repeated,
        "cost": f"{sum(training.rung.cost for training in trainings):.4f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--same_images", action="store_true")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    asked = {"tolerance": given.tolerance, "confidence": given.confidence}
    rows = list(searches(load_records(given.records), given.same_images, **asked))
    for row in rows:
        print(*row.values(), sep="\t")
    for which in ("lost", "lost_to_best"):
        lost = [float(row[which]) for row in rows]
        print(f"{which}: {np.mean(lost):.4f} on average, {max(lost):.4f} at worst")
    claims = [row["true"] for row in rows if row["claimed"]]
    costs = [float(row["cost"]) for row in rows]
    print(
        f"cost {np.median(costs):.4f} in the median, {max(costs):.4f} at most; "
        f"{sum(claims)} of {len(claims)} claims true"
    )
    if given.table:
        write_table(given.table, rows)


if __name__ == "__main__":
    main()
