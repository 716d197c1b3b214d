"""Which family of widths does best at a budget: each a ratio of a stage's width to that of the stage above it.

    python tests/benchmarks/compare_allocations.py OUTPUT_FOLDER DATA_FOLDER [DATA_FOLDER ...]

trains PlainUNet by the bundle's recipe (800 steps, bfloat16) at every ratio, under each budget, with two seeds, two
trainings at once; what is done is not done again. It leaves ``compare_allocations.csv`` in the folder and prints the
tables of the page. With the CSV file alone as argument it only prints them.
"""

import csv
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from summarise_comparisons import markdown

from monai_ccnet import bundle_root
from monai_ccnet.constraints import Budget, ComputeBudget, DiskBudget
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import full_network_def, run_trial

RECIPE = {"precision": "bfloat16", "val_interval": 1000}
BYTES, MACS = DiskBudget(124_000), ComputeBudget(24_000_000, (1, 1, 96, 96))
# A ratio of 2 is the uniform multiplier of a network that doubles.
STUDY = {
    "124 kB": ((BYTES,), (2.0, 1.3, 1.0, 0.84, 0.7)),
    "24 M multiply-adds": ((MACS,), (2.0, 1.6, 1.3, 1.0, 0.84)),
    "124 kB and 24 M multiply-adds": ((BYTES, MACS), (2.0, 1.6, 1.3, 1.0, 0.84)),
}
SEEDS = (0, 1)


def widest(network_def: dict, ratio: float, budgets: tuple[Budget, ...]) -> tuple[int, ...]:
    """Return the widest channels of a ratio that keep to all budgets."""
    family, found = NetworkFamily.of(network_def), ()
    full = family.channels
    for first in np.arange(1, full[0] + 0.01, 0.05):
        channels = tuple(max(1, round(first * ratio**stage)) for stage in range(len(full)))
        if channels == found:
            continue
        narrowed = family.at(channels)
        if any(a > b for a, b in zip(channels, full, strict=True)) or any(
            budget.needed(narrowed) > budget.limit for budget in budgets
        ):
            break
        found = channels
    return found


def train(
    output: Path,
    folder: Path,
    channels: tuple[int, ...],
    seed: int,
    recipe: dict[str, Any] | None = None,
    **settings: Any,
) -> dict:
    """Return a row of what one network reaches, with what else its recipe and its config say than the bundle's."""
    full = full_network_def(bundle_root(), dataset_dir=str(folder))
    place = output / f"{folder.name}-{'-'.join(map(str, channels))}-seed{seed}"
    narrowed = {**NetworkFamily.of(full).at(channels), **settings}
    given = {**RECIPE, **(recipe or {}), "dataset_dir": str(folder), "seed": seed}
    return row_of(run_trial(bundle_root(), place, narrowed, **given))


def row_of(record: TrialRecord) -> dict:
    size = record.size
    return {
        "dataset": record.dataset,
        "channels": "-".join(map(str, record.network_def["channels"])),
        "seed": record.recipe["seed"],
        "f1": record.scores["f1"],
        "iu": record.scores["iu"],
        "learned": record.has_learned,
        "weights": size.weights,
        "file_bytes": record.file_bytes,
        "macs": size.macs,
        "seconds": record.seconds,
    }


def run(output: Path, folders: list[Path]) -> list[dict]:
    """Return one row a data set, budget, ratio and seed; networks that several budgets come to are trained once."""
    full = full_network_def(bundle_root(), dataset_dir=str(folders[0]))
    plans = [
        (words, ratio, widest(full, ratio, budgets)) for words, (budgets, ratios) in STUDY.items() for ratio in ratios
    ]
    channels = list(dict.fromkeys(each for *_, each in plans))
    tasks = list(itertools.product(SEEDS, channels, folders))
    rows = Parallel(n_jobs=2, verbose=10)(delayed(train)(output, folder, each, seed) for seed, each, folder in tasks)
    trained = {(seed, each, folder): row for (seed, each, folder), row in zip(tasks, rows, strict=True)}
    return [
        {"budget": words, "ratio": ratio, **trained[seed, each, folder]}
        for (words, ratio, each), folder, seed in itertools.product(plans, folders, SEEDS)
    ]


def report(rows: list[dict[str, str]], part: str, column: str) -> str:
    """Return a table for each value of one column, of F1 by data set and by the values of another: mean ± deviation."""
    parts = []
    for title in dict.fromkeys(row[part] for row in rows):
        own = [row for row in rows if row[part] == title]
        cells: dict[str, list[str]] = {name: [] for name in dict.fromkeys(row["dataset"] for row in own)}
        heads, means, weights, macs = ["data set"], ["mean"], ["weights"], ["million multiply-adds"]
        for value in dict.fromkeys(row[column] for row in own):
            family = [row for row in own if row[column] == value]
            heads.append(f"{value} ({family[0]['channels']})")
            for name in cells:
                found = [row for row in family if row["dataset"] == name]
                scores = [float(row["f1"]) for row in found]
                dead = sum(str(row["learned"]) != "True" for row in found)
                spread = f" ± {np.std(scores, ddof=1):.3f}" if len(scores) > 1 else ""
                cells[name].append(f"{np.mean(scores):.3f}{spread}" + (f" ({dead} dead)" if dead else ""))
            means.append(f"{np.mean([float(row['f1']) for row in family]):.3f}")
            weights.append(f"{int(family[0]['weights']):,}")
            macs.append(f"{int(family[0]['macs']) / 1e6:.0f}")
        table = markdown(heads, [*([name, *each] for name, each in cells.items()), means, weights, macs])
        parts.append(f"### {title}\n\n{table}\n")
    return "\n".join(parts)


def saved_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(run: Callable[[Path, list[Path]], list[dict]], part: str, column: str) -> None:
    """Train what is not trained yet and save the rows, or read them from the file that was given; print the tables."""
    if sys.argv[1].endswith(".csv"):
        rows = saved_rows(Path(sys.argv[1]))
    else:
        output = Path(sys.argv[1])
        rows = run(output, [Path(folder).resolve() for folder in sys.argv[2:]])
        write_table(output / f"{Path(sys.argv[0]).stem}.csv", rows)
    print(report(rows, part, column))


if __name__ == "__main__":
    main(run, "budget", "ratio")
