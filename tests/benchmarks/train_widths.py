"""Train networks of many widths on a folder of data sets by the planned recipe, at their planned scales and others.

    python tests/benchmarks/train_widths.py DATA RESULTS --processes 2

What is done is not done again. RESULTS/records.jsonl gets the record of each training on the data set's test images.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai_ccnet
from monai_ccnet.calibration.fit import SEVERAL_PATIENTS
from monai_ccnet.complexity import measure_ceiling
from monai_ccnet.constraints import family_of, working_scale
from monai_ccnet.data import open_dataset, read_dataset
from monai_ccnet.networks import network_size
from monai_ccnet.scales import as_scale
from monai_ccnet.training import Trial, full_network_def, loading_of, run_sweep
from monai_ccnet.values import save_values

# Data sets of one subject or recording each; volumes; and pictures of several patients.
OTHERS = ["mni_gm", "epithelium", "hela", "scratch_cells", "bacteria", "chest_ct_lungs", "colin27_brain"]
VOLUMES = ["hippocampus_3d", "chest_ct_3d", "colin27_3d"]
PATIENTS = [name for name in SEVERAL_PATIENTS if name not in VOLUMES]
UNIFORM = [[first * 2**stage for stage in range(5)] for first in (16, 8, 4, 3, 2)]
TAPERED = [[32, 26, 22, 19, 16], [12, 10, 9, 7, 6], [7, 6, 5, 4, 4], [4, 3, 3, 2, 2]]
TWO = [TAPERED[1], UNIFORM[0]]  # at the neighbouring scales
# Each phase is worth having alone: data sets, networks, seed, and by how much the scale differs from the planned one.
PHASES: list[tuple[list[str], list[list[int]], int, float]] = [
    (PATIENTS, [*UNIFORM, *TAPERED], 0, 1),
    (PATIENTS, [*UNIFORM[1:], *TAPERED], 1, 1),
    (PATIENTS, TWO, 0, 2),
    (PATIENTS, TWO[:1], 0, 0.5),
    (PATIENTS, TWO[:1], 1, 2),
    (PATIENTS, TWO[:1], 1, 0.5),
    (PATIENTS, UNIFORM[:1], 1, 1),
    (OTHERS, [*UNIFORM[::2], *TAPERED[::-1]], 0, 1),
    (OTHERS, UNIFORM[1::2], 0, 1),
    (VOLUMES[:1], [*UNIFORM[1:], *TAPERED[1:], UNIFORM[0], TAPERED[0]], 0, 1),
    (PATIENTS, TWO[1:], 0, 0.5),
    (OTHERS, [*UNIFORM[1:], *TAPERED], 1, 1),
    (VOLUMES[1:], [*UNIFORM[1:], *TAPERED[1:], UNIFORM[0], TAPERED[0]], 0, 1),
    (PATIENTS, TWO, 0, 0.25),
    (VOLUMES, [*UNIFORM[1:], *TAPERED[1:], TAPERED[0]], 1, 1),
]


def trials(data_dir: Path, results: Path, names: list[str], networks: Any, seed: int, by: float) -> Iterator[Trial]:
    """Yield the trainings of a phase; a scale that is no whole number from 1 has none."""
    root = monai_ccnet.bundle_root()
    for name in names:
        folder = data_dir / name
        full = full_network_def(root, dataset_dir=str(folder))
        family = family_of(full)
        data = open_dataset(folder)
        ceiling = measure_ceiling(
            data.training,
            name=name,
            loading=loading_of({}, read_dataset(data)),
            saved=results / f"{name}.ceiling.json",
        )
        planned = working_scale("auto", family, ceiling)
        if by == 1:
            scale = planned
        elif isinstance(planned, int) and planned * by >= 1:
            scale = as_scale(int(planned * by))
        else:
            continue
        for channels in networks:
            network_def = family_of(full, scale=scale).at(channels, scale)
            words = "-".join(map(str, channels))
            at = json.dumps(scale).replace(" ", "")
            yield Trial(
                str(root),
                str(results / f"{name}_{words}_{at}_{seed}"),
                network_def,
                channels[0] / full["channels"][0] if channels in UNIFORM else None,
                {"dataset_dir": str(folder), "seed": seed},
                float(network_size(network_def).macs or 0),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--phases", type=int, nargs="*", help="numbers from 0; all by default")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    given.results.mkdir(parents=True, exist_ok=True)
    records: list[Any] = []
    for number in given.phases or range(len(PHASES)):
        names, networks, seed, by = PHASES[number]
        wanted = list(trials(given.data, given.results, names, networks, seed, by))
        records += [record for record in run_sweep(wanted, n_jobs=given.processes) if record.error is None]
        save_values(given.results / "records.jsonl", records)
        print(f"phase {number}: {len(wanted)} trainings", flush=True)


if __name__ == "__main__":
    main()
