"""The value of every measure, at full scale, on the training images of each data set in a folder.

    python tests/benchmarks/measure_table.py FOLDER_OF_DATASETS

prints them as CSV, and writes them with ``-o TABLE.csv``. The last column is the time for all data sets together.
"""

import time
from pathlib import Path

from csv_tables import command_line, save_or_print
from monai.data import load_decathlon_datalist

from monai_ccnet.complexity import MEASURES, measure_dataset


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER_OF_DATASETS")
    given = parser.parse_args()
    datasets = {path.parent.name: load_decathlon_datalist(path) for path in sorted(given.folder.glob("*/dataset.json"))}
    if not datasets:
        parser.error(f"{given.folder} holds no data set: give the folder above those with a dataset.json.")
    rows = []
    for measure, kind in MEASURES.items():
        scale = 4 if kind.compares else 1  # at full scale nothing is lost
        start = time.perf_counter()
        values = {name: measure_dataset(items, measure, scales=(scale,)).mean[0] for name, items in datasets.items()}
        rows.append(
            {
                "measure": measure + (f" at 1/{scale}" if scale > 1 else ""),
                **{name: f"{value:.4g}" for name, value in values.items()},
                "seconds": f"{time.perf_counter() - start:.1f}",
            }
        )
    save_or_print(rows, given.output)


if __name__ == "__main__":
    main()
