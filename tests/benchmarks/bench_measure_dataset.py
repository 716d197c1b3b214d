"""Time two workers against one, and follow the memory over 100 and over 2,000 images.

    python tests/benchmarks/bench_measure_dataset.py

Workers are started, and have imported what they need, before the clock starts; images are files, as in practice. One
worker is one thread, or it would use both cores already.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from monai_ccnet.complexity import measure_dataset


def write_images(folder: Path, count: int, size: int) -> list[Path]:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    paths = []
    for index in range(count):
        paths.append(folder / f"{index}.png")
        Image.fromarray(np.roll(base, index, axis=0) // (1 + index % 4)).save(paths[-1], compress_level=1)
    return paths


def seconds(paths: list[Path], n_jobs: int, measure: str) -> float:
    start = time.perf_counter()
    measure_dataset(paths, measure, n_jobs=n_jobs)
    return time.perf_counter() - start


def print_peak(folder: Path, count: int) -> None:
    """Measure images, each file again and again, and print the process's own peak of resident memory, in kB."""
    paths = sorted(folder.glob("*.png"))
    measure_dataset((paths[index % len(paths)] for index in range(count)), tolerance=None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_images(folder, 100, 512)
        for measure, count in (("jpeg", 800), ("feature_congestion", 12)):
            for n_jobs in (1, 2):  # both start and import before they are timed
                measure_dataset(paths[:4], measure, n_jobs=n_jobs)
            ratios = []
            for _ in range(3):
                one, two = (seconds((paths * 8)[:count], n_jobs, measure) for n_jobs in (1, 2))
                ratios.append(one / two)
            print(f"{measure}, {count} images of 512 x 512 RGB: two workers {np.median(ratios):.2f} times one")
        peaks = []
        for count in (100, 2000):
            command = [sys.executable, __file__, str(folder), str(count)]
            peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024)
        print(
            f"peak memory over 100 images {peaks[0]:.0f} MiB, over 2,000 images {peaks[1]:.0f} MiB: "
            f"ratio {peaks[1] / peaks[0]:.3f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
