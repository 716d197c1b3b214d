"""Train networks at several working scales on a folder of data sets, and record what they reach.

    python tests/benchmarks/train_scales.py DATA RESULTS --processes 2 --hours 3

A quarter of the training images, whole subjects, is held out: it comes first in ``per_image`` of each record, before
the test images. All else is ``train.yaml``'s, with Dice beside cross-entropy, a leaky ReLU, bfloat16 and patches that
hold the whole image up to 320 pixels, the same in pixels of the input at every scale. What is done is not done again.
"""

import argparse
import re
import time
from pathlib import Path

from joblib import Parallel, delayed

import monai_ccnet
from monai_ccnet.data import open_dataset
from monai_ccnet.ending import root_cause
from monai_ccnet.files import write_json
from monai_ccnet.networks import NetworkFamily
from monai_ccnet.training import run_trial
from monai_ccnet.values import save_values

# Data sets of several patients, with the patch in pixels of the input; then some of one subject or recording.
PATIENTS = {
    "wbc_cellavision": (128, 128),
    "sunnybrook_lv": (160, 160),
    "busi": (256, 256),
    "dsb2018_fluorescence": (256, 256),
    "melanoma": (320, 320),
    "chase_db1": (256, 256),
    "hippocampus_3d": (48, 64, 48),
}
OTHERS = {"epithelium": (256, 256), "colin27_brain": (256, 256)}
SCALES = {"chase_db1": (1, 2, 4), "hippocampus_3d": (1, 2), "epithelium": (1, 2, 4)}  # others at 1, 2, 4, 8
TAPERED, UNIFORM, WIDE = (12, 10, 9, 7, 6), (4, 8, 16, 32, 64), (16, 32, 64, 128, 256)
# Each phase is worth having alone: networks, seed, data sets, and the scales that count in it.
PHASES = [
    (TAPERED, 0, [*PATIENTS][:-1], (1, 2, 4, 8)),
    (TAPERED, 1, [*PATIENTS][:-1], (1, 2, 4, 8)),
    (WIDE, 0, [*PATIENTS][:-1], (2, 4, 8)),
    (TAPERED, 0, [*OTHERS], (1, 2, 4, 8)),
    (UNIFORM, 0, [*PATIENTS][:-1], (1, 2, 4, 8)),
    (WIDE, 0, [*PATIENTS][:-1], (1,)),
    (UNIFORM, 1, [*PATIENTS][:-1], (1, 2, 4, 8)),
    (TAPERED, 0, ["hippocampus_3d"], (1, 2)),
    (TAPERED, 1, ["hippocampus_3d"], (1, 2)),
    (UNIFORM, 0, ["hippocampus_3d"], (1, 2)),
    (WIDE, 0, ["hippocampus_3d"], (1, 2)),
]


def held_out(training):
    """Return which training images are held out: every fourth subject, as far as the names tell subjects."""
    subjects = [re.sub(r"(-IM-.*|[LR])?\..*$", "", Path(item["image"]).name) for item in training]
    order = sorted(set(subjects))
    return [order.index(subject) % 4 == 3 for subject in subjects]


def train(data_dir, results, channels, seed, name, scale):
    data, patch = open_dataset(Path(data_dir) / name), {**PATIENTS, **OTHERS}[name]
    held = held_out(data.training)
    training, validation = (
        [item for item, out in zip(data.training, held, strict=True) if out == part] for part in (False, True)
    )
    full = {
        "_target_": "monai_ccnet.networks.PlainUNet",
        "spatial_dims": data.spatial_dims,
        "in_channels": data.in_channels,
        "out_channels": len(data.labels),
        "channels": list(channels),
        "act": ["LEAKYRELU", {"negative_slope": 0.1}],
    }
    network_def = NetworkFamily.of(full).at(channels, scale)
    folder = Path(results) / f"{name}-{'-'.join(map(str, channels))}-{scale}-{seed}"
    surface_dice = {
        "_target_": "monai.metrics.SurfaceDiceMetric",
        "class_thresholds": [2.0] * (len(data.labels) - 1),
        "include_background": False,
    }
    start = time.monotonic()
    record = run_trial(
        monai_ccnet.bundle_root(),
        folder,
        network_def,
        wait=False,
        dataset_dir=str(Path(data_dir) / name),
        train_datalist=training,
        val_datalist=validation[:2],  # only to see that it learns
        test_datalist=validation + data.test,
        seed=seed,
        lambda_dice=1.0,
        batch_size=4 if data.spatial_dims == 2 else 2,
        max_epochs=16,
        precision="float32" if name == "hippocampus_3d" else "bfloat16",
        patch_size=list(patch),
        **{
            "test::additional_metrics::surface_dice": {
                "_target_": "monai.handlers.IgniteMetricHandler",
                "metric_fn": surface_dice,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            },
            "handlers::1::metric_details": ["f1", "iu", "surface_dice"],
        },
    )
    write_json(folder / "held_out.json", {"held_out": len(validation), "scale": scale, "channels": list(channels)})
    print(f"{folder.name}: F1 {record.scores['f1']:.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return record


def tried(*given):
    """Train, or say why it failed, so that the others go on."""
    try:
        return train(*given)
    except Exception as error:
        print(f"{given[2:]} failed: {root_cause(error)}", flush=True)
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("results")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--hours", type=float, default=3.0)
    given = parser.parse_args()
    end, records = time.monotonic() + 3600 * given.hours, []
    wanted = [
        (channels, seed, name, scale)
        for channels, seed, names, scales in PHASES
        for name in names
        for scale in sorted(set(scales) & set(SCALES.get(name, scales)), reverse=True)
    ]
    tasks = (delayed(tried)(given.data, given.results, *each) for each in wanted if time.monotonic() < end)
    for record in Parallel(n_jobs=given.processes, return_as="generator_unordered", pre_dispatch=given.processes)(
        tasks
    ):
        if record is not None:
            records.append(record)
            save_values(Path(given.results) / "records.jsonl", records)


if __name__ == "__main__":
    main()
