"""JPEG complexity against another encoder, by laws, and by refusals."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_ccnet.complexity import jpeg_complexity


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 80), (61, 47), (64, 80, 3), (61, 47, 3)])
@pytest.mark.parametrize(("subsampling", "pillow"), [("4:2:0", 2), ("4:2:2", 1), ("4:4:4", 0)])
@pytest.mark.parametrize("quality", [25, 90])
def test_as_many_bytes_as_pillow_writes(shape, subsampling, pillow, quality):
    picture = cv2.GaussianBlur(_noise(*shape), (0, 0), 1.5)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=pillow, optimize=False, progressive=False)
    expected = len(file.getvalue()) / picture.size
    assert jpeg_complexity(picture, quality=quality, subsampling=subsampling) == expected


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), height=st.integers(32, 90), width=st.integers(32, 90))
def test_blur_lowers_and_a_flat_picture_is_least(seed, height, width):
    picture = _noise(height, width, seed=seed)
    flat = np.full_like(picture, 77)
    assert jpeg_complexity(picture) > jpeg_complexity(cv2.GaussianBlur(picture, (0, 0), 2)) > jpeg_complexity(flat)


def test_a_tensor_is_its_array():
    picture = _noise(40, 40, 3)
    assert jpeg_complexity(torch.as_tensor(picture)) == jpeg_complexity(picture)


def test_a_large_flat_picture_is_near_zero():
    assert 0 < jpeg_complexity(np.full((512, 512), 200, np.uint8)) < 0.014  # six bits a block, and the header


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (np.zeros((8, 8)), {}, "must be uint8, got float64"),
        (np.zeros((8, 8), bool), {}, "must be uint8, got bool; use complexity_at_scales"),
        (torch.zeros(8, 8, dtype=torch.bfloat16), {}, "must be uint8, got float32"),
        (np.zeros((8, 8, 2), np.uint8), {}, r"must have the shape \(H, W\)"),
        (np.zeros((0, 8), np.uint8), {}, "must have the shape"),
        (np.zeros((3, 8, 8), np.uint8), {}, r"must have the shape \(H, W\) or \(H, W, 3\), got \(3, 8, 8\)"),
        (np.zeros((8, 8), np.uint8), {"quality": 0}, "quality must be a whole number in 1..100, got 0"),
        (np.zeros((8, 8), np.uint8), {"quality": 25.5}, r"quality must be a whole number in 1..100, got 25\.5"),
        (np.zeros((8, 8), np.uint8), {"subsampling": "4:1:1"}, "subsampling must be one of"),
        (np.zeros((1, 70_000), np.uint8), {}, "does not fit into JPEG"),
    ],
)
def test_refusals(picture, options, message):
    with pytest.raises(ValueError, match=message):
        jpeg_complexity(picture, **options)
