"""Random transforms on plain tensors."""

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, Lambdad, RandFlipd, RandRotate90d, RandSpatialCropd

from monai_ccnet.data import OnPlainTensors, RandPatchd

KEYS = ["image", "label"]


def in_place(image):
    return image.add_(1)


@pytest.mark.parametrize(
    "crop", [[RandSpatialCropd("image", 4)], [RandPatchd("image", [8, 8])], [CenterSpatialCropd("image", 8)], []]
)
def test_an_item_stays_as_it_is_also_in_a_cache_that_is_not_copied(crop):
    image = torch.arange(64.0).reshape(1, 8, 8)
    augmentation = OnPlainTensors([*crop, Lambdad("image", in_place)])
    data = CacheDataset([{"image": image, "name": "a"}], Compose([augmentation]), copy_cache=False, progress=False)
    outputs = [data[0] for _ in range(2)]
    assert torch.equal(image, torch.arange(64.0).reshape(1, 8, 8))
    assert all(each["image"].min() >= 1 and each["name"] == "a" for each in outputs)


def patches(transform, image, times):
    """How often each patch comes out, by its pixels' values."""
    item = {"image": image, "label": -image, "name": "a"}
    found = Counter()
    for _ in range(times):
        output = transform(item)
        assert torch.equal(output["label"], -output["image"])
        assert output["name"] == "a"
        found[(*output["image"].shape, *map(int, output["image"].flatten()))] += 1
    return found


@pytest.mark.parametrize("symmetry", ["all", "mirror", "none"])
@pytest.mark.parametrize(("shape", "patch_size"), [((3, 4), [2, 2]), ((3, 4), [2, 3]), ((2, 2, 3), [2, 2, 2])])
def test_random_patches_are_spread_as_those_of_monai(symmetry, shape, patch_size):
    image = torch.arange(float(torch.Size(shape).numel())).reshape(1, *shape)
    is_turned = symmetry == "all" and patch_size[0] == patch_size[1]
    monai = OnPlainTensors(
        [
            RandSpatialCropd(KEYS, patch_size, random_size=False),
            RandFlipd(KEYS, prob=0.5 * (symmetry != "none"), spatial_axis=0),
            RandFlipd(KEYS, prob=0.5 * (symmetry == "all"), spatial_axis=1),
            RandRotate90d(KEYS, prob=0.75 * is_turned),
        ]
    ).set_random_state(0)
    ours = RandPatchd(KEYS, patch_size, symmetry)
    ours.set_random_state(0)
    found, expected = patches(ours, image, 4000), patches(monai, image, 4000)
    assert set(found) == set(expected)
    places = torch.Size(whole - length + 1 for whole, length in zip(shape, patch_size, strict=True)).numel()
    ways = places * {"all": 8 if is_turned else 4, "mirror": 2, "none": 1}[symmetry]
    assert len(found) == ways
    excess = sum((count - 4000 / ways) ** 2 / (4000 / ways) for count in found.values())
    assert excess < ways - 1 + 4 * (2 * ways) ** 0.5  # chi-squared


def test_a_random_patch_of_an_axis_that_has_no_more_pixels_is_whole():
    image = torch.zeros(2, 5, 6, 7)
    assert RandPatchd("image", [8, 0, 3], "none")({"image": image})["image"].shape == (2, 5, 6, 3)
    cut = RandPatchd(KEYS, [4, 4, 4], allow_missing_keys=True)
    assert cut({"image": image})["image"].shape == (2, 4, 4, 4)
    assert cut({"name": "a"}) == {"name": "a"}


def test_random_patches_are_reproducible_and_the_image_stays():
    image = torch.arange(100.0).reshape(1, 10, 10)
    first, second = (RandPatchd("image", [4, 4]) for _ in range(2))
    for transform in (first, second):
        transform.set_random_state(3)
    assert all(torch.equal(first({"image": image})["image"], second({"image": image})["image"]) for _ in range(20))
    assert torch.equal(image, torch.arange(100.0).reshape(1, 10, 10))


def test_patches_of_arrays_and_of_images_with_metadata_are_plain_tensors():
    cut = RandPatchd(KEYS, [4, 4])
    for image in (np.zeros((1, 6, 6), np.float32), MetaTensor(torch.zeros(1, 6, 6))):
        patch = cut({"image": image, "label": torch.zeros(1, 6, 6)})["image"]
        assert type(patch) is torch.Tensor
        assert patch.shape == (1, 4, 4)


def test_images_of_different_sizes_are_refused():
    item = {"image": torch.zeros(1, 6, 6), "label": torch.zeros(1, 6, 5)}
    with pytest.raises(ValueError, match=r"must be of one size, got \{'image': \(6, 6\), 'label': \(6, 5\)\}"):
        RandPatchd(KEYS, [4, 4])(item)
    with pytest.raises(KeyError, match="label"):
        RandPatchd(KEYS, [4, 4])({"image": torch.zeros(1, 6, 6)})


def test_another_symmetry_is_refused():
    with pytest.raises(ValueError, match="symmetry must be one of all, mirror, none, got 'both'"):
        RandPatchd("image", [4, 4], "both")
