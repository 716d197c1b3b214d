"""Random transforms of a training, on plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import Cropd
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.misc import fall_back_tuple
from monai.utils.type_conversion import convert_to_tensor

__all__ = ["OnPlainTensors", "RandPatchd"]

_FLIPPED_AXES: dict[str, tuple[int, ...]] = {"all": (1, 2), "mirror": (1,), "none": ()}


class RandPatchd(MapTransform, Randomizable):
    """Cut one random patch out of images, and flip and turn it at random, faster than four transforms do.

    What comes out is spread as by MONAI's ``RandSpatialCropd`` of a fixed size, ``RandFlipd`` of the first and of the
    second axis, each with a probability of 0.5, and ``RandRotate90d`` with a probability of 0.75: a square patch is
    equally often in each of its eight positions. Patches that are not square are flipped alone, so that they make
    batches. They are plain tensors, without metadata.

    Args:
        keys: keys of images of shape ``(C, *spatial)`` and one size, which are cut at one place.
        patch_size: lengths of the patch in pixels; where an image has no more, and for 0 or less, its whole length.
        symmetry: ``"all"``; ``"mirror"``, which flips the first axis, left and right, alone; or ``"none"``.
        allow_missing_keys: whether keys may be missing.

    Raises:
        ValueError: if ``symmetry`` is none of these.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        symmetry: str = "all",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if symmetry not in _FLIPPED_AXES:
            raise ValueError(f"symmetry must be one of {', '.join(_FLIPPED_AXES)}, got {symmetry!r}.")
        self.patch_size, self.symmetry = patch_size, symmetry

    def randomize(self, data: Sequence[int]) -> None:
        """Choose place and position of a patch.

        Args:
            data: lengths of the image, without channels.
        """
        lengths = [min(pair) for pair in zip(fall_back_tuple(self.patch_size, data), data, strict=True)]
        starts = [int(self.R.randint(whole - length + 1)) for length, whole in zip(lengths, data, strict=True)]
        place = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        self._place = (slice(None), *place)
        self._flipped = [axis for axis in _FLIPPED_AXES[self.symmetry] if self.R.rand() < 0.5]
        self._is_turned = self.symmetry == "all" and lengths[0] == lengths[1] and self.R.rand() < 0.5

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Return the item with patches, which may share the memory of its images.

        Raises:
            ValueError: if the images differ in size.
        """
        item = dict(data)
        images = {key: convert_to_tensor(item[key], track_meta=False) for key in self.key_iterator(item)}
        sizes = {key: tuple(image.shape[1:]) for key, image in images.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"images that are cut at one place must be of one size, got {sizes}.")
        if not images:
            return item
        self.randomize(next(iter(sizes.values())))
        for key, image in images.items():
            patch = image[self._place]
            patch = patch.flip(self._flipped) if self._flipped else patch
            item[key] = patch.transpose(1, 2) if self._is_turned else patch
        return item


class OnPlainTensors(Compose):
    """MONAI transforms one after the other, with MONAI's tracking of metadata off while they run.

    MONAI's random transforms turn a plain tensor into a ``MetaTensor``, as long as metadata are tracked. That makes the
    transforms, and then each operation of the network, several times as slow, for metadata that a training does not
    read. What is random stays the same.

    The item itself stays as it is, so that a cache need not copy whole images: where a crop comes first, it is copied.
    """

    def __call__(self, data: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Return what the transforms make of an item, whose images are plain tensors."""
        before = get_track_meta()
        set_track_meta(False)
        try:
            crops = int(bool(self.transforms) and isinstance(self.transforms[0], (Cropd, RandPatchd)))
            item = super().__call__(data, end=crops, **kwargs)
            own = {k: v.clone() if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in item.items()}
            return super().__call__(own, start=crops, **kwargs)
        finally:
            set_track_meta(before)
