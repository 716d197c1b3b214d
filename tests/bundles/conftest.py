"""A tiny data set, and settings under which a bundle runs on it in seconds."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image


def _disks(rng, shape):
    """Return a noisy image with bright disks or balls and the mask of them, of the shape ``(x, y[, z])``."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    mask = np.zeros(shape, bool)
    for _ in range(3):
        centre = rng.uniform(0.2, 0.8, len(shape)) * shape
        mask |= ((grid - centre.reshape(-1, *[1] * len(shape))) ** 2).sum(axis=0) < (min(shape) / 5) ** 2
    return rng.normal(80 + 90 * mask, 10).clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def _square(rng, shape):
    """Return a noisy image with one large bright square, of the shape ``(x, y)``, and its mask."""
    mask = np.zeros(shape, np.uint8)
    left, top = rng.integers(20, 32, 2)
    mask[left : left + rng.integers(90, 110), top : top + rng.integers(70, 84)] = 1
    return rng.normal(80 + 90 * mask, 20).clip(0, 255).astype(np.uint8), mask


def _write(folder, shape, drawn=_disks, name="disks"):
    rng, listed = np.random.default_rng(0), {"training": [], "test": []}
    for part, suffix in (("training", "Tr"), ("test", "Ts")):
        for index in range(4):
            item = {}
            for what, pixels in zip(("image", "label"), drawn(rng, shape), strict=True):
                path = folder / f"{what}s{suffix}" / f"case_{index}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if len(shape) == 2:
                    path = path.with_suffix(".png")
                    Image.fromarray(pixels.T).save(path)
                else:
                    path = path.with_suffix(".nii.gz")
                    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
                item[what] = str(path.relative_to(folder))
            listed[part].append(item)
    described = {"name": name, "labels": {"0": "background", "1": "disk"}, "modality": {"0": "made"}}
    (folder / "dataset.json").write_text(json.dumps(described | listed))
    return folder


@pytest.fixture(scope="session")
def disks_2d(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("disks_2d"), (72, 56))


@pytest.fixture(scope="session")
def disks_3d(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("disks_3d"), (36, 40, 20))


@pytest.fixture(scope="session")
def large_2d(tmp_path_factory):
    """Pictures of one large square each, whose labels lose little at 1/4."""
    return _write(tmp_path_factory.mktemp("large_2d"), (160, 128), _square, "squares")


QUICK = {"max_epochs": 2, "epoch_length": 8, "batch_size": 4, "learning_rate": 0.01, "channels": [8, 12, 16]}


@pytest.fixture
def quick():
    return dict(QUICK)
