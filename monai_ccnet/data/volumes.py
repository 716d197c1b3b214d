"""Decoding volumes with their place in the world: NIfTI, and with the reader's package NRRD, MetaImage and DICOM."""

from __future__ import annotations

import contextlib
import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data.image_reader import ITKReader, PydicomReader
from monai.utils.module import optional_import
from nibabel.filebasedimages import SerializableImage

from monai_ccnet.data.pictures import RefusedError

__all__ = ["META_ENDINGS", "VOLUME_ENDINGS", "is_volume", "read_volume"]

nrrd, has_nrrd = optional_import("nrrd")
pydicom, has_pydicom = optional_import("pydicom")
_, has_itk = optional_import("itk")

_ITK = threading.Lock()  # ITK changes the working directory while it loads its parts
_NIFTI = (".nii", ".nii.gz", ".img", ".hdr", ".mgz", ".mgh")
_MILLIMETRES = {"", "mm", "millimeter", "millimeters", "millimetre", "millimetres"}
_NRRD = (".nrrd", ".nhdr")
META_ENDINGS = (".mha", ".mhd")
_DICOM = (".dcm", ".dicom", ".ima")
VOLUME_ENDINGS = (*_NIFTI, *_NRRD, *META_ENDINGS, *_DICOM)
_SPACES = {  # signs that turn the space of an NRRD file into right-anterior-superior
    "left-posterior-superior": (-1, -1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "right-anterior-superior": (1, 1, 1),
}
_SAME = 1e-4  # of directions and millimetres, among the slices of a series
_PLANE = 0.5  # of its area a slice must show from above
_UNEVEN = 0.01  # of the mean distance of two slices


def is_volume(path: Path) -> bool:
    """Tell whether a file, or a folder of DICOM slices, is one that :func:`read_volume` reads."""
    return path.is_dir() or path.name.lower().endswith(VOLUME_ENDINGS)


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the voxels of a volume, its affine, and its type in words.

    Args:
        path: path of a NIfTI, NRRD, MetaImage or DICOM file, or of a folder with one DICOM series.

    Returns:
        Array ``(C, X, Y)`` or ``(C, X, Y, Z)``; affine ``(4, 4)`` from voxels to millimetres, right-anterior-superior;
        and words such as ``"NIfTI, int16"``.

    Raises:
        ImportError: if the format needs a package that is not installed.
        RefusedError: if the file holds no real numbers, or does not say where it lies.
    """
    name = path.name.lower()
    if path.is_dir() or name.endswith(_DICOM):
        array, affine, kind = _dicom(path)
    elif name.endswith(_NRRD):
        array, affine, kind = _nrrd(path)
    elif name.endswith(META_ENDINGS):
        _need(has_itk, "MetaImage", "itk")
        with _ITK, _here():
            array, affine = _by_monai(ITKReader(), path.absolute())
        kind = f"MetaImage, {array.dtype}"
    else:
        array, affine, kind = _nifti(path)
    if array.ndim not in (3, 4):
        raise RefusedError(f"it has the shape {array.shape[1:]}: one image of two or three axes is expected")
    if array.size == 0:
        raise RefusedError(f"it has the shape {array.shape[1:]}, with an empty axis")
    if array.ndim == 3 and abs(np.linalg.det(affine[:2, :2])) < _PLANE * np.prod(
        np.linalg.norm(affine[:3, :2], axis=0)
    ):
        raise RefusedError("it is a slice that does not lie in the axial plane: save it as a volume of one slice")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise RefusedError("it has an affine that maps no voxel to a place: write one, such as that of its label")
    return array, affine, kind


@contextlib.contextmanager
def _here() -> Iterator[None]:
    before = os.getcwd()
    try:
        yield
    finally:
        os.chdir(before)


def _need(is_there: bool, what: str, package: str) -> None:
    if not is_there:
        raise ImportError(f"{what} needs the package {package}: pip install {package}")


def _by_monai(reader: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    array, meta = reader.get_data(reader.read(str(path)))
    array = np.asarray(array)
    channel = meta.get("original_channel_dim", "no_channel")
    has_channel = isinstance(channel, (int, np.integer)) and not isinstance(channel, bool)
    return (np.moveaxis(array, channel, 0) if has_channel else array[None]), _square(meta["affine"])


def _square(affine: Any) -> np.ndarray:
    """Return an affine of two or three axes as one of three."""
    given = np.asarray(affine, dtype=np.float64)
    if given.shape == (4, 4):
        return given
    whole = np.eye(4)
    whole[: given.shape[0] - 1, : given.shape[1] - 1] = given[:-1, :-1]
    whole[: given.shape[0] - 1, 3] = given[:-1, -1]
    return whole


def _nifti(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    opened: Any = nibabel.load(path)  # MONAI's reader replaces an sform that its spacing does not match to the digit
    if path.name.lower().endswith((".gz", ".mgz")) and isinstance(opened, SerializableImage):
        opened = type(opened).from_bytes(gzip.decompress(path.read_bytes()))  # which verifies the checksum at its end
    dtype = opened.get_data_dtype()
    if dtype.kind not in "buif":
        raise RefusedError(f"it holds {dtype} numbers: save its magnitude, or its channels, as real ones")
    array = np.asanyarray(opened.dataobj)
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim > 4:
        raise RefusedError(f"it has the shape {array.shape}: one image of two or three axes is expected")
    return (np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]), opened.affine, f"NIfTI, {dtype}"


def _nrrd(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    _need(has_nrrd, "NRRD", "pynrrd")
    array, header = nrrd.read(str(path))
    kind = f"NRRD, {array.dtype}"
    if "space directions" not in header:
        spacings = np.nan_to_num(np.asarray(header.get("spacings", np.ones(array.ndim)), float), nan=1.0)
        return array[None], np.diag([*np.resize([*spacings, 1.0], 3), 1.0]), kind
    space = str(header.get("space", "left-posterior-superior")).lower()
    space = {"lps": "left-posterior-superior", "las": "left-anterior-superior", "ras": "right-anterior-superior"}.get(
        space, space
    )
    if space not in _SPACES:
        raise RefusedError(f"it lies in the space {space!r}: save it in one of {', '.join(_SPACES)}")
    if odd := {str(unit) for unit in header.get("space units", ())} - _MILLIMETRES:
        raise RefusedError(f"it lies in {', '.join(sorted(odd))}: save it in millimetres")
    directions = np.array([[np.nan] * 3 if row is None else row for row in header["space directions"]], dtype=float)
    spatial = ~np.isnan(directions).any(axis=1)
    signs, affine = np.array(_SPACES[space]), np.eye(4)
    affine[:3, : spatial.sum()] = (directions[spatial] * signs).T
    affine[:3, 3] = np.asarray(header.get("space origin", (0, 0, 0)), dtype=float) * signs
    others = np.flatnonzero(~spatial)
    return (np.moveaxis(array, others[0], 0) if len(others) else array[None]), affine, kind


def _dicom(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    _need(has_pydicom, "DICOM", "pydicom")
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    try:
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files if not file.name.startswith(".")]
    except pydicom.errors.InvalidDicomError as error:
        raise RefusedError("it holds files that are not DICOM: keep those of one series alone") from error
    if not headers or (path.is_dir() and any(each.is_dir() for each in path.iterdir())):
        raise RefusedError("it holds no files, or folders beside them: give a folder with one DICOM series alone")
    if any(int(each.get("NumberOfFrames") or 1) > 1 for each in headers):
        raise RefusedError("it holds several frames in one DICOM file: save them as a series, or as NIfTI")
    if len({str(each.get("SeriesInstanceUID")) for each in headers}) > 1:
        raise RefusedError("it holds several DICOM series: give each a folder of its own")
    photometric = {str(each.get("PhotometricInterpretation")) for each in headers}
    if photometric != {"MONOCHROME2"}:
        raise RefusedError(f"it is stored as {', '.join(sorted(photometric))}: only MONOCHROME2 is read; convert it")
    if len(headers) > 1:
        _check_slices(headers)
    array, affine = _by_monai(PydicomReader(), path)
    return array, affine, f"DICOM, {array.dtype}"


def _check_slices(headers: list[Any]) -> None:
    """Refuse a series of which a slice is missing, or is there twice."""
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if any(each.get(name) is None for each in headers):
            raise RefusedError(f"it has slices without {name}: only series that say where they lie are read")
    for name in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        values = np.array([np.atleast_1d(each.get(name)).astype(float) for each in headers])
        if np.ptp(values, axis=0).max() > _SAME:
            raise RefusedError(f"it has slices of different {name}: give each kind a folder of its own")
    directions = np.asarray(headers[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(directions[:3], directions[3:])
    places = np.sort([np.dot(normal, np.asarray(each.ImagePositionPatient, dtype=float)) for each in headers])
    gaps = np.diff(places)
    if gaps.min() < (1 - _UNEVEN) * gaps.mean() or gaps.max() > (1 + _UNEVEN) * gaps.mean():
        raise RefusedError(
            f"it has slices between {gaps.min():.3g} and {gaps.max():.3g} mm apart: complete the series, or resample it"
        )
