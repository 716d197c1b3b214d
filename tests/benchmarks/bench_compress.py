"""Time a plan of every network of the table at full size, and the memory that planning takes.

    python tests/benchmarks/bench_compress.py

The budget is a tenth of the way from the narrowest network to the full-size one; medians of three, after one plan that
imports what is needed. Processor seconds of one thread, so that what else the machine does counts little.
"""

import resource
import time
from functools import partial

import numpy as np
import torch

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import DiskBudget, MemoryBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.networks import WIDTHS, NetworkFamily
from monai_ccnet.networks.size import disk_bytes, memory_bytes

OURS = {"PlainUNet", "CUMedVision", "UCUNet", "SqueezeUNet"}
ARGUMENTS = {
    "UNet": {"channels": [64, 128, 256, 512, 1024], "strides": [2] * 4, "num_res_units": 2},
    "AttentionUnet": {"channels": [64, 128, 256, 512, 1024], "strides": [2] * 4},
    "DynUNet": {
        "kernel_size": [3] * 6,
        "strides": [1, 2, 2, 2, 2, 2],
        "upsample_kernel_size": [2] * 5,
        "filters": [32, 64, 128, 256, 320, 512],
    },
    "SegResNet": {"init_filters": 32, "blocks_down": [1, 2, 2, 4]},
    "SwinUNETR": {"feature_size": 48},
    "UNETR": {"img_size": 96},
    "FlexibleUNet": {"backbone": "resnet50"},
}


KNOWN = {
    "complexity": ComplexityProfile(
        "made", {}, (1, 2, 4, 8, 16, 32), (0.15, 0.11, 0.08, 0.05, 0.04, 0.03), standard_error=None, count=1
    ),
    "degradation": DegradationModel.from_constants(0.437, 0.0103),
}


def seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    print("| network | full-size file, MB | disk, uniform, s | disk, by layer, s | memory, uniform, s |")
    print("| --- | --- | --- | --- | --- |")
    for name in WIDTHS:
        for spatial_dims in (2, 3):
            target = f"{'monai_ccnet.networks' if name in OURS else 'monai.networks.nets'}.{name}"
            network_def = {
                "_target_": target,
                "spatial_dims": spatial_dims,
                "in_channels": 1,
                "out_channels": 2,
                **ARGUMENTS.get(name, {}),
            }
            family = NetworkFamily.of(network_def)
            smallest, shape = family.at(family.smallest), family.input_shape
            most, least = disk_bytes(network_def), disk_bytes(smallest)
            disk = DiskBudget(least + (most - least) // 10)
            at_most, at_least = memory_bytes(network_def, shape), memory_bytes(smallest, shape)
            memory = MemoryBudget(at_least + (at_most - at_least) // 10, shape)
            plans = [
                partial(compress, network_def, disk, layerwise=False),
                partial(compress, network_def, disk, **KNOWN, layerwise=family.layerwise),
                partial(compress, network_def, memory, layerwise=False),
            ]
            times = [f"{np.median([seconds(plan) for _ in range(4)][1:]):.2f}" for plan in plans]
            print(f"| {name}, {spatial_dims}-D | {most / 1e6:.1f} | {' | '.join(times)} |", flush=True)
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
