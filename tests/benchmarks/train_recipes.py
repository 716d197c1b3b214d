"""Train small networks by recipes that differ in one thing, on a folder of data sets at their planned scales.

    python tests/benchmarks/train_recipes.py DATA RESULTS TRAININGS --processes 2

TRAININGS is a CSV file with one training a line: data set, recipe, channels such as 12-10-9-7-6, seed. A recipe is a
key of RECIPES, or several joined by ``+``. What is done is not done again; RESULTS/trainings.csv gets one row each,
with F1 on the test images after the last step.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

import monai_ccnet
from monai_ccnet.data import open_dataset
from monai_ccnet.ending import root_cause
from monai_ccnet.files import write_table
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.training import run_trial

# The planned scale of each data set, and the patch in pixels of the input.
DATA = {
    "busi": (4, (256, 256)),
    "sunnybrook_lv": (2, (160, 160)),
    "chase_db1": (1, (256, 256)),
    "melanoma": (8, (320, 320)),
    "wbc_cellavision": (2, (128, 128)),
    "dsb2018_fluorescence": (2, (256, 256)),
    "hippocampus_3d": (1, (48, 64, 48)),
    "chest_ct_3d": (1, (64, 64, 32)),
    "colin27_3d": (2, (128, 128, 64)),
}
KEYS = ["image", "label"]
MIRROR, FLIP = (
    {"_target_": "monai.transforms.RandFlipd", "keys": KEYS, "prob": 0.5, "spatial_axis": axis} for axis in (0, 1)
)
TURN = {"_target_": "monai.transforms.RandRotate90d", "keys": KEYS, "prob": 0.75, "max_k": 3}
AFFINE = {
    "_target_": "monai.transforms.RandAffined",
    "keys": KEYS,
    "prob": 0.5,
    "rotate_range": [0.26],
    "scale_range": [0.15, 0.15],
    "mode": ["bilinear", "nearest"],
    "padding_mode": "border",
}
CONTRAST = [
    {"_target_": "monai.transforms.RandScaleIntensityd", "keys": "image", "factors": 0.25, "prob": 0.5},
    {"_target_": "monai.transforms.RandShiftIntensityd", "keys": "image", "offsets": 0.25, "prob": 0.5},
]
GAMMA = {
    "_target_": "monai.transforms.RandAdjustContrastd",
    "keys": "image",
    "prob": 0.5,
    "gamma": [0.7, 1.5],
    "retain_stats": True,
}
NOISE = [
    {"_target_": "monai.transforms.RandGaussianNoised", "keys": "image", "std": 0.1, "prob": 0.25},
    {"_target_": "monai.transforms.RandGaussianSmoothd", "keys": "image", "prob": 0.25},
]


def augmented(*transforms: Any) -> dict[str, Any]:
    return {"transforms": [each for part in transforms for each in (part if isinstance(part, list) else [part])]}


def loss(name: str, **given: Any) -> dict[str, Any]:
    return {"loss": {"_target_": f"monai.losses.{name}", "softmax": True, "to_onehot_y": True, **given}}


def leaky(slope: float) -> dict[str, Any]:
    return {"act": ["LEAKYRELU", {"negative_slope": slope}]}


def optimizer(name: str, **given: Any) -> dict[str, Any]:
    return {"optimizer": {"_target_": f"torch.optim.{name}", "params": "$@network.parameters()", **given}}


# Ids of train.yaml, and beside them: act and norm of the network, transforms that augment, those that normalise, and by
# how much the patch is longer.
RECIPES: dict[str, dict[str, Any]] = {
    "base": {},
    "cross-entropy alone": {"lambda_dice": 0.0},
    "focal beside Dice": loss("DiceFocalLoss"),
    "generalised Dice, focal": loss("GeneralizedDiceFocalLoss"),
    "Tversky": loss("TverskyLoss", alpha=0.3, beta=0.7),
    "Dice over the batch": loss("DiceCELoss", batch=True),
    "Dice over the batch, no background": loss("DiceCELoss", batch=True, include_background=False),
    "Dice, no background": loss("DiceCELoss", include_background=False),
    "ReLU": {"act": "RELU"},
    "leaky 0.01": leaky(0.01),
    "leaky 0.2": leaky(0.2),
    "leaky 0.3": leaky(0.3),
    "PReLU": {"act": "PRELU"},
    "swish": {"act": "SWISH"},
    "instance normalisation": {"norm": ["INSTANCE", {"affine": True}]},
    "no augmentation": augmented(),
    "mirror": augmented(MIRROR),
    "both flips": augmented(MIRROR, FLIP),
    "mirror, affine": augmented(MIRROR, AFFINE),
    "mirror, affine, gamma, contrast": augmented(MIRROR, AFFINE, GAMMA, CONTRAST),
    "affine": augmented(MIRROR, FLIP, TURN, AFFINE),
    "contrast": augmented(MIRROR, FLIP, TURN, CONTRAST),
    "gamma": augmented(MIRROR, FLIP, TURN, GAMMA),
    "noise": augmented(MIRROR, FLIP, TURN, NOISE),
    "affine, noise": augmented(MIRROR, FLIP, TURN, AFFINE, NOISE),
    "affine, gamma, noise": augmented(MIRROR, FLIP, TURN, AFFINE, GAMMA, NOISE),
    "400 steps": {"max_epochs": 8},
    "1600 steps": {"max_epochs": 32},
    "2400 steps": {"max_epochs": 48},
    "rate 0.001": {"learning_rate": 0.001},
    "rate 0.002": {"learning_rate": 0.002},
    "rate 0.01": {"learning_rate": 0.01},
    "warm-up 100": {"warmup_steps": 100},
    "fixed rate": {"rate_cycles": 0.0},
    "AdamW": optimizer("AdamW", lr="@learning_rate", weight_decay=0.05),
    "epsilon 1e-8": optimizer("Adam", lr="@learning_rate"),
    "batch 8": {"batch_size": 8},
    "batch 16": {"batch_size": 16},
    "float32": {"precision": "float32"},
    "half patch": {"patch": 0.5},
    "double patch": {"patch": 2.0},
    "batch 1": {"batch_size": 1},
    "range 0 to 1": {
        "normalised": [{"_target_": "monai.transforms.ScaleIntensityd", "keys": "image", "channel_wise": True}]
    },
    "percentiles": {
        "normalised": [
            {
                "_target_": "monai.transforms.ScaleIntensityRangePercentilesd",
                "keys": "image",
                "lower": 0.5,
                "upper": 99.5,
                "b_min": 0.0,
                "b_max": 1.0,
                "clip": True,
                "channel_wise": True,
            },
            {"_target_": "monai.transforms.NormalizeIntensityd", "keys": "image", "channel_wise": True},
        ]
    },
}


def normalised(config: dict[str, Any], steps: list[Any]) -> dict[str, list[Any]]:
    """Return the overrides that put other steps in the place of the normalisation, in training and in validation."""
    places = {
        "train::deterministic_transforms": config["train"]["deterministic_transforms"],
        "validate::preprocessing::transforms": config["validate"]["preprocessing"]["transforms"],
    }
    return {
        key: [new for old in part for new in (steps if "NormalizeIntensity" in old["_target_"] else [old])]
        for key, part in places.items()
    }


def train(data_dir: Path, results: Path, name: str, recipe: str, channels: str, seed: int) -> None:
    folder = results / f"{name}_{recipe}_{channels}_{seed}".replace(" ", "-")
    if (folder / "record.json").exists():
        return
    data, (scale, patch) = open_dataset(data_dir / name), DATA[name]
    given = {key: value for part in recipe.split("+") for key, value in RECIPES[part].items()}
    longer = given.pop("patch", 1)
    patch = [int(length * longer) for length in patch]
    full = {
        "_target_": "monai_ccnet.networks.PlainUNet",
        "spatial_dims": data.spatial_dims,
        "in_channels": data.in_channels,
        "out_channels": len(data.labels),
        "channels": [int(width) for width in channels.split("-")],
        "act": given.pop("act", ["LEAKYRELU", {"negative_slope": 0.1}]),
        "norm": given.pop("norm", "BATCH"),
    }
    network_def = NetworkFamily.of(full).at(full["channels"], scale)
    if (transforms := given.pop("transforms", None)) is not None:
        crop = {
            "_target_": "monai.transforms.RandSpatialCropd",
            "keys": KEYS,
            "roi_size": patch,
            "random_size": False,
        }
        given["train::random_transforms"] = [crop, *transforms]
    if (steps := given.pop("normalised", None)) is not None:
        from monai.bundle import ConfigParser

        config = ConfigParser.load_config_file(str(monai_ccnet.bundle_root() / "configs" / "train.yaml"))
        given.update(normalised(config, steps))
    base = {
        "lambda_dice": 1.0,
        "batch_size": 4 if data.spatial_dims == 2 else 2,
        "max_epochs": 16,
        "precision": "bfloat16",
        "patch_size": patch,
        "seed": seed,
        "dataset_dir": str(data_dir / name),
    }
    start = time.monotonic()
    record = run_trial(monai_ccnet.bundle_root(), folder, network_def, wait=False, **{**base, **given})
    row = {
        "dataset": name,
        "recipe": recipe,
        "channels": channels,
        "seed": seed,
        "f1": round(record.scores["f1"] or 0.0, 4),
        "iu": round(record.scores["iu"] or 0.0, 4),
        "seconds": round(time.monotonic() - start),
    }
    write_table(folder / "row.csv", [row])
    print(row, flush=True)


def tried(*given: Any) -> None:
    """Train, or say why it failed, so that the others go on."""
    try:
        train(*given)
    except Exception as error:
        print(f"{given[2:]} failed: {root_cause(error)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("trainings", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with open(given.trainings, encoding="utf-8", newline="") as file:
        wanted = [(name, recipe, channels, int(seed)) for name, recipe, channels, seed in csv.reader(file)]
    Parallel(n_jobs=given.processes, batch_size=1, pre_dispatch="n_jobs")(
        delayed(tried)(given.data, given.results, *each) for each in wanted
    )
    rows = [
        row
        for path in sorted(given.results.glob("*/row.csv"))
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    ]
    write_table(given.results / "trainings.csv", rows)


if __name__ == "__main__":
    main()
