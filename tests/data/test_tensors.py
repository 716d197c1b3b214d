"""Random transforms on plain tensors."""

import pytest
import torch
from monai.data import CacheDataset
from monai.transforms import CenterSpatialCropd, Compose, Lambdad, RandSpatialCropd

from monai_ccnet.data import OnPlainTensors


def in_place(image):
    return image.add_(1)


@pytest.mark.parametrize("crop", [[RandSpatialCropd("image", 4)], [CenterSpatialCropd("image", 8)], []])
def test_an_item_stays_as_it_is_also_in_a_cache_that_is_not_copied(crop):
    image = torch.arange(64.0).reshape(1, 8, 8)
    augmentation = OnPlainTensors([*crop, Lambdad("image", in_place)])
    data = CacheDataset([{"image": image, "name": "a"}], Compose([augmentation]), copy_cache=False, progress=False)
    outputs = [data[0] for _ in range(2)]
    assert torch.equal(image, torch.arange(64.0).reshape(1, 8, 8))
    assert all(each["image"].min() >= 1 and each["name"] == "a" for each in outputs)
