"""Random transforms of a training, on plain tensors."""

from __future__ import annotations

from typing import Any

from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose

__all__ = ["OnPlainTensors"]


class OnPlainTensors(Compose):
    """MONAI transforms one after the other, with MONAI's tracking of metadata off while they run.

    MONAI's random transforms turn a plain tensor into a ``MetaTensor``, as long as metadata are tracked. That makes the
    transforms, and then each operation of the network, several times as slow, for metadata that a training does not
    read. What is random stays the same.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the transforms make of an item, whose images are plain tensors."""
        before = get_track_meta()
        set_track_meta(False)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            set_track_meta(before)
