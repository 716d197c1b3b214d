"""Time feature congestion and subband entropy of a 512 x 512 RGB picture, and all measures of images together.

    python tests/benchmarks/bench_clutter.py

The public implementation (visual-clutter 1.0.7) takes 12 to 14 s for the first two on two cores; if it and its
dependencies can be imported, it is timed in the same run.
"""

import time

import numpy as np
import skimage.data

from monai_ccnet.complexity import MEASURES, feature_congestion, subband_entropy


def seconds(function, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    picture = skimage.data.astronaut()
    both = seconds(lambda: (feature_congestion(picture), subband_entropy(picture)))
    try:
        from visual_clutter import Vlc
    except ImportError:
        reference, source = 12.0, "stated, not measured here"
    else:

        def public() -> None:
            clutter = Vlc(picture)
            clutter.getClutter_FC()
            clutter.getClutter_SE()

        reference, source = seconds(public, repeats=1), "measured in this run"
    print(f"both clutter measures {both:.2f} s, public implementation {reference:.1f} s ({source})", end="")
    print(f", {reference / both:.0f} times faster")
    total = 0.0
    for name, measure in MEASURES.items():
        if measure.source == "image":
            total += (taken := seconds(lambda function=measure.function: function(picture), repeats=3))
            print(f"  {name:20s} {taken * 1e3:8.1f} ms")
    print(f"all measures of an image together {total:.2f} s")


if __name__ == "__main__":
    main()
