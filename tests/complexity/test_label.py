"""Complexity of labels: by hand, by laws, in any dimension."""

import cv2
import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.losses import DiceLoss

from monai_ccnet.complexity import (
    SCALES,
    boundary_density,
    complexity_at_scales,
    label_detail,
    label_jpeg_complexity,
    measure_dataset,
    measure_settings,
)
from monai_ccnet.complexity.label import class_indices, label_at_scale
from monai_ccnet.complexity.scales import at_scale
from monai_ccnet.transforms import LabelComplexity, LabelComplexityd

OF_LABELS = ("boundary", "label_jpeg", "label_detail", "foreground")


def _blobs(*shape, classes=3, seed=0):
    noise = np.random.default_rng(seed).random((classes, *[n // 4 for n in shape]))
    coarse = noise.argmax(axis=0)
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, 4, axis=axis)
    return coarse


def test_boundaries_by_hand():
    label = np.zeros((6, 8), int)
    label[2:4, 2:5] = 3
    assert boundary_density(label) == (2 * 2 + 2 * 3) / 48
    assert boundary_density(label, spacing=(2, 1)) == (2 * 2 + 2 * 3 / 2) / 48
    assert boundary_density(label, spacing=(20, 10)) == boundary_density(label, spacing=(2, 1))
    assert boundary_density(np.zeros((4, 4, 4))) == 0
    cube = np.zeros((5, 5, 5), int)
    cube[2, 2, 2] = 1
    assert boundary_density(cube) == 6 / 125


@pytest.mark.parametrize("shape", [(32, 48), (16, 32, 24)])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_two_classes_are_restored_by_their_mask(shape, scale):
    label = _blobs(*shape, classes=2)
    mask = at_scale(label.astype(np.uint8) * np.uint8(255), scale, volume=len(shape) == 3)
    assert np.array_equal(label_at_scale(label, scale), mask >= 128)


def test_no_class_appears_that_was_not_there():
    label = _blobs(32, 48, classes=4) * 2
    assert set(np.unique(label_at_scale(label, 8))) <= set(np.unique(label))


def test_detail_is_one_minus_dice():
    label = _blobs(32, 48, classes=2, seed=3)
    restored = label_at_scale(label, 8)
    tensors = [MetaTensor(a[None, None].astype(np.float32)) for a in (restored, label)]
    expected = DiceLoss(smooth_nr=0, smooth_dr=0)(*tensors).item()
    assert label_detail(label, restored) == pytest.approx(expected, abs=1e-6)
    assert label_detail(label, label) == 0
    assert label_detail(np.zeros((4, 4)), np.ones((4, 4))) == 0


def test_a_comb_is_lost_where_its_teeth_are():
    comb = np.tile(np.repeat([0, 1], 2), (1, 32, 8))
    values = complexity_at_scales(label=comb, settings=measure_settings("label_detail"))
    assert values[1] == values[2] == 0
    assert values[8] > 0.2


def test_a_busier_label_is_more_complex():
    calm, busy = np.zeros((1, 64, 64), int), np.zeros((1, 64, 64), int)
    calm[0, 20:44, 20:44] = 1
    busy[0, ::8] = 1
    for name in ("boundary", "label_jpeg"):
        setting = measure_settings(name)
        assert (
            complexity_at_scales(label=busy, settings=setting)[1]
            > complexity_at_scales(label=calm, settings=setting)[1]
        )
    assert label_jpeg_complexity(np.zeros((64, 64), int)) < 0.2


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99), st.sampled_from([(24, 40), (12, 16, 20)]), st.sampled_from(["boundary", "foreground"]))
def test_flips_and_other_names_of_the_classes_change_nothing(seed, shape, name):
    label = _blobs(*shape, seed=seed)[None]
    values = complexity_at_scales(label=label, settings=measure_settings(name), scales=(1,))
    for other in (label[:, ::-1], label[:, :, ::-1], np.where(label > 0, 5 - label, 0)):
        assert complexity_at_scales(label=other, settings=measure_settings(name), scales=(1,)) == pytest.approx(values)


def test_a_channel_a_class_is_the_same_label():
    label = _blobs(32, 48)
    channels = np.stack([label == 1, label == 2]).astype(np.float32)
    for name in OF_LABELS:
        setting = measure_settings(name)
        assert complexity_at_scales(label=channels, settings=setting) == complexity_at_scales(
            label=label[None], settings=setting
        )


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_mask_is_the_same_label_in_any_type(name):
    mask = _blobs(32, 48, classes=2)[None]
    expected = complexity_at_scales(label=mask, settings=measure_settings(name))
    tensor = torch.as_tensor(mask)
    others = [mask == 1, mask * 255, mask.astype(np.float16), mask * 0.9999999, tensor.bool(), tensor.half()]
    for other in [*others, tensor.bfloat16(), MetaTensor(tensor.bool())]:
        assert complexity_at_scales(label=other, settings=measure_settings(name)) == expected
        assert list(LabelComplexity(name)(other).values()) == list(expected.values())
    channels = np.concatenate([mask == 1, mask == 2])
    for other in (channels, torch.as_tensor(channels), channels * 0.9999999):
        assert complexity_at_scales(label=other, settings=measure_settings(name)) == expected


def test_many_organs_and_pixels_to_be_ignored_are_classes():
    organs = np.arange(118)
    for label in (organs.repeat(6).reshape(1, 59, 12), np.random.default_rng(0).permutation(organs).reshape(1, 2, 59)):
        assert np.array_equal(class_indices(label.astype(np.float32)), label[0])
    noise = np.random.default_rng(0).integers(0, 118, (1, 40, 40))
    assert np.array_equal(class_indices(noise), noise[0])
    parcels = np.arange(1000).reshape(1, 25, 40).repeat(4, axis=1).repeat(4, axis=2)  # of the cortex
    assert np.array_equal(class_indices(parcels), parcels[0])
    for values in ((0, 255), (255,), (0, 127, 255), (0, 1, 2, 255), (*range(151), 255), (*range(124), 254)):
        assert np.array_equal(class_indices(np.array([[values]])), [values])


@pytest.mark.parametrize("quality", [50, 75, 95, 100])
def test_a_mask_saved_as_jpeg_is_refused(quality):
    mask = cv2.circle(np.zeros((96, 96), np.uint8), (50, 44), 20, 255, -1)
    saved = cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
    for kind in (np.uint8, np.float32):
        with pytest.raises(
            ValueError, match=r"values from 0 to 255, as a picture does, or a mask .* JPEG: give label >="
        ):
            class_indices(saved[None].astype(kind))
    assert np.array_equal(class_indices(saved[None] >= 128), mask > 0)


@pytest.mark.parametrize("brightest", [200, 3000])
def test_a_picture_is_no_label(brightest):
    with pytest.raises(ValueError, match=r"class indices, and one of shape .* as a picture does"):
        class_indices(np.random.default_rng(0).integers(0, brightest, (1, 64, 64)))


@pytest.mark.parametrize("name", OF_LABELS)
def test_transforms_measure_any_label(name):
    for shape in ((32, 48), (16, 16, 24)):
        label = _blobs(*shape)[None]
        expected = {str(s): v for s, v in complexity_at_scales(label=label, settings=measure_settings(name)).items()}
        assert LabelComplexity(name)(MetaTensor(label.copy())) == expected
        assert LabelComplexityd("label", name)({"label": label})["label_complexity"] == expected
        assert len(expected) == len(SCALES)


def test_physical_spacing_comes_from_the_file(tmp_path):
    label = _blobs(16, 24, 12)
    nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), np.diag([1.0, 2.0, 5.0, 1.0])), tmp_path / "label.nii.gz")
    expected = boundary_density(np.moveaxis(label, -1, 0), spacing=(5, 1, 2))
    profile = measure_dataset([tmp_path / "label.nii.gz"], "boundary", scales=(1,), spacing="physical")
    assert profile.mean[0] == pytest.approx(expected)
    assert measure_dataset([label[None]], "boundary", scales=(1,)).mean[0] == pytest.approx(boundary_density(label))
    image = MetaTensor(label[None].copy(), affine=np.diag([1.0, 2.0, 5.0, 1.0]))
    assert LabelComplexity(spacing="physical")(image)["1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: boundary_density(np.zeros((4, 4)), spacing=(1,)), "2 lengths above 0"),
        (lambda: boundary_density(np.zeros((4, 4)), spacing=(1, 0)), "2 lengths above 0"),
        (lambda: measure_dataset([np.zeros((1, 4, 4))], "boundary", spacing="physical"), "needs the size of a pixel"),
        (lambda: measure_dataset([np.zeros((1, 4, 4))], "boundary", spacing="miles"), "'pixels' or 'physical'"),
        (lambda: measure_dataset([np.full((1, 4, 4), -1)], "boundary"), "class indices from 0"),
        (
            lambda: class_indices(np.full((1, 4, 4), 0.5)),
            r"whole numbers, class indices from 0 on, got 0\.5: threshold",
        ),
        (lambda: class_indices(np.full((3, 4, 4), 1 / 3)), r"whole numbers.*got 0\.333333"),
        (lambda: class_indices(np.full((1, 4, 4), np.inf)), "label holds NaN or infinite"),
        (lambda: LabelComplexity()(torch.full((1, 4, 4), torch.nan).half()), "label holds NaN or infinite"),
        (lambda: class_indices(np.zeros((1, 4, 4), complex)), "a label must hold real numbers, got dtype complex128"),
        (lambda: class_indices(np.zeros((32, 32, 1))), r"in the shape \(32, 32, 1\) .* np\.moveaxis\(label, -1, 0\)"),
        (
            lambda: class_indices(np.array([0, 0, 1, 255]).reshape(4, 1, 1)),
            r"one channel of 0 and 1 per class, and in one of shape \(4, 1, 1\) there is 255: .* as label\[:1\]",
        ),
        (lambda: class_indices(np.array([[[0, 255]], [[255, 0]]])), r"there is 255: give .* as label > 0"),
        (lambda: class_indices(np.arange(8).reshape(2, 2, 2)), r"there is 2, 3, 4, \.\.\.:"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
