"""Time trainings by the code of another checkout and by this one, in turn, at equal patch, batch and steps.

    git worktree add ../before COMMIT
    python tests/benchmarks/bench_training.py ../before DATA_FOLDER [DATA_FOLDER ...]

Each training is a process of its own with one thread; it is timed from its first config to its last score, without
the imports. ``--precision float32`` says what this code gains without bfloat16. Then a sweep of eight narrow trials
with two processes is timed, and the command of the README's sample at equal patch, loss and scale, as a user waits for
them. Ratios are before / now.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

NETWORKS = [(4, 8, 16, 32, 64), (12, 10, 9, 7, 6), (16, 32, 64, 128, 256)]
HERE = Path(__file__).parents[2]

TRAIN = """
import json, logging, resource, sys, time
import torch
import monai_ccnet
from monai_ccnet.training import run_trial
logging.disable(logging.INFO)
given = json.loads(sys.argv[1])
torch.set_num_threads(1)
start = time.monotonic()
record = run_trial(monai_ccnet.bundle_root(), given.pop("output_dir"), given.pop("network_def"), **given)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([record.scores["f1"], time.monotonic() - start, peak]))
"""

SWEEP = """
import json, logging, sys
import monai_ccnet
from monai_ccnet.training import plan_trials, run_sweep
given = json.loads(sys.argv[1])
folder, data = given.pop("output_dir"), given.pop("dataset_dir")
trials = plan_trials(monai_ccnet.bundle_root(), folder, [data], multipliers=[1.0], seeds=range(8), **given)
print(json.dumps([sum(record.scores["f1"] for record in run_sweep(trials, n_jobs=2)) / 8]))
"""

README = """
import json, sys
from pathlib import Path
from monai_ccnet.__main__ import main
given = json.loads(sys.argv[1])
main(["compress", "--output_dir", given["output_dir"], "--budget_bytes", "500000", *given["words"]])
print(json.dumps([json.loads((Path(given["output_dir"]) / "record.json").read_text())["scores"]["f1"]]))
"""
SAME = ["--scale", "1", "--patch_size", "[96,96]", "--batch_size", "4", "--lambda_dice", "0", "--activation", "RELU"]


class Run(NamedTuple):
    """What a process took: seconds that its program says and megabytes at its peak, where it does, and all seconds."""

    f1: float
    seconds: float
    peak: float
    whole: float


def run(root: Path, program: str, threads: int = 1, **given: Any) -> Run:
    """Run a program with the code of a checkout, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", program, json.dumps({**given, "output_dir": folder})]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(threads)}
        start = os.times().elapsed
        done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        whole = os.times().elapsed - start
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    f1, *said = json.loads(done.stdout.strip().splitlines()[-1])
    return Run(f1, *(said or (0.0, 0.0)), whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--steps", type=int, default=800)
    given = parser.parse_args()
    now = {"precision": given.precision}
    for folder in given.data:
        described = json.loads((folder / "dataset.json").read_text())
        for channels in NETWORKS:
            inner = {
                "_target_": "monai_ccnet.networks.PlainUNet",
                "in_channels": 3 if folder.name in ("melanoma", "wbc_cellavision") else 1,
                "out_channels": len(described["labels"]),
                "channels": channels,
            }
            at = {"_target_": "monai_ccnet.networks.AtScale", "scale": given.scale, "divisor": 16, "network": inner}
            trial = {
                "network_def": inner if given.scale == 1 else at,
                "dataset_dir": str(folder.resolve()),
                "patch_size": [given.patch] * 2,
                "batch_size": 4,
                "max_epochs": given.steps // 50,
                "lambda_dice": 1.0,
            }
            pairs = [
                (run(given.before, TRAIN, **trial), run(HERE, TRAIN, **trial, **now)) for _ in range(given.repeats)
            ]
            ratio = statistics.median(before.seconds / after.seconds for before, after in pairs)
            before, after = pairs[0]
            print(
                f"{folder.name} {'-'.join(map(str, channels))}: {ratio:.2f} times ({before.seconds:.0f} s, "
                f"{after.seconds:.0f} s; F1 {before.f1:.3f}, {after.f1:.3f}; MB {before.peak:.0f}, {after.peak:.0f})",
                flush=True,
            )
    sweep = {
        "dataset_dir": str(given.data[0].resolve()),
        "channels": NETWORKS[0],
        "max_epochs": given.steps // 50,
        "patch_size": [given.patch] * 2,
        "batch_size": 4,
        "scale": given.scale,
    }
    for name, program, threads, asked, more in (
        ("sweep of eight with two processes", SWEEP, 1, sweep, now),
        ("the README's sample", README, 2, {"words": []}, {"words": SAME}),
    ):
        before, after = run(given.before, program, threads, **asked), run(HERE, program, threads, **{**asked, **more})
        print(f"{name}: {before.whole / after.whole:.2f} times ({before.whole:.0f} s, {after.whole:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
