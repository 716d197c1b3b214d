"""Small real sample data, from libraries that ship it."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from monai.utils.module import optional_import

from monai_ccnet.files import folder_atomically, write_json

__all__ = ["mni152_grey_matter"]

datasets, has_nilearn = optional_import("nilearn.datasets")

_MIN_FOREGROUND = 0.02  # least share of foreground in a slice; the first and last slices of the head hold almost none


def mni152_grey_matter(folder: str | os.PathLike | None = None) -> Path:
    """Write axial slices of the MNI152 template and its grey-matter mask as a Decathlon folder, once.

    The template (ICBM 152 2009a, T1) and the mask are those that nilearn ships. Slices of the left half of the head are
    for training, those of the right half for testing. They come from one averaged head: results show how well a network
    fits such images, not how it generalises to patients.

    Args:
        folder: path of the folder to write, ``~/.cache/monai_ccnet/mni152_grey_matter`` if ``None``; an existing one
            is kept.

    Returns:
        The folder, with ``dataset.json``, 8-bit grey PNG images, and PNG labels of 0 and 1.

    Raises:
        ImportError: if nilearn is not installed.
    """
    folder = Path(folder) if folder is not None else Path.home() / ".cache" / "monai_ccnet" / "mni152_grey_matter"
    if (folder / "dataset.json").is_file():
        return folder
    if not has_nilearn:
        raise ImportError(
            "the sample data come with nilearn: pip install 'monai_ccnet[samples]', or give a data set of your "
            "own with --dataset_dir."
        )
    template = np.asarray(datasets.load_mni152_template(resolution=1).dataobj)
    mask = np.asarray(datasets.load_mni152_gm_mask(resolution=1, threshold=0.5, n_iter=1).dataobj) > 0
    image = np.rint(template / template.max() * 255).clip(0, 255).astype(np.uint8)
    slices = [z for z in range(0, mask.shape[2], 2) if mask[:, :, z].mean() > _MIN_FOREGROUND]
    middle = mask.shape[0] // 2
    with folder_atomically(folder) as beside:
        parts = {"training": ("Tr", slice(0, middle)), "test": ("Ts", slice(middle, None))}
        listed = {
            part: [_write_slice(beside, suffix, z, image[half, :, z], mask[half, :, z]) for z in slices]
            for part, (suffix, half) in parts.items()
        }
        description = {
            "name": "mni152_grey_matter",
            "description": "MNI152 T1 template, grey matter; left half of the head trains, right half tests",
            "tensorImageSize": "2D",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "grey matter"},
            **{f"num{part.capitalize()}": len(items) for part, items in listed.items()},
        }
        write_json(beside / "dataset.json", description | listed)
    return folder


def _write_slice(folder: Path, suffix: str, z: int, image: np.ndarray, mask: np.ndarray) -> dict[str, str]:
    """Write one slice, front of the head up, and return its entry in the datalist."""
    entry = {}
    for what, pixels in {"image": image, "label": mask.astype(np.uint8)}.items():
        path = Path(f"{what}s{suffix}") / f"slice_{z:03d}.png"
        (folder / path.parent).mkdir(exist_ok=True)
        if not cv2.imwrite(str(folder / path), np.ascontiguousarray(pixels.T[::-1])):
            raise OSError(f"{folder / path} could not be written: check its folder.")
        entry[what] = path.as_posix()
    return entry
