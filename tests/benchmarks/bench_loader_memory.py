"""Follow the memory of spawned DataLoader workers that measure complexity, over many tiny images.

    python tests/benchmarks/bench_loader_memory.py [10000]

Prints the memory of the worker after each tenth of the images; it must not grow.
"""

import sys
from pathlib import Path

import numpy as np
from monai.data import DataLoader, Dataset

from monai_ccnet.transforms import ImageComplexityd


def worker_megabytes(item):
    """Add the resident memory of this process to an item."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"image_complexity": item["image_complexity"]["1"], "megabytes": pages * 4096 / 1e6}


def measure(item):
    return worker_megabytes(ImageComplexityd("image", scales=(1, 2))(item))


def follow(count: int) -> list[float]:
    """Return the mean memory of a spawned worker over each tenth of the images, in megabytes."""
    rng = np.random.default_rng(0)
    items = [{"image": rng.integers(0, 256, (1, 16, 16), dtype=np.uint8)} for _ in range(count)]
    loader = DataLoader(Dataset(items, measure), batch_size=10, num_workers=1, multiprocessing_context="spawn")
    used = np.concatenate([np.asarray(batch["megabytes"]) for batch in loader])
    return [float(part.mean()) for part in np.array_split(used, 10)]


if __name__ == "__main__":
    used = follow(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    print(" ".join(f"{megabytes:.1f}" for megabytes in used), "MB")
