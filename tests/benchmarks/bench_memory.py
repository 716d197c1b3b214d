"""Compare the memory we predict with torch's own account and with the growth of the resident set.

    python tests/benchmarks/bench_memory.py

For each network and input size: bytes alive at the peak of a forward pass in eval mode and of a training step, by
network_size and by torch's MemTracker on fake tensors (less what is stored), and how far the resident set of a process
of its own grows (VmHWM, reset after the network was built and run once on a small image). glibc keeps freed memory
unless it is told not to: the second growth is with MALLOC_MMAP_THRESHOLD_=65536 and MALLOC_TRIM_THRESHOLD_=0, which
hand every freed tensor back. What remains above 1 is scratch space of kernels, most of it copies that oneDNN reorders.
The training step starts from a gradient of the logits' size. Values in MiB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from monai_ccnet.networks import build_network, default_input_shape, network_size

MIB = 2**20
NETS = "monai.networks.nets."
FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
SOLID = {**FLAT, "spatial_dims": 3}
CASES = {
    "PlainUNet 16-256": (
        {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [16, 32, 64, 128, 256]},
        [(1, 1, 512, 512), (1, 1, 1024, 1024)],
    ),
    "BasicUNet 32-256": ({"_target_": NETS + "BasicUNet", **FLAT}, [(1, 1, 512, 512), (1, 1, 1024, 1024)]),
    "BasicUNet 64-1024": (
        {"_target_": NETS + "BasicUNet", **FLAT, "features": [64, 128, 256, 512, 1024, 64]},
        [(1, 1, 256, 256), (1, 1, 512, 512)],
    ),
    "UNet 16-256": (
        {
            "_target_": NETS + "UNet",
            **FLAT,
            "channels": [16, 32, 64, 128, 256],
            "strides": [2, 2, 2, 2],
            "num_res_units": 2,
        },
        [(1, 1, 1024, 1024), (1, 1, 2048, 2048)],
    ),
    "SegResNet 16, 3-D": (
        {"_target_": NETS + "SegResNet", **SOLID, "init_filters": 16},
        [(1, 1, 64, 64, 64), (1, 1, 96, 96, 96)],
    ),
    "DynUNet 32-320, 3-D": (
        {
            "_target_": NETS + "DynUNet",
            **SOLID,
            "kernel_size": [3] * 5,
            "strides": [1, 2, 2, 2, 2],
            "upsample_kernel_size": [2] * 4,
        },
        [(1, 1, 64, 64, 64), (1, 1, 96, 96, 96)],
    ),
}
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


def step(network: torch.nn.Module, shape: tuple[int, ...], train: bool) -> None:
    image = torch.zeros(shape)
    with torch.set_grad_enabled(train):
        logits = network.train(train)(image)
        if train:
            logits.backward(torch.zeros_like(logits))


def tracked(network_def: dict, shape: tuple[int, ...], train: bool) -> float:
    """Return the peak by torch's tracker, less what is stored, in MiB."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    with FakeTensorMode():
        network, tracker = build_network(network_def), MemTracker()
        tracker.track_external(network)
        with tracker:
            step(network, shape, train)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return (peak["Total"] - network_size(network_def).state_bytes) / MIB


def status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def growth(network_def: dict, shape: tuple[int, ...], train: bool) -> float:
    """Return how far the resident set of a process of its own grows in one step, in MiB."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with os.fdopen(reader) as answer:
            grown = answer.read()
        os.waitpid(child, 0)
        return float(grown)
    network = build_network(network_def)
    default = default_input_shape(network_def)[2:]
    step(network, (*shape[:2], *(length // 2 for length in default)), train)
    network.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
    before = status("VmRSS")
    step(network, shape, train)
    os.write(writer, str(status("VmHWM") - before).encode())
    os._exit(0)


def all_growths(environment: dict[str, str]) -> dict[str, float]:
    """Let a process with this environment measure every case; it computes nothing itself before it forks."""
    command = [sys.executable, __file__, "--growths"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def steps():
    for name, (network_def, shapes) in CASES.items():
        for shape in shapes:
            for train in (False, True):
                yield (
                    f"{name} | {' x '.join(map(str, shape[2:]))} | {'training' if train else 'forward'}",
                    (
                        network_def,
                        shape,
                        train,
                    ),
                )


def main() -> None:
    kept, returned = all_growths({}), all_growths(RETURNING)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; MiB; in brackets the ratio to ours")
    print("| network | input | step | ours | MemTracker | resident set | resident set, memory returned |")
    print("|---|---|---|---|---|---|---|")
    for words, (network_def, shape, train) in steps():
        size = network_size(network_def, shape)
        ours = (size.training_bytes if train else size.activation_bytes) / MIB
        values = (tracked(network_def, shape, train), kept[words], returned[words])
        print(f"| {words} | {ours:.1f} |", " | ".join(f"{v:.1f} ({v / ours:.2f})" for v in values), "|", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--growths"]:
        print(json.dumps({words: growth(*case) for words, case in steps()}))
    else:
        main()
