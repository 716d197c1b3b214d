"""Compress, evaluate and use for inference bundles of MONAI's model zoo, by their own pages' commands, on made data.

    python tests/benchmarks/run_zoo.py MODELS SCRATCH [--only BUNDLE ...] [-o TABLE.csv]

MODELS is the folder of the unpacked bundles, whose code is trusted and run; each is copied to SCRATCH first, where the
output of every command stays beside it. Overrides are the place of the data, one epoch, no workers and small patches.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from csv_tables import command_line, save_or_print
from monai.bundle import ConfigParser
from PIL import Image

import monai_ccnet
from monai_ccnet.networks.scaling import inner_def

OVERLAY = monai_ccnet.bundle_root() / "configs" / "overlay"
_LOADED = re.compile(r"(?:Restored all variables from|bytes of) (\S+?)\.?$", re.MULTILINE)


def balls(rng: np.random.Generator, shape: Sequence[int], classes: int) -> np.ndarray:
    """Return a label of one ball for each class above 0."""
    grid, label = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")), np.zeros(shape, np.uint8)
    for value in range(1, classes):
        centre = (rng.uniform(0.3, 0.7, len(shape)) * shape).reshape(-1, *[1] * len(shape))
        label[((grid - centre) ** 2).sum(axis=0) < (min(shape) / 5) ** 2] = value
    return label


def save_volume(path: Path, content: np.ndarray, spacing: Sequence[float]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(content, np.diag([*spacing, 1.0])), path)
    return str(path)


def grey(rng: np.random.Generator, label: np.ndarray, low: float, step: float) -> np.ndarray:
    return rng.normal(low + step * label.astype(float), step / 4).astype(np.float32)


def decathlon(folder: Path, spacing: Sequence[float], shape: Sequence[int], classes: int = 2, count: int = 11) -> None:
    """Write volumes as the Medical Segmentation Decathlon names them; two of them are for inference."""
    rng = np.random.default_rng(0)
    for index in range(count + 2):
        part, label = "Tr" if index < count else "Ts", balls(rng, shape, classes)
        save_volume(folder / f"images{part}" / f"case_{index:02}.nii.gz", grey(rng, label, 0, 60), spacing)
        save_volume(folder / f"labels{part}" / f"case_{index:02}.nii.gz", label, spacing)


def spleen(folder: Path, root: Path) -> None:
    decathlon(folder, (1.5, 1.5, 2.0), (48, 48, 40))


def deepedit(folder: Path, root: Path) -> None:
    decathlon(folder, (1.5, 1.5, 2.0), (64, 64, 32))


def renal_unest(folder: Path, root: Path) -> None:
    decathlon(folder, (1.0, 1.0, 1.0), (192, 192, 192), classes=4, count=10)  # of which it validates nine
    for path in sorted((folder / "imagesTs").iterdir())[:1]:  # its inference reads the folder itself
        shutil.copy(path, folder)


def whole_brain(folder: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):  # of which it validates two
        label = balls(rng, (96, 96, 96), 133)
        image = save_volume(folder / "images" / f"scan_{index}.nii.gz", grey(rng, label, 100, 5), (1, 1, 1))
        save_volume(folder / "labels" / f"scan_{index}.nii.gz", label, (1, 1, 1))
    shutil.copy(image, folder)  # its inference reads the folder itself


def brats(folder: Path, root: Path) -> None:
    rng, listed = np.random.default_rng(0), {"training": [], "validation": [], "testing": []}
    for index in range(4):
        label = balls(rng, (48, 48, 48), 4)
        label[label == 3] = 4  # as the challenge counts
        case = folder / "training" / f"case_{index}"
        names = [
            save_volume(case / f"case_{index}_{kind}.nii.gz", grey(rng, label, 100, 50), (1, 1, 1))
            for kind in ("t1ce", "t1", "t2", "flair")
        ]
        item = {"image": names, "label": save_volume(case / f"case_{index}_seg.nii.gz", label, (1, 1, 1))}
        listed[("training", "training", "validation", "testing")[index]].append(item)
    (root / "configs" / "datalist.json").write_text(json.dumps(listed))


def pediatric(folder: Path, root: Path) -> None:
    rng, listed = np.random.default_rng(0), {"training": [], "validation": []}
    for index in range(4):
        label = balls(rng, (72, 72, 40), 4)
        item = {"image": save_volume(folder / f"exam_{index}.nii.gz", grey(rng, label, 0, 60), (1.5, 1.5, 3.0))}
        item["label"] = save_volume(folder / "labels" / "final" / f"exam_{index}.nii.gz", label, (1.5, 1.5, 3.0))
        listed["training" if index < 2 else "validation"].append(item)
    (root / "configs" / "TS_test.json").write_text(json.dumps(listed))  # the list that its page says to change


def cect(folder: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(2):
        label, case = balls(rng, (48, 48, 48), 7), folder / f"case_{index}"
        for name in ("12", "22-", "32-"):
            save_volume(case / f"{name}.nii.gz", grey(rng, label, -200, 60), (0.8, 0.8, 0.8))
        save_volume(case / "merged.nii.gz", label, (0.8, 0.8, 0.8))


def endoscopic(folder: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        (folder / part / "video").mkdir(parents=True)
        for index in range(count):
            label = balls(rng, (96, 128), 2)
            pixels = grey(rng, label, 60, 100).clip(0, 255).astype(np.uint8)
            Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(folder / part / "video" / f"{index}.jpg")
            Image.fromarray(label * 255).save(folder / part / "video" / f"{index}_seg.jpg", quality=100)


def ventricular(folder: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([balls(rng, (64, 64), 4) for _ in range(10)])
    folder.mkdir(parents=True)
    np.savez(folder / "allimages3label.npz", images=grey(rng, labels, 0, 60), segs=labels)
    save_volume(folder / "heart.nii.gz", grey(rng, labels[:3], 0, 60).transpose(1, 2, 0), (1, 1, 8))


def template(folder: Path, root: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(5):
        label = balls(rng, (32, 32, 32), 4)
        save_volume(folder / f"img{index:02}.nii.gz", grey(rng, label, 0, 60), (1, 1, 1))
        save_volume(folder / f"lbl{index:02}.nii.gz", label, (1, 1, 1))


@dataclass(frozen=True)
class Case:
    """A bundle: its budget, the maker of its data, and what its commands need to be small."""

    budget_bytes: int
    make: Callable[[Path, Path], None]
    train: dict[str, Any]
    evaluate: dict[str, Any] | None
    infer: dict[str, Any]
    suffix: str = "json"
    run_ids: Sequence[str] = ("run", "run", "run")  # as its page names them
    needs: dict[str, Any] = field(default_factory=dict)  # overrides for the overlay, beside the budget


_WORKERS = [
    f"{place}#num_workers"
    for place in ("train#dataloader", "validate#dataloader", "dataloader", "train_dataloader", "eval_dataloader")
]
_CROP, _SMALL = [32, 32, 32], [64, 64, 32]
_RESIZED = {"train#deterministic_transforms#3#spatial_size": [128, 96]}
CASES = {
    "spleen_ct_segmentation": Case(
        300_000,
        spleen,
        {"epochs": 1, "train#random_transforms#0#spatial_size": _CROP, "validate#inferer#roi_size": _CROP},
        {"validate#inferer#roi_size": _CROP},
        {"inferer#roi_size": _CROP},
    ),
    "brats_mri_segmentation": Case(
        4_800_000,
        brats,
        {
            "epochs": 1,
            "train#random_transforms#0#roi_size": _CROP,
            "validate#inferer#roi_size": _CROP,
            # MONAI 1.6.1's squared Dice loss refuses its boolean labels, with or without the overlay
            "train#random_transforms#5": {"_target_": "CastToTyped", "keys": "label", "dtype": "float32"},
        },
        {"validate#inferer#roi_size": _CROP},
        {"inferer#roi_size": _CROP},
    ),
    "pediatric_abdominal_ct_segmentation": Case(
        1_000_000,
        pediatric,
        {"max_epochs": 2, "spatial_size": _SMALL, "train#random_transforms#0#num_samples": 2},  # it validates each 2nd
        {"spatial_size": _SMALL},
        {"inferer#roi_size": _SMALL},
        suffix="yaml",
    ),
    "renalStructures_CECT_segmentation": Case(
        5_000_000,
        cect,
        {
            "train#trainer#max_epochs": 1,
            "val_interval": 1,
            "train#random_transforms#6#spatial_size": _CROP,
            "validate#inferer#roi_size": _CROP,
        },
        {"validate#inferer#roi_size": _CROP},
        {"inferer#roi_size": _CROP},
        run_ids=("training", "evaluate", "inference"),
    ),
    "spleen_deepedit_annotation": Case(
        1_000_000, deepedit, {"epochs": 1, "spatial_size": _SMALL}, {"spatial_size": _SMALL}, {"spatial_size": _SMALL}
    ),
    "endoscopic_tool_segmentation": Case(
        40_000_000,
        endoscopic,
        {"train#trainer#max_epochs": 1, **_RESIZED},
        _RESIZED,
        {"preprocessing#transforms#2#spatial_size": [128, 96]},
    ),
    "ventricular_short_axis_3label": Case(
        100_000,
        ventricular,
        {"num_epochs": 1, "num_iters": 2, "batch_size": 4, "num_substeps": 1},
        None,
        {"inferer#roi_size": [64, 64]},
        run_ids=("training", "", "evaluating"),
    ),
    "segmentation_template": Case(100_000, template, {"num_epochs": 1}, None, {}, suffix="yaml"),
    "wholeBrainSeg_Large_UNEST_segmentation": Case(
        7_000_000,
        whole_brain,
        {"train#trainer#max_epochs": 1, "val_interval": 1},
        None,
        {},
        run_ids=("training", "", "evaluating"),
        needs={"widths": "auto"},
    ),
    "renalStructures_UNEST_segmentation": Case(
        95_000_000,
        renal_unest,
        {"train#trainer#max_epochs": 1, "val_interval": 1, "train#random_transforms#0#num_samples": 1},
        None,
        {"scale_roi": True},
        run_ids=("training", "", "evaluating"),
        needs={"bits_per_weight": 8, "scale": 2, "scale_roi": True},
    ),
}


def run(root: Path, log: str, run_id: str, files: Sequence[Any], given: dict[str, Any]) -> tuple[int, str, float]:
    """Run MONAI's command in a bundle's folder; return its exit status, its output and its seconds."""
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    listed = json.dumps([str(file) for file in files])
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", listed, *words]
    start = time.monotonic()
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode(errors="replace")
    (root.parent / f"{root.name}.{log}.txt").write_text(" ".join(command) + "\n" + text)
    return done.returncode, text, time.monotonic() - start


def workers(config: Path) -> dict[str, int]:
    """Return overrides by which the loaders of a config use no processes of their own."""
    parser = ConfigParser(ConfigParser.load_config_file(str(config)))
    return {place: 0 for place in _WORKERS if place in parser}


def loaded(text: str) -> str:
    """Return the names of the files that a run loaded."""
    return " ".join(dict.fromkeys(Path(name).name for name in _LOADED.findall(text)))


_CHECK = """
import sys
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.networks import build_network, load_weights
plan = CompressionPlan.load("models/plan.json", sys.argv[1:])
load_weights(build_network(plan.network_def), "models/compressed.pt")
"""


def is_planned(root: Path) -> bool:
    """Tell whether the file holds the network of the plan, in a process that sees the bundle's own classes."""
    own = inner_def(json.loads((root / "models" / "plan.json").read_text())["network_def"])["_target_"]
    return subprocess.run([sys.executable, "-c", _CHECK, own], cwd=root, check=False).returncode == 0


def row_of(name: str, case: Case, models: Path, scratch: Path) -> dict[str, Any]:
    root, data = scratch / name, scratch / f"{name}-data"
    for folder in (root, data):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models / name, root)
    case.make(data, root)
    config = {kind: f"configs/{kind}.{case.suffix}" for kind in ("train", "evaluate", "inference")}
    here = {"bundle_root": ".", "dataset_dir": str(data)}
    status, text, seconds = run(
        root,
        "train",
        case.run_ids[0],
        [config["train"], OVERLAY / "compress.yaml"],
        {**here, "budget_bytes": case.budget_bytes, **workers(root / config["train"]), **case.train, **case.needs},
    )
    file = root / "models" / "compressed.pt"
    written = [line for line in text.splitlines() if line.startswith("Written: ")]
    row = {
        "bundle": name,
        "budget": case.budget_bytes,
        "trained": status,
        "bytes": file.stat().st_size if file.is_file() else None,
        "kept": written[0].partition(" bytes, ")[2].partition(";")[0] if written else "",
        "as_planned": is_planned(root) if file.is_file() else False,
    }
    spent = [seconds]
    theirs = list((root / "models").glob("model*.pt"))
    for each in theirs:
        each.rename(each.with_suffix(".away"))  # so that nothing can load it
    if case.evaluate is not None:
        files = [config["train"], config["evaluate"], OVERLAY / "planned.yaml"]
        given = {**here, **workers(root / config["train"]), **case.evaluate}
        row["evaluated"], text, seconds = run(root, "evaluate", case.run_ids[1], files, given)
        row["evaluation_loaded"] = loaded(text)
        spent.append(seconds)
    else:
        row |= {"evaluated": "has none", "evaluation_loaded": ""}
    given = {**here, **workers(root / config["inference"]), **case.infer}
    files = [config["inference"], OVERLAY / "planned.yaml"]
    row["inferred"], text, seconds = run(root, "inference", case.run_ids[2], files, given)
    row["inference_loaded"] = loaded(text)
    return {**row, "seconds": f"{max([*spent, seconds]):.0f}"}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in given.only:
        rows.append(row_of(name, CASES[name], given.models.resolve(), given.scratch.resolve()))
        print(rows[-1], file=sys.stderr, flush=True)
    save_or_print(rows, given.output)


if __name__ == "__main__":
    main()
