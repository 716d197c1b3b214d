"""nnU-Net's round trip with a narrower plans file, on a few made volumes on the CPU; nnunetv2 must be installed.

    python tests/benchmarks/bench_nnunet.py FOLDER

Plans and preprocesses, narrows, trains one epoch, predicts, and compares the widths of the checkpoint with the planned
ones. FOLDER gets nnU-Net's three folders.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel
import numpy as np
import torch

BUDGET = 400_000


def make_volumes(folder: Path, count: int = 6) -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, (32, 32, 24)), indexing="ij"))
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        centre = rng.uniform(10, 16, 3).reshape(3, 1, 1, 1)
        mask = (((grid - centre) ** 2).sum(axis=0) < 49).astype(np.uint8)
        image = (rng.normal(0, 20, mask.shape) + 100 * mask).astype(np.float32)
        parts = ("imagesTr",) if number else ("imagesTr", "imagesTs")
        for part in parts:
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / part / f"ball_{number:03d}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "labelsTr" / f"ball_{number:03d}.nii.gz")
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "ball": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**described, "numTraining": count}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    places = {name: folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}, "nnUNet_compile": "f"}
    scripts = Path(sysconfig.get_path("scripts"))
    data = places["nnUNet_raw"] / "Dataset123_Balls"
    make_volumes(data)

    def run(*words: str, workers: int = 1) -> None:
        print(*words, flush=True)
        subprocess.run(words, env={**environment, "nnUNet_n_proc_DA": str(workers)}, check=True)

    run(str(scripts / "nnUNetv2_plan_and_preprocess"), *["-d", "123", "-c", "3d_fullres", "-np", "1", "-npfp", "1"])
    plans = places["nnUNet_preprocessed"] / "Dataset123_Balls" / "nnUNetPlans.json"
    run(sys.executable, "-m", "monai_ccnet", "nnunet", str(plans), "--budget_bytes", str(BUDGET))
    narrowed = next(plans.parent.glob("nnUNetPlans_ccnet_*.json"))
    trainer = ["-p", narrowed.stem, "-tr", "nnUNetTrainer_1epoch", "-device", "cpu"]
    run(str(scripts / "nnUNetv2_train"), "123", "3d_fullres", "0", *trainer, workers=0)
    asked = [
        "-i",
        str(data / "imagesTs"),
        "-o",
        str(folder / "predicted"),
        *["-d", "123", "-c", "3d_fullres", "-f", "0"],
    ]
    run(str(scripts / "nnUNetv2_predict"), *asked, *trainer, "-npp", "1", "-nps", "1", "--disable_tta")
    planned = json.loads(narrowed.read_text())["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    checkpoint = next(places["nnUNet_results"].rglob("checkpoint_final.pth"))
    state = torch.load(checkpoint, weights_only=False, map_location="cpu")["network_weights"]  # of our own training
    stages = range(len(planned["features_per_stage"]))
    trained = [state[f"encoder.stages.{stage}.0.convs.0.conv.weight"].shape[0] for stage in stages]
    print(f"planned {planned['features_per_stage']}, trained {trained}")
    print(f"predicted: {[path.name for path in sorted((folder / 'predicted').glob('*.nii.gz'))]}")
    if trained != planned["features_per_stage"]:
        raise SystemExit("the network that was trained is not the planned one.")


if __name__ == "__main__":
    main()
