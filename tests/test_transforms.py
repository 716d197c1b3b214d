"""Transforms in every kind of MONAI pipeline."""

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureTyped, Flipd, ScaleIntensityd

from monai_ccnet import transforms
from monai_ccnet.complexity import complexity_at_scales, measure_settings
from monai_ccnet.transforms import (
    ForegroundDensity,
    ForegroundDensityd,
    ImageComplexity,
    ImageComplexityd,
)

RNG = np.random.default_rng(0)
KINDS = [np.asarray, torch.as_tensor, MetaTensor]


def _items(kind=np.asarray, shape=(1, 32, 48), count=3):
    return [
        {
            "image": kind(RNG.integers(0, 256, shape).astype(np.float32)),
            "label": kind((RNG.random((1, *shape[1:])) > 0.7).astype(np.uint8)),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 32, 48), (3, 32, 48), (5, 32, 48), (1, 24, 16, 9)])
def test_numbers_stand_beside_an_image_that_is_left_alone(kind, shape):
    (item,) = _items(kind, shape, count=1)
    before = np.array(item["image"])
    measured = ForegroundDensityd("label")(ImageComplexityd("image")(item))
    expected = complexity_at_scales(before)
    assert measured["image_complexity"] == {str(scale): value for scale, value in expected.items()}
    assert all(type(value) is float for value in measured["image_complexity"].values())
    assert measured["label_foreground_density"]["1"] == pytest.approx(float(np.mean(np.array(item["label"]))))
    assert type(measured["image"]) is type(item["image"])
    assert np.array_equal(np.array(measured["image"]), before)


def test_array_transforms_and_settings():
    image = _items(count=1)[0]["image"]
    transform = ImageComplexity(scales=(1, 2), quality=80, axes="yx")
    expected = complexity_at_scales(image, settings=measure_settings("jpeg", quality=80, axes="yx"), scales=(1, 2))
    assert transform(image) == {"1": expected[1], "2": expected[2]}
    assert ForegroundDensity(scales=(1,))(np.ones((1, 4, 4))) == {"1": 1.0}
    assert pickle.loads(pickle.dumps(transform))(image) == transform(image)


def test_missing_keys():
    with pytest.raises(KeyError):
        ImageComplexityd(["image", "other"])(_items(count=1)[0])
    measured = ImageComplexityd(["image", "other"], allow_missing_keys=True)(_items(count=1)[0])
    assert "other_complexity" not in measured
    assert "label_b" in ForegroundDensityd("label", postfix="b")(_items(count=1)[0])


def _pipeline(lazy=False):
    return Compose(
        [
            EnsureTyped(["image", "label"]),
            Flipd(["image", "label"], spatial_axis=0, lazy=lazy),
            ImageComplexityd("image", scales=(1, 2)),
            ForegroundDensityd("label", scales=(1, 2)),
            ScaleIntensityd("image"),
        ]
    )


@pytest.mark.parametrize("make", ["plain", "cached", "persistent", "lazy"])
def test_every_kind_of_data_set_collates_the_numbers(make, tmp_path):
    items = _items()
    expected = [_pipeline()(item)["image_complexity"]["2"] for item in items]
    data = {
        "plain": lambda: Dataset(items, _pipeline()),
        "cached": lambda: CacheDataset(items, _pipeline(), progress=False),
        "persistent": lambda: PersistentDataset(items, _pipeline(), cache_dir=tmp_path),
        "lazy": lambda: Dataset(items, _pipeline(lazy=True)),
    }[make]()
    for _ in range(2):  # the second time from the cache
        batch = next(iter(DataLoader(data, batch_size=3)))
        assert batch["image_complexity"]["2"].tolist() == pytest.approx(expected)


def test_spawned_workers():
    items = _items()
    loader = DataLoader(
        Dataset(items, ImageComplexityd("image", scales=(1,))),
        batch_size=3,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("spawn"),
    )
    (batch,) = loader
    expected = [complexity_at_scales(item["image"])[1] for item in items]
    assert batch["image_complexity"]["1"].tolist() == pytest.approx(expected)


def test_refusals():
    with pytest.raises(ValueError, match="unknown measure"):
        ImageComplexityd("image", measure="beauty")
    with pytest.raises(ValueError, match="NaN"):
        ImageComplexity()(np.full((1, 8, 8), np.nan))
    with pytest.raises(ValueError, match="real numbers"):
        ImageComplexity()(torch.zeros((1, 8, 8), dtype=torch.complex64).conj())
    with pytest.raises(ValueError, match=r"\(96, 96, 3\) .* np\.moveaxis\(image, -1, 0\)"):
        ImageComplexityd("image")({"image": torch.zeros(96, 96, 3)})
    with pytest.raises(
        ValueError, match=r"one channel of 0 and 1 per class, and in one of shape \(4, 9, 9\) there is 255"
    ):
        ForegroundDensityd("label")({"label": 255 * torch.ones(4, 9, 9, dtype=torch.uint8)})


def test_three_thousand_images_in_a_spawned_worker_take_no_more_memory_than_six_hundred():
    benchmark = Path(__file__).parent / "benchmarks" / "bench_loader_memory.py"  # which does it with ten thousand
    done = subprocess.run([sys.executable, benchmark, "3000"], capture_output=True, text=True, check=True)
    used = [float(word) for word in done.stdout.split()[:10]]
    assert used[-1] - used[1] < 10  # megabytes


@pytest.mark.parametrize("name", ["ImageComplexity", "LabelComplexity", "ForegroundDensity"])
def test_dictionary_transforms_have_the_aliases_of_monais(name):
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is getattr(transforms, f"{name}d")
