"""Time the reading of a data set against the mere loading of its files, and state the memory that it takes.

    python tests/benchmarks/bench_read_dataset.py

Two sets are made: 10,000 small pictures with masks, and one CT of 512 x 512 x 400 voxels with its label. Each is loaded
once by MONAI's `LoadImage`, read by `read_dataset`, and read again with what `data.json` remembers.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from monai.transforms import LoadImage
from PIL import Image

from monai_ccnet.data import open_dataset, read_dataset


def write_pictures(folder: Path, count: int, size: int = 64) -> None:
    rng, items = np.random.default_rng(0), []
    for index in range(count):
        pixels = rng.integers(0, 256, (size, size)).astype(np.uint8)
        for name, array in ((f"{index}.png", pixels), (f"{index}_mask.png", (pixels > 200).astype(np.uint8))):
            Image.fromarray(array).save(folder / name)
        items.append({"image": f"{index}.png", "label": f"{index}_mask.png"})
    describe(folder, items)


def write_ct(folder: Path) -> None:
    rng, items = np.random.default_rng(0), []
    plane = rng.normal(0, 300, (512, 512, 1))
    for index in range(2):
        voxels = (plane + rng.normal(0, 20, (1, 1, 400))).astype(np.int16)
        for name, array in ((f"{index}.nii.gz", voxels), (f"{index}_mask.nii.gz", (voxels > 300).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([0.8, 0.8, 1.5, 1])), folder / name)
        items.append({"image": f"{index}.nii.gz", "label": f"{index}_mask.nii.gz"})
    describe(folder, items[:1], items[1:])


def describe(folder: Path, training: list[dict], test: list[dict] = ()) -> None:
    content = {"name": folder.name, "labels": ["background", "structure"], "training": training, "test": list(test)}
    (folder / "dataset.json").write_text(json.dumps(content))


def time_reading(folder: Path) -> None:
    data, saved = open_dataset(folder), folder / "data.json"
    files = [item[key] for item in data.items for key in ("image", "label")]
    before = peak()
    start = time.perf_counter()
    reading = read_dataset(data)
    first = time.perf_counter() - start
    needed = peak() - before
    reading.keep(saved)
    start = time.perf_counter()
    assert read_dataset(data, saved=saved) == reading
    again = time.perf_counter() - start
    load = LoadImage(image_only=True, ensure_channel_first=True)
    start = time.perf_counter()
    for file in files:
        load(file)
    loading = time.perf_counter() - start
    print(f"{folder.name}: {len(files):,} files; loading {loading:.1f} s, reading {first:.1f} s", end="")
    print(f" ({first / loading:.2f} times) and {needed:.2f} GB, again {again:.1f} s", end="")
    print(f"; data.json {saved.stat().st_size / 1e6:.1f} MB")


def peak() -> float:
    """Return the most memory that the process had so far, in GB; that of a parent, which getrusage counts, left out."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


if __name__ == "__main__":
    if len(sys.argv) > 1:
        time_reading(Path(sys.argv[1]))
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        for name, write in (("ct", write_ct), ("pictures", lambda folder: write_pictures(folder, 10_000))):
            folder = Path(temporary) / name
            folder.mkdir()
            write(folder)
            subprocess.run([sys.executable, __file__, str(folder)], check=True)  # for its memory alone
