"""Train on images and labels that were resampled beforehand, and score at full resolution: a null of the working scale.

    python tests/benchmarks/resampling_null.py DATA RESULTS busi=4 melanoma=8 sunnybrook_lv=2

Images are averaged down by the scale and labels take the class of most pixels; the network, its training and the images
held out are those of train_scales.py. Its weights are then evaluated within AtScale on the images as they are.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from train_scales import PATIENTS, TAPERED, held_out

import monai_ccnet
from monai_ccnet.data import load_image, open_dataset
from monai_ccnet.networks import NetworkFamily, build_network, load_weights
from monai_ccnet.training import evaluate_network, run_trial


def averaged(array, scale):
    padded = np.pad(array, [(0, 0), *((0, -length % scale) for length in array.shape[1:])], mode="edge")
    channels, width, height = padded.shape
    return padded.reshape(channels, width // scale, scale, height // scale, scale).mean(axis=(2, 4))


def resampled(data, folder, scale):
    """Write a data set at 1/scale, and return its folder."""
    listed = {}
    for part, items in (("training", data.training), ("test", data.test)):
        listed[part] = []
        for item in items:
            small = {}
            for what in ("image", "label"):
                array = np.asarray(load_image(item[what], label=what == "label"))
                if what == "label":
                    shares = np.stack(
                        [averaged((array == index).astype(float), scale)[0] for index in range(len(data.labels))]
                    )
                    pixels = shares.argmax(axis=0)[None]
                else:
                    pixels = np.rint(averaged(array, scale))
                path = folder / f"{what}s" / Path(item[what]).name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.squeeze(pixels.astype(np.uint8).transpose(2, 1, 0))).save(path)
                small[what] = str(path.relative_to(folder))
            listed[part].append(small)
    described = {
        "name": data.name,
        "labels": {str(i): name for i, name in enumerate(data.labels)},
        "modality": {"0": "image"},
    }
    (folder / "dataset.json").write_text(json.dumps(described | listed))
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("sets", nargs="+")
    given = parser.parse_args()
    print("| set | scale | seed | F1 held out | F1 test |\n|---|---|---|---|---|", flush=True)
    for name, scale in (each.split("=") for each in given.sets):
        scale, data = int(scale), open_dataset(given.data / name)
        small = resampled(data, given.results / f"{name}-{scale}-data", scale)
        held = held_out(data.training)
        for seed in (0, 1):
            full = {
                "_target_": "monai_ccnet.networks.PlainUNet",
                "spatial_dims": 2,
                "in_channels": data.in_channels,
                "out_channels": len(data.labels),
                "channels": list(TAPERED),
                "act": ["LEAKYRELU", {"negative_slope": 0.1}],
            }
            recipe = {"seed": seed, "lambda_dice": 1.0, "precision": "bfloat16"}
            items = open_dataset(small).training
            folder = given.results / f"{name}-{scale}-{seed}"
            run_trial(
                monai_ccnet.bundle_root(),
                folder,
                full,
                dataset_dir=str(small),
                train_datalist=[item for item, out in zip(items, held, strict=True) if not out],
                val_datalist=[item for item, out in zip(items, held, strict=True) if out][:2],
                patch_size=[16 * -(-length // (16 * scale)) for length in PATIENTS[name]],
                **recipe,
            )
            definition = NetworkFamily.of(full).at(TAPERED, scale)
            network = load_weights(build_network(definition), folder / "model.pt")
            outside = [item for item, out in zip(data.training, held, strict=True) if out]
            record = evaluate_network(
                monai_ccnet.bundle_root(),
                given.results / f"{name}-{scale}-{seed}-full",
                network,
                definition,
                dataset_dir=str(given.data / name),
                train_datalist=[item for item, out in zip(data.training, held, strict=True) if not out],
                test_datalist=outside + data.test,
                patch_size=list(PATIENTS[name]),
                **recipe,
            )
            f1 = np.array([np.nan if value is None else value for value in record.per_image["f1"]], float)
            parts = [np.nanmean(part) for part in (f1[: len(outside)], f1[len(outside) :])]
            print(f"| {name} | {scale} | {seed} | {parts[0]:.3f} | {parts[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
