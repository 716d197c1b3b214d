"""Time the JPEG profile of an image against the bare calls of OpenCV that it cannot do without.

python tests/benchmarks/bench_jpeg_profile.py
"""

import time

import cv2
import numpy as np

from monai_ccnet.complexity import SCALES, complexity_at_scales, measure_settings


def bare(picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    settings = [cv2.IMWRITE_JPEG_QUALITY, 25]
    for scale in SCALES:
        view = picture
        if scale > 1:
            small = cv2.resize(picture, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA)
            view = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.imencode(".jpg", view, settings)


def main(repeats: int = 30) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (976, 976, 3)).astype(np.uint8), (0, 0), 3)
    picture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    images = {
        "uint8, x first (MONAI)": (np.ascontiguousarray(picture.transpose(2, 1, 0)), "xy"),
        "uint8, y first": (np.ascontiguousarray(picture.transpose(2, 0, 1)), "yx"),
        "float32, x first": (np.ascontiguousarray(picture.transpose(2, 1, 0)).astype(np.float32), "xy"),
    }
    print(f"five scales of a {picture.shape} picture, median of {repeats} pairs; OpenCV {cv2.__version__}")
    for name, (image, axes) in images.items():
        settings = measure_settings("jpeg", axes=axes)
        pairs = []
        for _ in range(repeats):
            start = time.perf_counter()
            bare(picture)
            middle = time.perf_counter()
            complexity_at_scales(image, settings=settings)
            pairs.append((middle - start, time.perf_counter() - middle))
        bare_seconds, ours_seconds = np.array(pairs).T
        ratio = np.median(ours_seconds / bare_seconds)
        print(
            f"{name:24s} bare {np.median(bare_seconds) * 1e3:6.2f} ms   ours {np.median(ours_seconds) * 1e3:6.2f} ms   "
            f"ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
