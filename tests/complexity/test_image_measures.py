"""Energy, entropy, edges, frequency and keypoints: outside references, laws, refusals."""

import cv2
import mahotas.features.surf
import numpy as np
import pytest
import skimage.data
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ccnet.complexity import (
    MEASURES,
    complexity_at_scales,
    edge_information,
    measure_settings,
    median_frequency,
    shannon_entropy,
    sift_keypoints,
    signal_energy,
    spatial_information,
    surf_keypoints,
)

ASTRONAUT = skimage.data.astronaut()
GREY = cv2.cvtColor(ASTRONAUT, cv2.COLOR_RGB2GRAY)
OF_IMAGES = sorted(name for name, measure in MEASURES.items() if measure.source == "image")


def _noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 99), st.booleans())
def test_energy_is_that_of_the_fourier_transform(height, width, seed, without_mean):
    picture = _noise(height, width, seed)
    power = np.abs(np.fft.fft2(picture.astype(float))) ** 2
    power[0, 0] *= not without_mean
    assert signal_energy(picture, without_mean=without_mean) == pytest.approx(power.sum(), rel=1e-6)


@pytest.mark.parametrize(("statistic", "expected"), [("mean", 62.584), ("rms", 121.437), ("deviation", 104.068)])
def test_spatial_information_of_the_astronaut(statistic, expected):
    assert spatial_information(ASTRONAUT, statistic=statistic) == pytest.approx(expected, abs=5e-4)


def test_edge_information_is_the_squared_rms():
    assert edge_information(GREY) == pytest.approx(spatial_information(GREY, statistic="rms") ** 2)
    assert edge_information(GREY, kernel="scharr") > edge_information(GREY)


def test_entropy_is_that_of_scikit_image():
    assert shannon_entropy(GREY) == pytest.approx(skimage.measure.shannon_entropy(GREY))


def test_surf_is_that_of_mahotas_and_of_the_transpose():
    points = mahotas.features.surf.interest_points(GREY)
    assert surf_keypoints(ASTRONAUT) == len(points) == surf_keypoints(np.ascontiguousarray(GREY.T))
    assert surf_keypoints(GREY, statistic="strength") == pytest.approx(points[:, 3].sum())


def test_sift_counts_and_adds_up():
    points = cv2.SIFT.create().detect(GREY, None)
    assert sift_keypoints(GREY) == len(points) > 100
    assert sift_keypoints(GREY, statistic="strength") == pytest.approx(sum(point.response for point in points))


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("cycles", [2, 5, 11])
def test_median_frequency_of_a_wave_is_its_own(size, cycles):
    wave = (128 + 100 * np.sin(2 * np.pi * cycles / size * np.arange(size))).round().astype(np.uint8)
    for picture in (np.tile(wave, (40, 1)), np.tile(wave[:, None], (1, 40))):
        assert median_frequency(picture) == pytest.approx(cycles / size)


def test_median_frequency_the_slow_way():
    picture = _noise(21, 34)
    power = np.abs(np.fft.fft2(picture - picture.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(21)[:, None], np.fft.fftfreq(34)[None])
    found = median_frequency(picture)
    assert power[radius < found - 1e-9].sum() < power.sum() / 2 <= power[radius <= found + 1e-9].sum() * (1 + 1e-6)


@pytest.mark.parametrize("name", ["edges", "spatial_information", "median_frequency"])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99))
def test_blur_lowers_what_counts_detail(name, seed):
    picture = _noise(48, 64, seed)
    assert MEASURES[name].function(cv2.GaussianBlur(picture, (0, 0), 2)) < MEASURES[name].function(picture)


@pytest.mark.parametrize("name", ["energy", "edges", "spatial_information", "median_frequency", "entropy"])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99))
def test_flips_and_transposes_change_nothing(name, seed):
    picture, measure = _noise(24, 37, seed), MEASURES[name].function
    for other in (picture[::-1], picture[:, ::-1], picture.T):
        assert measure(np.ascontiguousarray(other)) == pytest.approx(measure(picture), rel=1e-6)


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("shape", [(1, 64, 48), (3, 64, 48), (4, 20, 20), (1, 1, 1), (1, 2, 300), (1, 40, 30, 7)])
def test_every_measure_takes_any_image(name, shape):
    image = np.random.default_rng(0).normal(size=shape)
    values = complexity_at_scales(image, settings=measure_settings(name), scales=(1, 4))
    assert all(np.isfinite(value) and value >= 0 for value in values.values())


@pytest.mark.parametrize("name", sorted({*OF_IMAGES} - {"jpeg", "energy", "feature_congestion"}))
def test_a_flat_picture_has_none_of_it(name):
    assert MEASURES[name].function(np.full((64, 64, 3), 90, np.uint8)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", sorted({*OF_IMAGES} - {"jpeg"}))
def test_floats_are_refused_rather_than_taken_for_8_bit(name):
    with pytest.raises(ValueError, match="must be uint8"):
        MEASURES[name].function(np.random.default_rng(0).random((32, 32)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edge_information(GREY, kernel="canny"), "kernel must be one of"),
        (lambda: spatial_information(GREY, statistic="max"), "statistic must be one of"),
        (lambda: surf_keypoints(GREY, statistic="max"), "statistic must be one of"),
        (lambda: sift_keypoints(GREY, statistic="max"), "statistic must be one of"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
