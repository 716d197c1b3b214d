"""What another recipe would change: PlainUNet with a leaky ReLU, and trained twice as long, beside the calibration.

    python tests/benchmarks/compare_recipes.py OUTPUT_FOLDER DATA_FOLDER [DATA_FOLDER ...]

trains, two runs at once, what the calibration's own records are compared with; what is done is not done again. It
leaves ``compare_recipes.csv`` in the folder, one row a run, and prints F1 by study, recipe and data set as CSV, or
writes it with ``-o``. From the runs that are done, without training:

    DOCS=bundles/complexity_guided_compression/docs
    python tests/benchmarks/compare_recipes.py $DOCS/comparison/recipes.csv -o $DOCS/calibration/recipes.csv
"""

from pathlib import Path
from typing import NamedTuple

from compare_allocations import main, row_of, train
from joblib import Parallel, delayed

from monai_ccnet.calibration.fit import RECORDS
from monai_ccnet.training import load_records

LEAKY = {"act": ["LEAKYRELU", {"negative_slope": 0.1}]}  # as in MONAI's BasicUNet
LONGER = {"recipe": {"max_epochs": 32}}


class Study(NamedTuple):
    """Networks of one width, trained by the bundle's recipe (the calibration's records) and by another."""

    title: str
    channels: tuple[int, ...]
    name: str
    change: dict
    seeds: tuple[int, ...]
    datasets: tuple[str, ...] = ()  # the folders' names; all if there are none


LONG_ON = ("bacteria", "epithelium", "mni_gm")
STUDIES = [
    Study("Two filters in the first stage", (2, 4, 8, 16, 32), "leaky ReLU", LEAKY, (0, 1, 2)),
    Study("Four filters in the first stage", (4, 8, 16, 32, 64), "leaky ReLU", LEAKY, (0, 1, 2)),
    Study("A sixteenth of the width, twice as long", (4, 8, 16, 32, 64), "1,600 steps", LONGER, (0,), LONG_ON),
    Study("A quarter of the width, twice as long", (16, 32, 64, 128, 256), "1,600 steps", LONGER, (0,), LONG_ON),
]


def run(output: Path, folders: list[Path]) -> list[dict]:
    """Return one row a study, recipe, data set and seed."""
    tasks = [
        (study, folder, seed)
        for study in STUDIES
        for seed in study.seeds
        for folder in folders
        if not study.datasets or folder.name in study.datasets
    ]
    changed = Parallel(n_jobs=2, verbose=10)(
        delayed(train)(output / study.name.replace(" ", "-"), folder, study.channels, seed, **study.change)
        for study, folder, seed in tasks
    )
    rows, records = [], load_records(RECORDS / "plain_unet.jsonl")
    for study in STUDIES:
        other = [row for (of, *_), row in zip(tasks, changed, strict=True) if of is study]
        names = {row["dataset"] for row in other}
        as_it_is = [
            row_of(record)
            for record in records
            if tuple(record.network_def["channels"]) == study.channels
            and record.dataset in names
            and record.recipe["seed"] in study.seeds
        ]
        rows += [{"study": study.title, "recipe": "the recipe", **row} for row in as_it_is]
        rows += [{"study": study.title, "recipe": study.name, **row} for row in other]
    return rows


if __name__ == "__main__":
    main(__doc__, run, "compare_recipes", "study", "recipe")
