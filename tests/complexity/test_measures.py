"""Measures at several scales."""

import cv2
import numpy as np
import pytest

from monai_ccnet.complexity import SCALES, complexity_at_scales, foreground_density, jpeg_complexity, measure_settings

RNG = np.random.default_rng(0)
IMAGE = cv2.GaussianBlur(RNG.integers(0, 256, (96, 64)).astype(np.uint8), (0, 0), 1)[None]


def test_jpeg_at_each_scale_by_hand():
    values = complexity_at_scales(IMAGE, settings=measure_settings("jpeg", axes="yx"), scales=(1, 4))
    small = cv2.resize(IMAGE[0], (16, 24), interpolation=cv2.INTER_AREA)
    restored = cv2.resize(small, (64, 96), interpolation=cv2.INTER_LINEAR)
    assert values == {1: jpeg_complexity(IMAGE[0]), 4: jpeg_complexity(restored)}


def test_detail_falls_with_scale():
    values = complexity_at_scales(IMAGE)
    assert list(values) == list(SCALES)
    assert list(values.values()) == sorted(values.values(), reverse=True)


def test_a_volume_of_one_slice_is_its_slice():
    assert complexity_at_scales(IMAGE[..., None]) == pytest.approx(complexity_at_scales(IMAGE))


def test_many_channels_are_the_mean_of_their_channels():
    other = IMAGE[:, ::-1] // 2
    both = complexity_at_scales(np.concatenate([IMAGE, other] * 2))
    means = {
        scale: (value + complexity_at_scales(other)[scale]) / 2 for scale, value in complexity_at_scales(IMAGE).items()
    }
    assert both == pytest.approx(means)


def test_bytes_of_the_file_as_reference():
    raw = complexity_at_scales(IMAGE)
    file = complexity_at_scales(IMAGE, settings=measure_settings("jpeg", reference="file"), file_bytes=IMAGE.size // 4)
    assert file == pytest.approx({scale: 4 * value for scale, value in raw.items()})


def test_foreground_density_by_hand_and_in_three_dimensions():
    label = np.zeros((1, 32, 32), np.int64)
    label[0, :16] = 2
    assert foreground_density(label) == 0.5
    settings = measure_settings("foreground")
    assert complexity_at_scales(label=label, settings=settings) == dict.fromkeys((1, 2, 4, 8, 16), 0.5)
    volume = np.repeat(label[..., None], 16, axis=-1)
    assert complexity_at_scales(label=volume, settings=settings, scales=(1, 2, 4))[4] == 0.5


def test_thin_structures_vanish_from_the_label_at_coarse_scales():
    label = np.zeros((1, 64, 64), np.uint8)
    label[:, 31] = 1
    values = complexity_at_scales(label=label, settings=measure_settings("foreground"))
    assert values[1] == 1 / 64
    assert values[8] == 0


def test_jb_mixes_both():
    label = (IMAGE > 140).astype(np.uint8)
    jb = complexity_at_scales(IMAGE, label, settings=measure_settings("jb", omega=0.25))
    jpeg = complexity_at_scales(IMAGE)
    density = complexity_at_scales(label=label, settings=measure_settings("foreground"))
    assert jb == pytest.approx({scale: 0.25 * jpeg[scale] + 0.75 * density[scale] for scale in SCALES})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_settings("entropy2"), "unknown measure 'entropy2'; known are"),
        (lambda: measure_settings("jpeg", qualty=3), "knows no setting 'qualty': did you mean 'quality'"),
        (lambda: measure_settings("jpeg", reference="disk"), "'raw' or 'file'"),
        (lambda: complexity_at_scales(), "needs the image, and none was given"),
        (lambda: complexity_at_scales(IMAGE, settings=measure_settings("foreground")), "needs the label"),
        (lambda: complexity_at_scales(IMAGE, settings=measure_settings("jpeg", reference="file")), "give file paths"),
        (
            lambda: complexity_at_scales(label=np.full((1, 4, 4), np.nan), settings=measure_settings("foreground")),
            "label holds NaN",
        ),
        (
            lambda: complexity_at_scales(label=np.zeros((4, 4)), settings=measure_settings("foreground")),
            "label must have",
        ),
        (lambda: foreground_density(np.array([0, np.nan])), "real numbers and no NaN, got dtype float64"),
        (lambda: foreground_density(np.array([0, 1j])), "real numbers and no NaN, got dtype complex128"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
