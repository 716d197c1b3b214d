"""Laws that hold for every measure in the table, whatever the image."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from joblib import parallel_config
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from monai_ccnet.complexity import MEASURES, complexity_at_scales, measure_dataset, measure_settings

FAST = settings(max_examples=20, deadline=None)
OF_IMAGES = sorted(name for name, measure in MEASURES.items() if measure.source == "image")
OF_LABELS = sorted(set(MEASURES) - set(OF_IMAGES))
# What counts detail, and so cannot rise when detail is blurred away; energy and entropy see brightness and histograms.
OF_DETAIL = ["jpeg", "edges", "spatial_information", "feature_congestion"]
# Means over all pixels, which a flip or a transpose only reorders; JPEG's blocks and keypoints' grids are not.
SYMMETRIC = {"edges": 1e-9, "spatial_information": 1e-9, "energy": 1e-12, "entropy": 1e-12, "median_frequency": 1e-6}

shapes_2d = st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(16, 40), st.integers(16, 40))
shapes_3d = st.tuples(st.sampled_from([1, 2]), st.integers(16, 20), st.integers(16, 20), st.integers(1, 4))
images_8bit = st.one_of(shapes_2d, shapes_3d).flatmap(lambda shape: arrays(np.uint8, shape))
labels = st.one_of(
    st.tuples(st.just(1), st.integers(4, 24), st.integers(4, 24)),
    st.tuples(st.just(1), st.integers(4, 12), st.integers(4, 12), st.integers(1, 6)),
).flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(0, 3)))


def measured(name, image, scales=(1, 2)):
    what = {MEASURES[name].source: image}
    return list(complexity_at_scales(**what, settings=measure_settings(name), scales=scales).values())


@pytest.mark.parametrize("name", OF_IMAGES)
@FAST
@given(image=images_8bit)
def test_any_image_has_a_finite_complexity_the_same_for_each_kind_of_array(name, image):
    expected = measured(name, image)
    assert np.isfinite(expected).all()
    assert min(expected) >= 0
    for kind in (torch.as_tensor, MetaTensor, np.asfortranarray, lambda x: x.astype(np.float32), lambda x: x + 0.0):
        assert measured(name, kind(image)) == expected


@pytest.mark.parametrize("name", OF_LABELS)
@FAST
@given(label=labels)
def test_any_label_has_a_bounded_complexity_the_same_for_each_kind_of_array(name, label):
    expected = measured(name, label)
    assert min(expected) >= 0
    if name != "label_jpeg":  # small files are mostly header
        # A pixel has one face for each axis, so a checkerboard comes near their number; all else is a share.
        assert max(expected) <= (label.ndim - 1 if name == "boundary" else 1)
    for kind in (torch.as_tensor, MetaTensor, lambda x: x.astype(np.uint8), lambda x: x.astype(np.float32)):
        assert measured(name, kind(label)) == expected


@pytest.mark.parametrize("name", sorted(SYMMETRIC))
@FAST
@given(image=arrays(np.uint8, st.tuples(st.just(1), st.integers(16, 32), st.integers(16, 32))))
def test_turned_images_are_as_complex(name, image):
    assume(len(np.unique(image)) > 2)  # of black on white, half of the power may lie exactly between two frequencies
    expected = measured(name, image, scales=(1,))
    for turned in (image[:, ::-1], image[:, :, ::-1], image.transpose(0, 2, 1)):
        assert measured(name, turned, scales=(1,)) == pytest.approx(expected, rel=SYMMETRIC[name], abs=1e-9)


@pytest.mark.parametrize("name", OF_DETAIL)
@FAST
@given(seed=st.integers(0, 10**6))
def test_blur_lowers_and_noise_raises(name, seed):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.random((64, 64)), 4)
    smooth = (255 * (smooth - smooth.min()) / np.ptp(smooth))[None]
    noisy = np.clip(smooth + rng.normal(0, 40, smooth.shape), 0, 255).astype(np.uint8)
    blurred = gaussian_filter(noisy, (0, 1.5, 1.5))
    ((low,), (middle,), (high,)) = (
        measured(name, image, scales=(1,)) for image in (smooth.astype(np.uint8), blurred, noisy)
    )
    assert low < high
    assert middle < high


@pytest.mark.parametrize("name", ["jpeg", "boundary", "subband_entropy"])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_workers_change_nothing(name, seed):
    images = np.random.default_rng(seed).integers(0, 3, (5, 1, 24, 24))
    expected = measure_dataset([{"image": x, "label": x} for x in images], name, scales=(1, 2))
    with parallel_config("threading", n_jobs=2):
        assert measure_dataset([{"image": x, "label": x} for x in images], name, scales=(1, 2)) == expected


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("value", [0, 128, 65535, -1000.5])
def test_a_constant_image_of_any_type_is_measured(name, value):
    image = np.full((1, 24, 24), value)
    assert np.isfinite(measured(name, image)).all()
    assert measured(name, image[:, :1, :1]) == pytest.approx(measured(name, image[:, :1, :1].copy()))


def test_a_fourth_channel_is_opacity_only_if_it_is_said_to_be():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 32, 32)).astype(np.uint8)
    as_rgba = complexity_at_scales(image, settings=measure_settings("jpeg", channels="rgba"))
    assert as_rgba == complexity_at_scales(image[:3])
    each = [complexity_at_scales(channel[None])[1] for channel in image]
    assert complexity_at_scales(image)[1] == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match=r"shape \(4, H, W\)"):
        complexity_at_scales(image[:3], settings=measure_settings("jpeg", channels="rgba"))
