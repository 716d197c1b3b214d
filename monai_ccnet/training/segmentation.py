"""Segmenting images with a trained network: which files go in, what is written for each, and what is said of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from monai.data.image_writer import ITKWriter
from monai.utils import IgniteInfo, min_version, optional_import
from PIL import Image

from monai_ccnet.configs import config_file, load_config, running_workflow
from monai_ccnet.data.images import as_paths, check_spacing, is_file, load_image
from monai_ccnet.files import HALF_WRITTEN, csv_rows
from monai_ccnet.networks.scaling import inner_def

if TYPE_CHECKING:
    from ignite.engine import Engine, Events
else:
    Events, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Events")
    Engine, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Engine", "decorator")
nrrd, _ = optional_import("nrrd")

__all__ = ["WriteSegmentations", "check_finite", "readable_images", "same_pipeline"]

_AS_THEY_ARE = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".bmp", ".tif", ".tiff", ".npy")
_OTHERS = {".nhdr": ".nrrd", ".mhd": ".mha", ".jpg": ".png", ".jpeg": ".png", ".gif": ".png", ".webp": ".png"}


def check_finite(logits: torch.Tensor) -> torch.Tensor:
    """Return the answer of a network, or refuse one that holds NaN or infinity.

    Raises:
        ValueError: since no class can be told from such numbers.
    """
    if not torch.isfinite(torch.as_tensor(logits)).all():
        raise ValueError("the network's answer holds NaN or infinity: its weights or its input are not usable.")
    return logits


def same_pipeline(left: Mapping[str, Any]) -> None:
    """Refuse a running ``inference.yaml`` whose pipeline is not the one that its training run was evaluated with.

    Args:
        left: what the training run left, as :func:`~monai_ccnet.training.settings_left` returns it.

    Raises:
        ValueError: if ``train.yaml`` was run with other transforms or another inferer, and this run was given none.
    """
    parser = running_workflow().parser
    ours, theirs = load_config(config_file("inference.yaml")), load_config(config_file("train.yaml"))["validate"]
    found = left.get("validate") or theirs
    for part, name in {"preprocessing": "preprocessing", "inferer": "inferer"}.items():
        changed = _plain_config(found.get(part)) != _plain_config(theirs[part])
        if changed and _plain_config(parser[name]) == _plain_config(ours[name]):
            raise ValueError(
                f"the network was evaluated with another validate#{part} than train.yaml's: give this run the same, "
                f"as `{name}`, in a config of its own."
            )


def _plain_config(config: Any) -> str:
    """Return a config as text, whether or not its relative ids were resolved."""
    return repr(config).replace("#", "::")


def readable_images(
    datalist: Sequence[Any],
    output_dir: str | os.PathLike,
    network_def: Mapping[str, Any],
    spacing: Sequence[float] | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return the images of a list that can be segmented, with the file for each, and for the others what is wrong.

    Args:
        datalist: images to be segmented: paths, or dicts with the path at ``image``.
        output_dir: folder for the segmentations.
        network_def: MONAI config of the network.
        spacing: size of a voxel to which images are resampled, in millimetres.

    Returns:
        Items with ``segmentation``, the path of the file to be written: of the image's name and type, or PNG for JPEG
        and NIfTI for DICOM; and pairs of an image's path and the reason why it is left out.
    """
    datalist = [item if isinstance(item, Mapping) else {"image": item} for item in datalist]
    if not datalist or not all(is_file(item.get("image")) for item in datalist):
        raise ValueError(f"datalist must hold paths of images, as in [{{'image': 'a.png'}}], got {datalist!r:.200}.")
    outputs = [_output_of(item["image"], Path(output_dir)) for item in datalist]
    good, bad = [], []
    for item, output in zip(datalist, outputs, strict=True):
        name = ";".join(as_paths(item["image"]))
        if outputs.count(output) > 1:
            bad.append((name, f"its segmentation {output.name} is another image's too: rename one of them"))
            continue
        try:
            _check_input(load_image(item["image"]), network_def, spacing)
        except (OSError, ValueError) as error:
            bad.append((name, str(error)))
            continue
        good.append({**item, "segmentation": str(output)})
    return good, bad


def _check_input(image: Any, network_def: Mapping[str, Any], spacing: Sequence[float] | None) -> None:
    found, inner = {"channels": len(image), "axes": image.ndim - 1}, inner_def(network_def)
    taken = {"channels": inner.get("in_channels"), "axes": inner.get("spatial_dims")}
    for what, number in found.items():
        if taken[what] not in (None, number):
            raise ValueError(f"it has {number} {what}, and the network takes {taken[what]}")
    if spacing is not None:
        check_spacing(spacing, image.meta["frame"], image.shape[1:], image.affine)


def _output_of(image: Any, folder: Path) -> Path:
    name = Path(as_paths(image)[0]).name
    ending = next((each for each in (*_AS_THEY_ARE, *_OTHERS) if name.lower().endswith(each)), "")
    kind = _OTHERS.get(ending, ending) or ".nii.gz"
    return folder / f"{name[: len(name) - len(ending)] if ending else Path(name).stem}_seg{kind}"


class WriteSegmentations:
    """Write each segmentation to the grid and the type of its image's file, and account for all images at the end.

    Attach it to a MONAI evaluator whose batches hold one image each, after postprocessing: ``pred`` holds class numbers
    on the image's own grid. At the end ``segmentations.csv`` and a table on the screen state for each image the file
    that was written, the classes found and the time.

    Args:
        output_dir: folder of ``segmentations.csv``.
        left_out: pairs of an image's path and the reason why it is not segmented.
    """

    def __init__(self, output_dir: str | os.PathLike, left_out: Sequence[tuple[str, str]] = ()) -> None:
        self.output_dir = Path(output_dir)
        self.left_out = list(left_out)
        self.rows: list[tuple[str, str, str, str]] = []
        self._start = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI evaluator."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _begin(self) -> None:
        self._start = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Write the segmentations of a batch."""
        items: Any = engine.state.batch
        answers: Any = engine.state.output
        for item, answer in zip(items, answers, strict=True):
            image, path = item["image"], Path(item["segmentation"])
            classes = np.asarray(torch.as_tensor(answer["pred"]).cpu())[0]
            classes = classes.astype(np.uint8 if classes.max() < 256 else np.uint16)
            write_segmentation(path, classes, np.asarray(image.meta["original_affine"], dtype=float))
            found = " ".join(map(str, np.unique(classes).tolist()))
            seconds = f"{time.monotonic() - self._start:.3f}"
            self.rows.append((str(image.meta["filename_or_obj"]), str(path), found, seconds))

    def finish(self) -> None:
        """Write ``segmentations.csv`` and the table.

        Raises:
            ValueError: if images were left out; the message names each with the reason.
        """
        columns = ("image", "segmentation", "classes", "seconds", "error")
        rows = [(*row, "") for row in self.rows] + [(name, "", "", "", why) for name, why in self.left_out]
        with csv_rows(self.output_dir / "segmentations.csv", columns) as write_row:
            for row in rows:
                write_row([_relative(row[0], self.output_dir), _relative(row[1], self.output_dir), *row[2:]])
        for image, path, found, seconds, error in rows:
            print(f"{image} -> {error or path}" if error else f"{image} -> {path}: classes {found}, {seconds} s")
        if self.left_out:
            shown = "\n".join(f"- {name}: {why}" for name, why in self.left_out)
            raise ValueError(f"{len(self.left_out)} of {len(rows)} images were not segmented:\n{shown}")


def _relative(path: str, folder: Path) -> str:
    """Return a path in the folder relative to it, and of any other file its name."""
    return os.path.relpath(path, folder) if path and Path(path).is_relative_to(folder) else Path(path).name


def write_segmentation(path: str | os.PathLike, classes: np.ndarray, affine: np.ndarray) -> None:
    """Write class numbers in the type of the file's ending, atomically.

    Args:
        path: path of the file: PNG, BMP, TIFF, NPY, NIfTI, NRRD or MetaImage.
        classes: class numbers of shape ``(X, Y)`` or ``(X, Y, Z)``, uint8 or uint16.
        affine: ``(4, 4)``, from voxels to millimetres, right-anterior-superior.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".segmentation.", suffix=HALF_WRITTEN, dir=path.parent) as beside:
        whole = Path(beside) / path.name
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            nib.save(nib.Nifti1Image(classes, affine), whole)
        elif name.endswith(".nrrd"):
            header = {
                "space": "right-anterior-superior",
                "space directions": affine[:3, : classes.ndim].T,
                "space origin": affine[:3, 3],
            }
            nrrd.write(str(whole), classes, header)
        elif name.endswith(".mha"):
            writer = ITKWriter(output_dtype=classes.dtype)
            writer.set_data_array(classes, channel_dim=None)
            writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
            writer.write(str(whole))
        elif name.endswith(".npy"):
            np.save(whole, classes.T if classes.ndim == 2 else classes)
        else:
            Image.fromarray(np.ascontiguousarray(classes.T)).save(whole)
        os.replace(whole, path)
