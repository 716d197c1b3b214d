"""Which family of widths does best at a budget: each a ratio of a stage's width to that of the stage above it.

    python tests/benchmarks/compare_allocations.py OUTPUT_FOLDER DATA_FOLDER [DATA_FOLDER ...]

trains PlainUNet by the bundle's recipe (800 steps, bfloat16) at every ratio, under each budget, with two seeds, two
runs at once; what is done is not done again. It leaves ``compare_allocations.csv`` in the folder, one row a run, and
prints F1 by budget, ratio and data set as CSV, or writes it with ``-o``. From the runs that are done, without training:

    DOCS=bundles/complexity_guided_compression/docs
    python tests/benchmarks/compare_allocations.py $DOCS/comparison/allocation.csv \\
        -o $DOCS/comparison/allocation_families.csv
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from csv_tables import command_line, deviation, save_or_print, saved_rows
from joblib import Parallel, delayed

from monai_ccnet import bundle_root
from monai_ccnet.constraints import Budget, ComputeBudget, DiskBudget
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.records import TrialRecord
from monai_ccnet.training import full_network_def, run_trial

# The recipe of the calibration.
RECIPE = {"precision": "bfloat16", "patch_size": [96, 96], "batch_size": 4, "max_epochs": 16, "lambda_dice": 0.0}
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
    full = full_network_def(bundle_root(), dataset_dir=str(folder), activation="RELU")
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


def summary(rows: list[dict[str, str]], part: str, column: str) -> list[dict[str, str]]:
    """Return F1 over the seeds by two columns and by data set, with the mean over the data sets."""
    table = []
    for values in dict.fromkeys((row[part], row[column]) for row in rows):
        family = [row for row in rows if (row[part], row[column]) == values]
        names = dict.fromkeys(row["dataset"] for row in family)
        groups = {name: [row for row in family if row["dataset"] == name] for name in names}
        for name, found in (groups | {"mean": family}).items():
            scores = [float(row["f1"]) for row in found]
            table.append(
                {
                    part: values[0],
                    column: values[1],
                    "channels": family[0]["channels"],
                    "data_set": name,
                    "f1": f"{np.mean(scores):.3f}",
                    "standard_deviation_over_seeds": "" if found is family else deviation(scores),
                    "runs_that_failed_to_learn": sum(str(row["learned"]) != "True" for row in found),
                    "weights": int(family[0]["weights"]),
                    "million_multiply_adds": f"{int(family[0]['macs']) / 1e6:.0f}",
                }
            )
    return table


def main(
    description: str | None, run: Callable[[Path, list[Path]], list[dict]], name: str, part: str, column: str
) -> None:
    """Train what is not trained yet and save the rows, or read them from a file; print or write their summary."""
    parser = command_line(description)
    parser.add_argument("output_folder", type=Path, metavar="OUTPUT_FOLDER", help="or the CSV file of the runs")
    parser.add_argument("data_folders", type=Path, nargs="*", metavar="DATA_FOLDER")
    given = parser.parse_args()
    if given.output_folder.suffix == ".csv":
        if given.data_folders:
            parser.error("give a folder for the results, or the CSV file of the runs alone.")
        rows = saved_rows(given.output_folder)
    else:
        if not given.data_folders:
            parser.error("give the folders of the data sets as well.")
        rows = run(given.output_folder, [folder.resolve() for folder in given.data_folders])
        write_table(given.output_folder / f"{name}.csv", rows)
    save_or_print(summary(rows, part, column), given.output)


if __name__ == "__main__":
    main(__doc__, run, "compare_allocations", "budget", "ratio")
