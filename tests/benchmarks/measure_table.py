"""Print the value of every measure, at full scale, on the training images of each data set in a folder.

python tests/benchmarks/measure_table.py FOLDER_OF_DATASETS > bundles/complexity_guided_compression/docs/measures.md
"""

import sys
import time
from pathlib import Path

from monai.data import load_decathlon_datalist

from monai_ccnet.complexity import MEASURES, measure_dataset


def main(folder: str) -> None:
    datasets = {path.parent.name: load_decathlon_datalist(path) for path in sorted(Path(folder).glob("*/dataset.json"))}
    print("# Every measure on each data set\n")
    print("Mean over the training images at full scale, default settings; the last column is the time for all of them.")
    print(
        "Made by `python tests/benchmarks/measure_table.py FOLDER_OF_DATASETS`. The data sets are small and each is one"
    )
    print("subject or recording, so the numbers describe these images and no more.\n")
    print("| measure |", " | ".join(datasets), "| seconds |")
    print("|---" * (len(datasets) + 2), "|", sep="")
    for measure, kind in MEASURES.items():
        scale = 4 if kind.compares else 1  # at full scale nothing is lost
        start = time.perf_counter()
        values = [measure_dataset(items, measure, scales=(scale,)).mean[0] for items in datasets.values()]
        seconds = time.perf_counter() - start
        print(
            f"| {measure}{f' at 1/{scale}' if scale > 1 else ''} |",
            " | ".join(f"{value:.4g}" for value in values),
            f"| {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1])
