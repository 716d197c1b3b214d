"""Visual clutter: the published implementation's values, and laws."""

import cv2
import numpy as np
import pytest
import skimage.data
from skimage import transform

from monai_ccnet.complexity import feature_congestion, subband_entropy
from monai_ccnet.complexity.clutter import rotated, steerable_pyramid

ASTRONAUT = skimage.data.astronaut()


def test_the_astronaut():
    assert feature_congestion(ASTRONAUT) == pytest.approx(4.389926, rel=1e-5)
    assert subband_entropy(ASTRONAUT) == pytest.approx(3.196422, rel=1e-5)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (20, 200, 90)])
@pytest.mark.parametrize("shape", [(64, 64), (33, 50)])
def test_a_picture_of_one_colour(colour, shape):
    picture = np.full((*shape, 3), colour, np.uint8)
    assert feature_congestion(picture) == pytest.approx(1.248283, abs=1e-5)
    assert subband_entropy(picture) == pytest.approx(0, abs=1e-12)


def test_grey_is_three_equal_channels():
    grey = cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY)[:100, :140]
    colour = np.repeat(grey[..., None], 3, axis=-1)
    assert feature_congestion(grey) == feature_congestion(colour)
    assert subband_entropy(grey) == subband_entropy(colour)


@pytest.mark.parametrize("measure", [feature_congestion, subband_entropy])
def test_blur_clears_up(measure):
    part = ASTRONAUT[100:228, 100:228]
    assert measure(cv2.GaussianBlur(part, (0, 0), 3)) < measure(part)


def test_flips_and_transposes_hardly_matter():
    part = ASTRONAUT[100:228, 100:228]
    for other in (part[::-1], part[:, ::-1], part.transpose(1, 0, 2)):
        assert feature_congestion(np.ascontiguousarray(other)) == pytest.approx(feature_congestion(part), rel=0.02)
        assert subband_entropy(np.ascontiguousarray(other)) == pytest.approx(subband_entropy(part), rel=0.01)


def test_rotation_is_that_of_scikit_image():
    kernel = np.random.default_rng(0).random((13, 13))
    kernel /= kernel.max()
    kernel[0, 0] = 0
    for degrees in (45, -45):
        assert rotated(kernel, degrees) == pytest.approx(transform.rotate(kernel, degrees, order=3), abs=1e-9)


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (33, 47)])
def test_subbands_hold_the_energy_of_the_picture(shape):
    plane = np.random.default_rng(0).normal(size=shape)
    plane -= plane.mean()
    bands = steerable_pyramid(plane)
    assert [band.shape for band in bands[:5]] == [shape] * 5
    assert len(bands) == 14
    # Each level has half the pixels along each axis, and its coefficients weigh accordingly.
    energy = sum((band**2).sum() * band.size / plane.size for band in bands)
    assert energy == pytest.approx((plane**2).sum(), rel=0.05)
