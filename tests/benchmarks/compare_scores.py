"""Train by the code of another checkout and by this one, at the recipe of the law's own records, and compare F1.

    git worktree add ../before COMMIT
    DOCS=bundles/complexity_guided_compression/docs
    python tests/benchmarks/compare_scores.py ../before DATA -o $DOCS/recipe/scores.csv

DATA is a folder of data sets. 12-10-9-7-6 is trained on those of several patients at their planned scales, two seeds,
each way; the code before at float32, as it did. What the table holds is not done again.
"""

import argparse
import csv
from pathlib import Path

from bench_training import HERE, TRAIN, run

from monai_ccnet.calibration import load_width_records, planned_scales
from monai_ccnet.calibration.fit import SEVERAL_PATIENTS
from monai_ccnet.files import write_table
from monai_ccnet.networks import inner_def

CHANNELS = [12, 10, 9, 7, 6]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    rows = list(csv.DictReader(given.output.open())) if given.output.exists() else []
    done = {(row["data_set"], row["seed"]) for row in rows}
    scales = planned_scales("plain_unet")
    for record in load_width_records("plain_unet"):
        name, seed = record.dataset, record.recipe["seed"]
        is_wanted = name in SEVERAL_PATIENTS and inner_def(record.network_def)["channels"] == CHANNELS
        if not is_wanted or record.scale != scales[name] or (name, str(seed)) in done:
            continue
        trial = {
            "network_def": record.network_def,
            "dataset_dir": str((given.data / name).resolve()),
            "seed": seed,
            **{key: record.recipe[key] for key in ("patch_size", "batch_size", "max_epochs", "lambda_dice")},
        }
        before = run(given.before, TRAIN, **trial, precision="float32")
        now = run(HERE, TRAIN, **trial)
        row = {"data_set": name, "seed": seed, "before": f"{before.f1:.4f}", "now": f"{now.f1:.4f}"}
        rows.append(row)
        write_table(given.output, rows)
        print(row, flush=True)


if __name__ == "__main__":
    main()
