"""Any image to 8 bit."""

import numpy as np
import pytest

from monai_ccnet.complexity.pictures import to_pictures

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (1, 20, 30)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.uint16])
def test_whole_numbers_up_to_255_are_taken_as_they_are(dtype):
    (picture,) = to_pictures(IMAGE.astype(dtype))
    assert np.array_equal(picture, IMAGE[0].T)
    assert picture.dtype == np.uint8


def test_axes_tell_rows_from_columns():
    assert to_pictures(IMAGE, axes="xy")[0].shape == (30, 20)
    assert np.array_equal(to_pictures(IMAGE, axes="yx")[0], IMAGE[0])
    assert to_pictures(np.zeros((1, 4, 5, 6), np.uint8), axes="xy")[0].shape == (6, 5, 4)
    assert to_pictures(np.zeros((1, 4, 5, 6), np.uint8), axes="yx")[0].shape == (6, 4, 5)


@pytest.mark.parametrize("stretch", ["auto", "minmax", "percentile"])
def test_a_stretch_does_not_see_gain_and_offset(stretch):
    image = RNG.normal(size=(1, 32, 32))
    pictures = [to_pictures(image * gain + offset, intensity=stretch)[0] for gain, offset in ((1, 0), (300, -1000))]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1
    assert (pictures[0].min(), pictures[0].max()) == (0, 255)


def test_a_hounsfield_window_is_a_fixed_range():
    hounsfield = np.array([[[-3024, -1000, 0, 1000, 3071]]], np.int16)
    assert to_pictures(hounsfield, intensity=(-1000, 1000), axes="yx")[0].tolist() == [[0, 0, 128, 255, 255]]


def test_three_channels_are_a_colour_picture_and_others_apart():
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5)))] == [(5, 4, 3)]
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5)), channels="separate")] == [(5, 4)] * 3
    assert [p.shape for p in to_pictures(np.zeros((4, 4, 5)))] == [(5, 4)] * 4
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5, 6)))] == [(6, 5, 4)] * 3


@pytest.mark.parametrize("value", [0, 7.25, -1000])
def test_a_constant_image_is_flat(value):
    assert np.unique(to_pictures(np.full((1, 8, 8), value, np.float32))[0]).size == 1


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.full((1, 4, 4), np.nan), {}, "NaN or infinite"),
        (np.full((1, 4, 4), np.inf), {}, "NaN or infinite"),
        (np.full((1, 4, 4), np.nan), {"intensity": (0, 1)}, "NaN or infinite"),
        (np.zeros((4, 4)), {}, r"add a channel axis with image\[None\]"),
        (np.zeros((1, 0, 4)), {}, "no empty axis"),
        (np.zeros((1, 4, 4), complex), {}, "real numbers"),
        (np.zeros((1, 4, 4)), {"intensity": "bright"}, "intensity must be one of"),
        (np.zeros((1, 4, 4)), {"intensity": (5, 5)}, "low < high"),
        (np.zeros((1, 4, 4)), {"channels": "colour"}, r"shape \(3, H, W\)"),
        (np.zeros((1, 4, 4)), {"channels": "sum"}, "channels must be one of"),
        (np.zeros((1, 4, 4)), {"axes": "zyx"}, "axes must be one of"),
    ],
)
def test_refusals(image, options, message):
    with pytest.raises(ValueError, match=message):
        to_pictures(image, **options)
