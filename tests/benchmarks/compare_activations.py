"""Which activation lets narrow networks train: PlainUNet at its narrowest, by the bundle's recipe, with three seeds.

    python tests/benchmarks/compare_activations.py OUTPUT_FOLDER DATA_FOLDER [DATA_FOLDER ...]

trains with leaky ReLU, two trainings at once, beside the calibration's own records with ReLU; what is done is not done
again. It leaves ``compare_activations.csv`` in the folder and prints the tables of the page. With the CSV file alone as
argument it only prints them.
"""

import itertools
from pathlib import Path

from compare_allocations import main, row_of, train
from joblib import Parallel, delayed

from monai_ccnet.calibration import load_records
from monai_ccnet.degradation import CALIBRATED

LEAKY = ["LEAKYRELU", {"negative_slope": 0.1}]  # as in MONAI's BasicUNet
WIDTHS = {(2, 4, 8, 16, 32): "Two filters in the first stage", (4, 8, 16, 32, 64): "Four filters in the first stage"}
SEEDS = (0, 1, 2)


def run(output: Path, folders: list[Path]) -> list[dict]:
    """Return one row a width, activation, data set and seed."""
    tasks = itertools.product(SEEDS, WIDTHS, folders)
    rows = Parallel(n_jobs=2, verbose=10)(
        delayed(train)(output, folder, channels, seed, act=LEAKY) for seed, channels, folder in tasks
    )
    leaky = [{"activation": "leaky ReLU", **row} for row in rows]
    names = {row["dataset"] for row in leaky}
    relu = [
        {"activation": "ReLU", **row_of(record)}
        for record in load_records(CALIBRATED / "plain_unet" / "records")
        if record.dataset in names and record.recipe["seed"] in SEEDS
    ]
    titles = {"-".join(map(str, channels)): title for channels, title in WIDTHS.items()}
    both = [{"width": titles.get(row["channels"]), **row} for row in relu + leaky]
    return sorted((row for row in both if row["width"]), key=lambda row: len(row["width"]))


if __name__ == "__main__":
    main(run, "width", "activation")
