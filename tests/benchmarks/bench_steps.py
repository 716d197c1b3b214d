"""Time steps of a training as torch takes them, and within ``faster_steps``, in turn; one thread.

    python tests/benchmarks/bench_steps.py

A line a network and precision: milliseconds of a step (four patches of 96 x 96, in 3-D two of 48 x 64 x 48), and what
share of it a step takes within ``faster_steps``. Each way has processes of its own, since freed memory is kept in one.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from monai.losses import DiceCELoss

from monai_ccnet.networks import PlainUNet, at_precision, faster_steps

NETWORKS = [(4, 8, 16, 32, 64), (12, 10, 9, 7, 6), (16, 32, 64, 128, 256)]
SHAPES = {2: (4, 1, 96, 96), 3: (2, 1, 48, 64, 48)}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
ROUNDS = 2


def milliseconds(dims: int, channels: tuple[int, ...], precision: str, is_faster: bool) -> float:
    """Return what a step takes, the median of five times some steps."""
    network = PlainUNet(spatial_dims=dims, channels=channels, out_channels=2, act="LEAKYRELU")
    network = at_precision(network.to(memory_format=LAYOUTS[dims]), precision)
    optimizer, loss = torch.optim.Adam(network.parameters(), fused=True), DiceCELoss(softmax=True, to_onehot_y=True)
    image, label = torch.randn(SHAPES[dims]), (torch.rand(SHAPES[dims]) > 0.7).float()
    times, taken = 20 if dims == 2 else 3, []
    with faster_steps(network) if is_faster else contextlib.nullcontext():
        for _ in range(6):  # the first to warm up
            start = time.perf_counter()
            for _ in range(times):
                optimizer.zero_grad()
                loss(network(image), label).backward()
                optimizer.step()
            taken.append(1e3 * (time.perf_counter() - start) / times)
    return statistics.median(taken[1:])


def of_all(is_faster: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    return {
        f"{dims}-D {'-'.join(map(str, channels))} {precision}": milliseconds(dims, channels, precision, is_faster)
        for dims in SHAPES
        for channels in NETWORKS
        for precision in ("bfloat16", "float32")
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(of_all(sys.argv[1] == "faster")))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = [
        [
            json.loads(subprocess.check_output([sys.executable, __file__, way], env=environment).splitlines()[-1])
            for way in ("torch", "faster")
        ]
        for _ in range(ROUNDS)
    ]
    for name in found[0][0]:
        share = statistics.mean(faster[name] / plain[name] for plain, faster in found)
        print(f"{name}: {found[0][0][name]:.1f} ms, {share:.2f} of it within faster_steps")


if __name__ == "__main__":
    main()
