"""Random transforms of a training, on plain tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import Cropd

__all__ = ["OnPlainTensors"]


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
            crops = int(bool(self.transforms) and isinstance(self.transforms[0], Cropd))
            item = super().__call__(data, end=crops, **kwargs)
            own = {k: v.clone() if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in item.items()}
            return super().__call__(own, start=crops, **kwargs)
        finally:
            set_track_meta(before)
