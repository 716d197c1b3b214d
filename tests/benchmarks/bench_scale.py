"""Time a training and the inference of a volume of 400 x 400 x 300 voxels at several working scales, with peak memory.

    python tests/benchmarks/bench_scale.py --scales 1 2 4

One process for each scale, one thread. The training takes 40 steps on two patches of 64 x 64 x 32 voxels, which is the
same input at every scale, and is stated for 800; inference goes by windows of 64 x 64 x 32 pixels of the working scale
that overlap by half, as in the bundle. Ratios within one run count, not seconds.
"""

import argparse
import resource
import subprocess
import sys
import time

CHANNELS = [12, 10, 9, 7, 6]
STEPS = 40


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(scale):
    import torch
    from monai.inferers import SlidingWindowInferer
    from monai.losses import DiceCELoss

    from monai_ccnet.networks import NetworkFamily, build_network, network_size

    torch.set_num_threads(1)
    full = {"_target_": "monai_ccnet.networks.PlainUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    family = NetworkFamily.of({**full, "channels": CHANNELS})
    definition, patch = family.at(CHANNELS, scale), (64, 64, 32)
    network = build_network(definition)
    before, images = peak_megabytes(), torch.randn(2, 1, *patch)
    labels = (images > 1).float()
    loss = DiceCELoss(softmax=True, to_onehot_y=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    start = time.monotonic()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        optimizer.step()
    training = (time.monotonic() - start) * 800 / STEPS
    trained = peak_megabytes() - before
    volume = torch.randn(1, 1, 400, 400, 300)
    before = peak_megabytes()
    inferer = SlidingWindowInferer([length * scale for length in patch], sw_batch_size=4, overlap=0.5, mode="gaussian")
    start = time.monotonic()
    with torch.no_grad():
        inferer(volume, network.eval())
    inference = time.monotonic() - start
    macs = network_size(definition, (1, 1, *patch)).macs
    needed = peak_megabytes() - before
    print(f"| {scale} | {macs / 1e6:,.0f} | {training:,.0f} | {trained:,.0f} | {inference:,.0f} | {needed:,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--scale", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scale:
        measure(given.scale)
        return
    print("| scale | million multiply-adds of a patch | s of 800 steps | MB more | s of the volume | MB more |")
    print("|---|---|---|---|---|---|", flush=True)
    for scale in given.scales:
        subprocess.run([sys.executable, __file__, "--scale", str(scale)], check=True)


if __name__ == "__main__":
    main()
