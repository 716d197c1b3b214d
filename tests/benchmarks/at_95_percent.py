"""F1 relative to the full-size network's of the uniform network at 1/16 of the width and of two tapered networks.

    python tests/benchmarks/at_95_percent.py

prints it by data set, with size and latency, as CSV, and writes it with ``-o TABLE.csv``. Scores are those of the
calibration's records and of the tapered networks that ``compare_allocations.py`` trained (``comparison/floor.csv``).
Latencies are measured anew, on one thread, and differ between machines.
"""

import numpy as np
import torch
from csv_tables import command_line, save_or_print, saved_rows

from monai_ccnet import bundle_root
from monai_ccnet.calibration.fit import RECORDS
from monai_ccnet.networks import NetworkFamily, compare_latency, network_size
from monai_ccnet.training import load_records

FLOOR = bundle_root() / "docs" / "comparison" / "floor.csv"
NETWORKS = {"4-8-16-32-64": "uniform", "12-10-9-7-6": "taper", "7-6-5-4-4": "taper"}
SHAPE = (1, 1, 96, 96)


def main() -> None:
    given = command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    records = load_records(RECORDS / "plain_unet.jsonl")
    full = {record.dataset: record for record in records if record.multiplier == 1}
    runs = [
        ("-".join(map(str, record.network_def["channels"])), record.dataset, record.scores["f1"], record.file_bytes)
        for record in records
    ]
    runs += [(row["channels"], row["dataset"], float(row["f1"]), int(row["file_bytes"])) for row in saved_rows(FLOOR)]
    network_def = next(iter(full.values())).network_def
    family = NetworkFamily.of(network_def)
    narrowed = {channels: family.at(tuple(map(int, channels.split("-")))) for channels in NETWORKS}
    latencies = compare_latency({"full size": network_def, **narrowed}, SHAPE).latencies
    seconds = {name: latency.median_seconds for name, latency in latencies.items()}
    rows = []
    for channels, allocation in NETWORKS.items():
        size = network_size(narrowed[channels], SHAPE)
        for dataset in sorted(full):
            own = [(f1, file_bytes) for *key, f1, file_bytes in runs if key == [channels, dataset]]
            relative = [f1 / full[dataset].scores["f1"] for f1, _ in own]
            rows.append(
                {
                    "allocation": allocation,
                    "channels": channels,
                    "times_fewer_weights": f"{full[dataset].size.weights / size.weights:.0f}",
                    "seeds": len(own),
                    "data_set": dataset,
                    "relative_f1_mean": f"{np.mean(relative):.3f}",
                    "relative_f1_least": f"{min(relative):.3f}",
                    "relative_f1_most": f"{max(relative):.3f}",
                    "file_bytes": own[0][1],
                    "million_multiply_adds": f"{(size.macs or 0) / 1e6:.0f}",
                    "latency_ms": f"{1e3 * seconds[channels]:.1f}",
                    "times_as_fast": f"{seconds['full size'] / seconds[channels]:.0f}",
                }
            )
    save_or_print(rows, given.output)


if __name__ == "__main__":
    main()
