"""The view of an image at a coarser scale."""

import cv2
import numpy as np
import pytest

from monai_ccnet.complexity.scales import at_scale

RNG = np.random.default_rng(0)


def test_a_checkerboard_is_grey_at_half_scale():
    board = np.tile(np.array([[0, 200], [200, 0]], np.uint8), (8, 8))
    assert np.array_equal(at_scale(board, 2), np.full((16, 16), 100, np.uint8))


def test_scale_one_is_the_image_itself():
    image = RNG.integers(0, 256, (7, 9)).astype(np.uint8)
    assert at_scale(image, 1) is image


@pytest.mark.parametrize("scale", [2, 4, 16])
def test_a_volume_of_equal_slices_is_scaled_as_its_slice(scale):
    picture = RNG.integers(0, 256, (48, 40)).astype(np.uint8)
    volume = at_scale(np.stack([picture] * 5), scale, volume=True)
    assert volume.shape == (5, 48, 40)
    assert all(np.array_equal(plane, at_scale(picture, scale)) for plane in volume)


def test_a_volume_is_scaled_along_its_third_axis_too():
    columns = RNG.integers(0, 256, (12, 1, 1)).astype(np.uint8)
    volume = np.broadcast_to(columns, (12, 6, 6)).copy()
    small = cv2.resize(columns[:, 0], (1, 6), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (1, 12), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(at_scale(volume, 2, volume=True)[:, 3, 3], expected[:, 0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 5, 3)])
def test_the_shape_is_kept_even_below_one_pixel(shape):
    assert at_scale(np.zeros(shape, np.uint8), 16).shape == shape


@pytest.mark.parametrize("scale", [0, -2, 1.5])
def test_refusals(scale):
    with pytest.raises(ValueError, match="whole number from 1"):
        at_scale(np.zeros((4, 4), np.uint8), scale)
