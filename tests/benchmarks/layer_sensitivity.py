"""Prune each layer of a trained network by 30 % at random, and draw what it costs beside what plans take: Fig. 12.

    python tests/benchmarks/layer_sensitivity.py COMPARISON_FOLDER DATASET_FOLDER BUDGET_BYTES OUTPUT_FOLDER

COMPARISON_FOLDER is what ``compare.yaml`` left; its full-size network of seed 0 is probed on the whole test images.
OUTPUT_FOLDER gets ``sensitivity.csv`` and ``sensitivity.png``.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from monai_ccnet import bundle_root
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import DiskBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.figures import draw_sensitivity, save_figure
from monai_ccnet.networks import build_network, load_weights
from monai_ccnet.posttraining import layer_sensitivity, save_sensitivity
from monai_ccnet.records import TrialRecord
from monai_ccnet.training.trial import evaluate_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, metavar="COMPARISON_FOLDER")
    parser.add_argument("dataset", metavar="DATASET_FOLDER")
    parser.add_argument("budget_bytes", type=int, metavar="BUDGET_BYTES")
    parser.add_argument("output", type=Path, metavar="OUTPUT_FOLDER")
    given = parser.parse_args()
    comparison, budget, output = given.comparison, DiskBudget(given.budget_bytes), given.output
    full = comparison / "full-size-seed0"
    record = TrialRecord.load(full / "record.json")
    network = load_weights(build_network(record.network_def), full / "model.pt")

    def evaluate(pruned):
        with tempfile.TemporaryDirectory() as folder:
            found = evaluate_network(bundle_root(), folder, pruned, record.network_def, dataset_dir=given.dataset)
        print(f"{found.size.weights:,} weights, F1 {found.scores['f1']:.4f}", flush=True)
        return found.scores["f1"]

    rng = np.random.default_rng(0)
    rows = layer_sensitivity(network, evaluate, input_shape=record.size.input_shape, rng=rng)
    save_sensitivity(output / "sensitivity.csv", rows)
    known = {
        "complexity": ComplexityProfile.load(comparison / "complexity.json"),
        "degradation": DegradationModel.calibrated("plain_unet"),
    }
    plans = {
        "uniform": compress(record.network_def, budget, layerwise=False),
        "layer-wise, by complexity": compress(record.network_def, budget, **known),
        "layer-wise, tapered": compress(record.network_def, budget, allocation="taper"),
    }
    save_figure(output / "sensitivity.png", draw_sensitivity(rows, plans))


if __name__ == "__main__":
    main()
