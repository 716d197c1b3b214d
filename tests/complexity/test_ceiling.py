"""What labels keep at a working scale: by hand, by the network's own path, by laws, and what is refused."""

import json

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.data import MetaTensor
from scipy import ndimage

from monai_ccnet.complexity import (
    LabelCeiling,
    complexity_at_scales,
    label_ceiling,
    measure_ceiling,
    measure_settings,
    restored_label,
)
from monai_ccnet.networks import AtScale
from monai_ccnet.transforms import LabelComplexityd


class Same(torch.nn.Module):
    """A network that answers with what it sees."""

    def __init__(self, axes):
        super().__init__()
        self.layer = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[axes](1, 1, 1)  # tells the number of axes

    def forward(self, x):
        return x


def by_network(label, scale):
    """The same path by torch: one channel a class through AtScale, then the class with the most."""
    classes = torch.arange(int(label.max()) + 1).reshape(-1, *[1] * label.ndim)
    channels = (torch.from_numpy(label)[None] == classes).float()
    return AtScale(Same(label.ndim), scale, divisor=1)(channels[None])[0].argmax(dim=0).numpy()


labels_2d = arrays(np.int64, st.tuples(st.integers(5, 33), st.integers(5, 33)), elements=st.integers(0, 3))


@settings(deadline=None, max_examples=60)
@given(labels_2d, st.sampled_from([1, 2, 3, 4, 8, (2, 1), (1, 4)]))
def test_a_label_goes_the_way_of_the_network(label, scale):
    coarse = ndimage.zoom(label, 2, order=0)  # of some structure
    assert (restored_label(coarse, scale) == by_network(coarse, scale)).all()


@pytest.mark.parametrize("scale", [2, 4, (2, 2, 1)])
def test_a_volume_goes_the_way_of_the_network(scale):
    label = ndimage.zoom(np.random.default_rng(0).integers(0, 4, (5, 6, 4)), 4, order=0)[:19, :, :15]
    assert (restored_label(label, scale) == by_network(label, scale)).all()


def test_by_hand():
    label = np.zeros((8, 8), int)
    label[0:4, 0:4] = 1  # four whole cells
    label[6, 6] = 2  # a quarter of a cell
    restored = restored_label(label, 2)
    assert (restored == 2).sum() == 0
    assert restored[0, 0] == 1
    assert (restored == 1).sum() == 16  # at the corner (3, 3) with a share of 9/16, one pixel on with 3/16
    assert label_ceiling(label, restored) == (1 + 0) / 2


@settings(deadline=None, max_examples=30)
@given(labels_2d)
def test_laws_of_what_is_kept(label):
    assert (restored_label(label, 1) == label).all()
    for scale in (2, 4):
        view = restored_label(label, scale)
        assert set(np.unique(view)) <= set(np.unique(label)) | {0}
        assert 0 <= label_ceiling(label, view) <= 1
        turned = restored_label(np.ascontiguousarray(label.T), scale)
        assert (turned == view.T).all()
    ceiling = measure_ceiling([label[None]], scales=(2, 4))
    everything = ceiling.structures + ceiling.specks
    assert all(0 <= lost <= everything for lost in ceiling.vanished)
    assert LabelCeiling.from_dict(json.loads(json.dumps(ceiling.to_dict()))) == ceiling


def lesions(large=40, small=3, count=5, size=128):
    """A large lesion and several small ones."""
    label = np.zeros((1, size, size), int)
    label[0, 8 : 8 + large, 8 : 8 + large] = 1
    for index in range(count):
        label[0, 66 + 8 * index : 66 + 8 * index + small, 100 : 100 + small] = 1
    return label


def test_structures_that_vanish_are_counted_and_the_largest_is_named():
    ceiling = measure_ceiling([lesions()], scales=(2, 8))
    assert (ceiling.unit, ceiling.smallest_structure, ceiling.is_asked) == ("pixels", 4.0, False)
    assert (ceiling.structures, ceiling.specks) == (1, 5)
    assert ceiling.vanished == (0, 0)
    assert ceiling.vanished_specks == (0, 5)
    assert ceiling.largest_lost == (0.0, 3.0)
    assert ceiling.worst(8) > 0.9  # Dice hardly tells
    asked = measure_ceiling([lesions()], scales=(2, 8), smallest_structure=2)
    assert (asked.structures, asked.vanished, asked.vanished_specks) == (6, (0, 5), (0, 0))
    assert "5 smaller ones vanish, the largest of 3 pixels" in str(ceiling)


def test_structures_are_those_of_scipy_and_lost_ones_have_no_pixel_left():
    rng = np.random.default_rng(1)
    label = (ndimage.gaussian_filter(rng.normal(size=(200, 200)), 2) > 0.12).astype(int)
    ceiling = measure_ceiling([label[None]], scales=(4,), smallest_structure=1)
    parts, count = ndimage.label(label, np.ones((3, 3)))
    assert ceiling.structures == count
    view = restored_label(label, 4)
    lost = [part for part in range(1, count + 1) if not (view[parts == part] == 1).any()]
    assert ceiling.vanished == (len(lost),)
    sides = [max(np.ptp(axis) + 1 for axis in np.nonzero(parts == part)) for part in lost]
    assert ceiling.largest_lost == (max(sides),)


def test_touching_structures_become_one_and_thin_lines_go():
    label = np.zeros((1, 64, 64), int)
    label[0, 8:24, 8:31] = label[0, 8:24, 32:56] = 1  # one pixel apart
    label[0, 40, 4:60] = 1  # a line
    ceiling = measure_ceiling([label], scales=(2, 4), smallest_structure=1)
    assert ceiling.structures == 3
    assert ceiling.merged[1] == 1
    assert ceiling.vanished == (1, 1)
    assert ceiling.largest_lost == (56.0, 56.0)
    assert ceiling.skeleton[0] < 0.6  # half of the centre lines are the line's


def test_classes_are_told_apart_and_means_are_over_the_labels_that_hold_them():
    one, other = np.zeros((1, 32, 32), int), np.zeros((1, 32, 32), int)
    one[0, :16], other[0, 8, 8] = 1, 2
    ceiling = measure_ceiling([one, other], scales=(2,))
    assert set(ceiling.dice) == {"1", "2"}
    assert ceiling.dice["2"] == (0.0,)
    assert ceiling.dice["1"][0] > 0.9
    assert ceiling.worst(2) == 0.0
    assert ceiling.worst(1) == 1.0
    with pytest.raises(ValueError, match=r"is known at \(2,\), and 4 is needed"):
        ceiling.worst(4)


def test_regions_go_their_own_way_each():
    whole, core = np.zeros((64, 64), int), np.zeros((64, 64), int)
    whole[8:48, 8:48], core[20:23, 20:23] = 1, 1
    ceiling = measure_ceiling([np.stack([core, whole])], scales=(2, 8), smallest_structure=1)
    alone = [measure_ceiling([each[None]], scales=(2, 8), smallest_structure=1) for each in (core, whole)]
    assert ceiling.dice == {"1": alone[0].dice["1"], "2": alone[1].dice["1"]}
    assert ceiling.structures == 2
    assert ceiling.vanished == (0, 1)


def test_labels_without_foreground_lose_nothing():
    ceiling = measure_ceiling([np.zeros((1, 16, 16), int)])
    assert (ceiling.dice, ceiling.structures, ceiling.worst(4)) == ({}, 0, 1.0)


def volume(path, array, spacing, flip=False):
    affine = np.diag([*spacing, 1.0])
    if flip:  # stored from left to right, axes permuted
        array = np.ascontiguousarray(array[::-1].transpose(2, 0, 1))
        affine = np.zeros((4, 4))
        affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = -spacing[0], spacing[1], spacing[2], 1
        affine[0, 3] = spacing[0] * (array.shape[1] - 1)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), path)
    return str(path)


def test_sizes_are_millimetres_and_long_voxels_are_divided_by_less(tmp_path):
    array = np.zeros((48, 40, 12), int)
    array[8:32, 8:32, 2:8], array[40:43, 4:6, 1] = 1, 2
    files = [volume(tmp_path / f"{flip}.nii.gz", array, (1.0, 1.0, 5.0), flip) for flip in (False, True)]
    straight, turned = (measure_ceiling([{"label": file}], name="made") for file in files)
    assert straight.scales == ((2, 2, 1), (4, 4, 1), (8, 8, 2))
    assert straight.spacing == (1.0, 1.0, 5.0)
    assert straight.size == (48, 40, 12)
    assert turned.to_dict() | {"digest": ""} == straight.to_dict() | {"digest": ""}  # as it lies in space
    assert straight.unit == "mm"
    assert straight.smallest_structure == 4.0
    assert straight.structures == 2  # of 30 and 5 mm, along the longest side
    resampled = measure_ceiling([{"label": files[0]}], loading={"spacing": [1.0, 1.0, 2.5]})
    assert resampled.size[:2] == (48, 40)
    assert resampled.size[2] in (23, 24)
    assert resampled.scales == ((2, 2, 1), (4, 4, 2), (8, 8, 4)) or resampled.scales[0] == (2, 2, 1)


def test_it_is_the_usual_spacing_that_counts_wherever_it_stands(tmp_path):
    array = np.zeros((32, 32, 8), int)
    array[8:24, 8:24, 2:6] = 1
    files = [volume(tmp_path / f"{index}.nii.gz", array, (1.0, 1.0, 1.0 if index == 0 else 5.0)) for index in range(4)]
    first, last = measure_ceiling(files), measure_ceiling(files[::-1])
    assert first.scales == last.scales == ((2, 2, 1), (4, 4, 1), (8, 8, 2))
    assert first.dice == last.dice


def test_other_scales_than_powers_of_two_and_other_places(tmp_path):
    label = MetaTensor(torch.ones(1, 16, 16, 8), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
    assert measure_ceiling([label], scales=(3, 6)).scales == ((3, 3, 1), (6, 6, 1))
    saved = tmp_path / "ceiling.json"
    measure_ceiling([label], saved=saved)
    moved = MetaTensor(torch.ones(1, 16, 16, 8), affine=torch.eye(4))
    assert measure_ceiling([moved], saved=saved).scales == (2, 4, 8)


def test_pixels_of_pictures_and_of_2d_volumes(tmp_path):
    label = np.zeros((40, 48, 1), np.uint8)
    label[8:24, 8:24] = 1
    nibabel.save(nibabel.Nifti1Image(label[..., 0], np.diag([0.5, 0.5, 1, 1])), tmp_path / "flat.nii.gz")
    ceiling = measure_ceiling([str(tmp_path / "flat.nii.gz")])
    assert (ceiling.scales, ceiling.spacing, ceiling.size) == ((2, 4, 8), (0.5, 0.5), (40, 48))
    tensor = MetaTensor(torch.from_numpy(label[None, ..., 0]), affine=np.diag([0.5, 0.5, 1, 1]))
    assert measure_ceiling([tensor]).spacing is None  # whether it is a volume is not known


def test_it_is_kept_and_known_again_until_labels_or_settings_change(tmp_path, monkeypatch):
    saved = tmp_path / "ceiling.json"
    first = measure_ceiling([lesions()], saved=saved)
    monkeypatch.setattr("monai_ccnet.complexity.ceiling._kept_of", lambda *_: pytest.fail("measured again"))
    assert measure_ceiling([lesions()], saved=saved) == first
    for labels, more in (
        ([lesions(small=2)], {}),
        ([lesions()], {"smallest_structure": 2}),
        ([lesions()], {"scales": (2,)}),
    ):
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            measure_ceiling(labels, saved=saved, **more)
    saved.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        measure_ceiling([lesions()], saved=saved)


def test_it_is_a_measure_and_a_transform_like_the_others():
    values = complexity_at_scales(label=lesions(), settings=measure_settings("label_ceiling"), scales=(1, 2, 8))
    ceiling = measure_ceiling([lesions()], scales=(2, 8))
    assert values == {1: 1.0, 2: ceiling.worst(2), 8: ceiling.worst(8)}
    item = LabelComplexityd("label", measure="label_ceiling", scales=(2,))({"label": lesions()})
    assert item["label_complexity"] == {"2": ceiling.worst(2)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_ceiling([]), "no item of 'data set' holds a label at 'label'"),
        (
            lambda: measure_ceiling([{"label": lesions()}, {"image": 1}]),
            "an item of 'data set' holds no label at 'label'",
        ),
        (lambda: measure_ceiling([lesions()], smallest_structure=0), "smallest_structure must be a length above 0"),
        (lambda: measure_ceiling([lesions()], smallest_structure="3"), "smallest_structure must be a length above 0"),
        (lambda: measure_ceiling([lesions()], scales=2), "scales must be a list of whole numbers from 1, got 2"),
        (lambda: measure_ceiling([lesions()], scales=()), "scales must be a list"),
        (lambda: measure_ceiling([lesions(), np.zeros((1, 8, 8, 8), int)]), "have two and three axes"),
        (lambda: measure_ceiling([lesions()], scales=(0,)), "whole number from 1"),
        (lambda: measure_ceiling([lesions()], scales=((2, 2, 2),)), "a scale for 2 axes has one number or 2"),
        (lambda: measure_ceiling([lesions() + 0.5]), "a label must hold whole numbers"),
        (lambda: restored_label(np.zeros((4, 4)), 1.5), "whole number from 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
