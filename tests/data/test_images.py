"""What is in a file is what is read, at its depth, turned as it says, in its place; or the file is refused by name."""

import json
import struct
import zlib

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
from monai.transforms import SaveImage
from PIL import Image
from skimage import data as skimage_data

from monai_ccnet.complexity import measure_dataset
from monai_ccnet.data import ReadImaged, list_images, load_image
from monai_ccnet.data.images import read_stored

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
MASK = (np.indices((20, 30)).sum(axis=0) % 7 == 0).astype(np.uint8)


def pixels(path, **given):
    """Return what is read of a picture as rows, columns and, if there are several, channels."""
    array = read_stored(path, **given).array.transpose(2, 1, 0)
    return array[..., 0] if array.shape[-1] == 1 else array


def png(path, width, height, depth, colour_type, rows, exif=None):
    """Write a PNG of a kind that no library writes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    turned = b"" if exif is None else chunk(b"eXIf", exif)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + turned + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"])
def test_eight_bits_are_read_as_they_are_written(ending, tmp_path):
    path = tmp_path / f"grey{ending}"
    Image.fromarray(GREY).save(path, **({"lossless": True} if ending == ".webp" else {}))
    found = pixels(path)
    assert np.array_equal(found if found.ndim == 2 else found[..., 0], GREY)
    if ending != ".gif":
        Image.fromarray(COLOUR).save(path, **({"lossless": True} if ending == ".webp" else {}))
        assert np.array_equal(pixels(path), COLOUR)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_keep_their_depth_in_grey_and_in_colour(ending, tmp_path):
    path = tmp_path / f"deep{ending}"
    for array in (DEEP[..., 0], DEEP):
        cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])
        assert np.array_equal(pixels(path), array)
        assert read_stored(path).array.dtype == np.uint16
    opaque = np.dstack([DEEP[..., ::-1], np.full((20, 30), 65535, np.uint16)])
    cv2.imwrite(str(path), opaque)
    assert np.array_equal(pixels(path), DEEP)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.int8, np.uint32])
def test_tiff_of_other_numbers(dtype, tmp_path):
    array = (RNG.normal(0, 40, (20, 30)) if dtype == np.float32 else DEEP[..., 0] * 3).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array)
    found = read_stored(tmp_path / "a.tif")
    assert np.array_equal(found.array[0].T, array)


def test_tiff_of_separate_planes(tmp_path):
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(COLOUR.transpose(2, 0, 1)), **planes)
    assert np.array_equal(pixels(tmp_path / "a.tif"), COLOUR)
    tifffile.imwrite(tmp_path / "b.tif", np.ascontiguousarray(DEEP.transpose(2, 0, 1)), **planes)
    with pytest.raises(ValueError, match=r"b\.tif .*stores its channels of uint16 in separate planes"):
        pixels(tmp_path / "b.tif")


def test_few_bits_are_classes_in_a_label_and_grey_in_an_image(tmp_path):
    png(tmp_path / "two.png", 4, 2, 2, 0, [bytes([0b00011011])] * 2)
    assert pixels(tmp_path / "two.png").tolist() == [[0, 85, 170, 255]] * 2
    assert pixels(tmp_path / "two.png", label=True).tolist() == [[0, 1, 2, 3]] * 2
    png(tmp_path / "four.png", 2, 1, 4, 0, [bytes([0x1F])])
    assert pixels(tmp_path / "four.png", label=True).tolist() == [[1, 15]]
    Image.fromarray(MASK > 0).save(tmp_path / "one.png")
    assert np.array_equal(pixels(tmp_path / "one.png", label=True), MASK)
    assert np.array_equal(pixels(tmp_path / "one.png"), MASK * 255)


def palette(path, colours, indices=MASK):
    image = Image.fromarray(indices, "P")
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    image.save(path)


def test_a_palette_is_colours_in_an_image_and_classes_in_a_label(tmp_path):
    palette(tmp_path / "voc.png", [(0, 0, 0), (128, 0, 0)])
    assert pixels(tmp_path / "voc.png").shape == (20, 30, 3)
    assert np.array_equal(pixels(tmp_path / "voc.png")[..., 0], 128 * MASK)
    assert np.array_equal(pixels(tmp_path / "voc.png", label=True), MASK)
    palette(tmp_path / "grey.png", [(0, 0, 0), (255, 255, 255)])
    assert np.array_equal(pixels(tmp_path / "grey.png"), 255 * MASK)
    assert np.array_equal(pixels(tmp_path / "grey.png", label=True), MASK)
    palette(tmp_path / "inverted.png", [(255, 255, 255), (0, 0, 0)])
    with pytest.raises(ValueError, match=r"inverted\.png .*colour number 0 is not its darkest.*greyscale"):
        read_stored(tmp_path / "inverted.png", label=True)
    assert np.array_equal(pixels(tmp_path / "inverted.png"), 255 * (1 - MASK))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_an_orientation_is_applied_as_a_viewer_does(orientation, ending, tmp_path):
    from PIL import ImageOps

    path, exif = tmp_path / f"turned{ending}", Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOUR).save(path, exif=exif, **({"quality": 95} if ending == ".jpg" else {}))
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(pixels(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_turned_too(orientation, ending, tmp_path):
    expected = np.swapaxes(DEEP, 0, 1) if orientation >= 5 else DEEP
    flips = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    path = tmp_path / f"deep{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, DEEP, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + bytes(4)
        png(path, 30, 20, 16, 2, [row.astype(">u2").tobytes() for row in DEEP], exif)
    assert np.array_equal(pixels(path), expected[:: flips[0], :: flips[1]])


def _multi_page(path):
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY)] * 2)


def _nowhere(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # the rows of the affine
    path.write_bytes(content)


REFUSED = {
    "pages.tif": (_multi_page, "holds 3 pages"),
    "cmyk.jpg": (lambda path: Image.fromarray(COLOUR).convert("CMYK").save(path), "has the mode CMYK"),
    "lab.tif": (lambda path: Image.fromarray(COLOUR).convert("LAB").save(path), "has the mode LAB"),
    "half.png": (lambda path: Image.fromarray(np.dstack([COLOUR, GREY])).save(path), "is partly transparent"),
    "two.tif": (
        lambda path: tifffile.imwrite(path, COLOUR[..., :2], photometric="minisblack", planarconfig="contig"),
        "is stored as 2 channels of uint8",
    ),
    "complex.nii": (lambda path: nibabel.save(nibabel.Nifti1Image(GREY * 1j, np.eye(4)), path), "holds complex128"),
    "rgb.nii": (
        lambda path: nibabel.save(
            nibabel.Nifti1Image(np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4)), path
        ),
        "numbers: save its magnitude, or its channels",
    ),
    "five.nii": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2, 3)), np.eye(4)), path),
        "the shape",
    ),
    "nowhere.nii": (_nowhere, "maps no voxel to a place"),
    "colour.npy": (lambda path: np.save(path, COLOUR), "an array does not say what its axes are"),
    "complex.npy": (lambda path: np.save(path, GREY * 1j), "holds complex128"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}], dtype=object)), "allow_pickle=False"),
    "words.png": (lambda path: path.write_text("no image"), "no reader here knows its format"),
    "short.png": (
        lambda path: (Image.fromarray(GREY).save(path), path.write_bytes(path.read_bytes()[:200])),
        "truncated",
    ),
    "empty.nii.gz": (lambda path: path.write_bytes(b""), "Empty file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_rightly_is_refused_by_its_name(name, tmp_path):
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises((ValueError, OSError), match=rf"{name} cannot be read \(.*{message}"):
        load_image(tmp_path / name)


LABELS_REFUSED = {
    "colours.png": (COLOUR, "has 3 channels: save the label with one, of class numbers"),
    "half.nii": (np.where(MASK, 0.5, 0), r"holds 0\.5: a label must hold whole numbers"),
    "nan.nii": (np.where(MASK, np.nan, 0), "holds NaN or infinity"),
}


@pytest.mark.parametrize("name", LABELS_REFUSED)
def test_what_is_no_label_is_refused_by_its_name(name, tmp_path):
    array, message = LABELS_REFUSED[name]
    if name.endswith(".png"):
        Image.fromarray(array).save(tmp_path / name)
    else:
        nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        load_image(tmp_path / name, label=True)


def test_a_label_is_the_same_however_it_is_stored(tmp_path):
    copies = {
        "grey.png": MASK,
        "colour.png": np.repeat(MASK[..., None], 3, axis=2),
        "deep.tif": MASK.astype(np.uint16),
        "white.png": 255 * MASK,
    }
    for name, array in copies.items():
        tifffile.imwrite(tmp_path / name, array) if name.endswith("tif") else Image.fromarray(array).save(
            tmp_path / name
        )
        values = {0: 0, 255: 1} if name == "white.png" else None
        assert np.array_equal(pixels(tmp_path / name, label=True, label_values=values), MASK)
    opaque = np.dstack([MASK, MASK, MASK, np.full_like(MASK, 255)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert np.array_equal(pixels(tmp_path / "opaque.png", label=True), MASK)
    for dtype, scale in ((np.float32, 0.99999994), (np.float64, 1), (np.int16, 1), (np.uint8, 1)):
        nibabel.save(nibabel.Nifti1Image((MASK.T * scale).astype(dtype), np.eye(4)), tmp_path / "mask.nii.gz")
        assert np.array_equal(pixels(tmp_path / "mask.nii.gz", label=True), MASK)
    np.save(tmp_path / "mask.npy", MASK > 0)
    assert np.array_equal(pixels(tmp_path / "mask.npy", label=True), MASK)


def test_copies_in_other_depths_and_containers_are_equally_complex(tmp_path):
    picture = skimage_data.camera()[100:260, 100:228]
    cv2.imwrite(str(tmp_path / "same.png"), picture)
    cv2.imwrite(str(tmp_path / "same.bmp"), picture)
    cv2.imwrite(str(tmp_path / "wide.png"), picture.astype(np.uint16))
    cv2.imwrite(str(tmp_path / "full.png"), picture.astype(np.uint16) * 257)
    tifffile.imwrite(tmp_path / "same.tif", picture)
    tifffile.imwrite(tmp_path / "float.tif", picture.astype(np.float32))
    nibabel.save(nibabel.Nifti1Image(picture.T, np.eye(4)), tmp_path / "same.nii.gz")
    np.save(tmp_path / "same.npy", picture)
    found = {
        path.name: measure_dataset([{"image": str(path)}], "jpeg", quality=25, reference="raw").mean
        for path in tmp_path.iterdir()
    }
    assert len(found) == 8
    for name, mean in found.items():
        assert mean == pytest.approx(found["same.png"], abs=1e-6), name


def test_an_image_of_several_files_has_their_channels_on_one_grid(tmp_path):
    volume = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    paths = [tmp_path / f"case_{index:04d}.nii.gz" for index in range(2)]
    for index, path in enumerate(paths):
        nibabel.save(nibabel.Nifti1Image(volume + index, np.diag([1.0, 2, 3, 1])), path)
    loaded = load_image(paths)
    assert loaded.shape == (2, 4, 5, 6)
    assert np.array_equal(np.asarray(loaded), np.stack([volume, volume + 1]))
    assert np.array_equal(np.asarray(loaded.affine), np.diag([1.0, 2, 3, 1]))
    assert list_images(tmp_path, channels=2) == [{"image": list(map(str, paths))}]
    with pytest.raises(ValueError, match=r"case\.nii\.gz has 2 files, and 3 channels are expected"):
        list_images(tmp_path, channels=3)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 2, 3, 1])), paths[1])
    with pytest.raises(ValueError, match=r"are channels of one image, and their grids differ \(.*RAS.*; .*LAS"):
        load_image(paths)


def test_an_image_with_nan_is_refused_wherever_it_enters(tmp_path):
    volume = RNG.normal(size=(4, 5, 6))
    volume[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "nan.nii.gz")
    item = {"image": str(tmp_path / "nan.nii.gz")}
    for enter in (
        lambda: load_image(item["image"]),
        lambda: ReadImaged("image")(item),
        lambda: measure_dataset([item]),
    ):
        with pytest.raises(ValueError, match=r"nan\.nii\.gz holds NaN or infinity"):
            enter()


def test_resampling_is_to_millimetres_in_the_world(tmp_path):
    volume = np.indices((8, 6, 4))[0].astype(np.float32)
    path = tmp_path / "a.nii"
    nibabel.save(
        nibabel.Nifti1Image(
            volume.transpose(2, 0, 1), np.array([[0, 1, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
        ),
        path,
    )
    loaded = load_image(path, spacing=(2, 2, 3))
    assert loaded.pixdim.tolist() == [2, 2, 3]
    assert loaded.shape[2:] == (6, 4)
    label = load_image(path, label=True, spacing=(2, 2, 3))
    assert set(np.unique(np.asarray(label))) <= set(range(8))


nrrd = pytest.importorskip("nrrd")


@pytest.mark.parametrize(
    ("space", "signs"), [("left-posterior-superior", (-1, -1, 1)), ("LAS", (-1, 1, 1)), ("RAS", (1, 1, 1))]
)
def test_nrrd_lies_where_it_says(space, signs, tmp_path):
    volume = RNG.integers(0, 9, (4, 5, 6)).astype(np.int16)
    header = {"space": space, "space directions": np.diag([1.0, 2, 3]), "space origin": [4.0, 5, 6]}
    nrrd.write(str(tmp_path / "a.nrrd"), volume, header)
    found = read_stored(tmp_path / "a.nrrd")
    assert np.array_equal(found.array[0], volume)
    assert np.allclose(found.affine[:3, :3], np.diag(np.multiply(signs, [1, 2, 3])))
    assert np.allclose(found.affine[:3, 3], np.multiply(signs, [4, 5, 6]))
    nrrd.write(str(tmp_path / "b.nrrd"), volume, {**header, "space": "scanner-xyz"})
    with pytest.raises(ValueError, match=r"b\.nrrd cannot be read \(it lies in the space 'scanner-xyz'"):
        read_stored(tmp_path / "b.nrrd")


def test_the_same_volume_in_nifti_nrrd_and_metaimage(tmp_path):
    itk = pytest.importorskip("itk")
    volume = RNG.integers(-9, 9, (4, 5, 6)).astype(np.int16)
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    image = itk.imread(str(tmp_path / "a.nii.gz"))
    expected = read_stored(tmp_path / "a.nii.gz")
    for name in ("a.mha", "a.nrrd", "a.mhd"):
        itk.imwrite(image, str(tmp_path / name))
        found = read_stored(tmp_path / name)
        assert np.array_equal(found.array, expected.array), name
        assert np.allclose(found.affine, expected.affine, atol=1e-5), name


def dicom_series(folder, volume, spacing=(1.5, 2.0, 3.0), leave_out=(), uid="1.2.3", **of_the_last):
    """Write a CT series of axial slices, the first row at the front, as scanners do."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir()
    for index in range(volume.shape[2]):
        if index in leave_out:
            continue
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.{index + 1}"
        slice_ = pydicom.dataset.Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.Modality, slice_.InstanceNumber = uid, "CT", index + 1
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-10, -20, 30 + spacing[2] * index]
        slice_.PixelSpacing, slice_.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        slice_.Rows, slice_.Columns = volume.shape[1], volume.shape[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1000
        for name, value in of_the_last.items() if index == volume.shape[2] - 1 else ():
            if value is None:
                delattr(slice_, name)
            else:
                setattr(slice_, name, value)
        slice_.PixelData = (volume[:, :, index].T + 1000).astype("<i2").tobytes()
        pydicom.dcmwrite(folder / f"{index:03d}.dcm", slice_, enforce_file_format=True)


def test_a_dicom_series_is_a_volume_in_its_place(tmp_path):
    volume = RNG.integers(-900, 900, (5, 6, 4))
    dicom_series(tmp_path / "ct", volume)
    found = read_stored(tmp_path / "ct")
    assert np.array_equal(found.array[0], volume)
    assert np.allclose(found.affine, [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    dicom_series(tmp_path / "gap", volume, leave_out=(1,))
    with pytest.raises(ValueError, match=r"gap cannot be read \(it has slices between 3 and 6 mm apart"):
        read_stored(tmp_path / "gap")
    dicom_series(tmp_path / "two", volume)
    dicom_series(tmp_path / "other", volume, uid="1.2.4")
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "two" / f"other_{path.name}")
    with pytest.raises(ValueError, match=r"two cannot be read \(it holds several DICOM series"):
        read_stored(tmp_path / "two")


@pytest.mark.parametrize(("name", "package"), [("a.nrrd", "pynrrd"), ("a.mha", "itk"), ("a.dcm", "pydicom")])
def test_a_format_whose_package_is_missing_names_it(name, package, tmp_path, monkeypatch):
    for flag in ("has_nrrd", "has_itk", "has_pydicom"):
        monkeypatch.setattr(f"monai_ccnet.data.volumes.{flag}", False)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"needs the package {package}: pip install {package}"):
        read_stored(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png is missing: add it"):
        load_image(tmp_path / "a.png")


def test_reading_needs_no_torch_types(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert json.dumps(loaded.meta["filename_or_obj"]) == json.dumps(str(tmp_path / "a.png"))
    assert loaded.shape == (1, 30, 20)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.uint32, np.int8])
def test_tiff_is_turned_once_however_it_is_stored(dtype, compression, orientation, tmp_path):
    array = (RNG.normal(0, 40, (20, 30))).astype(dtype)
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", array, compression=compression, extratags=tags)
    expected = array.T if orientation >= 5 else array
    rows, columns = {3: (-1, -1), 6: (1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    assert np.array_equal(pixels(tmp_path / "a.tif"), expected[::rows, ::columns])


@pytest.mark.parametrize("quality", [50, 95, 100])
def test_a_label_in_a_format_that_changes_it_is_refused(quality, tmp_path):
    for ending in (".jpg", ".webp"):
        Image.fromarray(MASK).save(tmp_path / f"mask{ending}", quality=quality)
        with pytest.raises(ValueError, match="changes the class numbers of a label: save it as PNG"):
            load_image(tmp_path / f"mask{ending}", label=True)


def test_a_label_in_a_tiff_that_is_compressed_as_jpeg_is_refused(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.tif", compression="jpeg")
    with pytest.raises(ValueError, match="it is stored by JPEG, which changes the class numbers"):
        load_image(tmp_path / "mask.tif", label=True)
    Image.fromarray(MASK).save(tmp_path / "mask.tif", compression="tiff_lzw")
    assert np.array_equal(pixels(tmp_path / "mask.tif", label=True), MASK)


def test_numbers_that_float32_cannot_tell_apart_are_refused(tmp_path):
    path = tmp_path / "far.nii"
    for offset, good in ((0, True), (2**20, True), (2**31, False)):
        nibabel.save(
            nibabel.Nifti1Image(np.arange(200.0).reshape(4, 5, 10) + offset, np.eye(4)),
            path,
        )
        if good:
            assert len(np.unique(np.asarray(load_image(path)))) == 200
        else:
            with pytest.raises(ValueError, match=r"far\.nii holds numbers from .* too large for float32"):
                load_image(path)
    nibabel.save(nibabel.Nifti1Image(np.arange(200.0).reshape(4, 5, 10) * 1e300, np.eye(4)), path)
    with pytest.raises(ValueError, match=r"far\.nii holds numbers from 0 to .* too large for float32"):
        load_image(path)


@pytest.mark.parametrize("values", [{255: 1.7}, {254.6: 1}, {255: True}, [1, 2], {"a": 1}, 5])
def test_label_values_that_are_no_whole_numbers_are_refused(values, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"label_values must map whole numbers, as in \{0: 0, 255: 1\}, got"):
        load_image(tmp_path / "mask.png", label=True, label_values=values)


def test_a_slice_from_the_side_and_an_empty_axis_are_refused(tmp_path):
    sagittal = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(GREY, sagittal), tmp_path / "side.nii")
    with pytest.raises(ValueError, match="does not lie in the axial plane: save it as a volume of one slice"):
        load_image(tmp_path / "side.nii")
    np.save(tmp_path / "empty.npy", np.zeros((0, 30)))
    with pytest.raises((ValueError, OSError), match="empty"):
        load_image(tmp_path / "empty.npy")


def test_white_as_zero_and_a_transparent_colour(tmp_path):
    tifffile.imwrite(tmp_path / "white.tif", GREY, photometric="miniswhite")
    assert np.array_equal(pixels(tmp_path / "white.tif"), 255 - GREY)
    tifffile.imwrite(tmp_path / "deep.tif", DEEP[..., 0], photometric="miniswhite")
    with pytest.raises(ValueError, match="stores white as 0"):
        load_image(tmp_path / "deep.tif")
    Image.fromarray(GREY).save(tmp_path / "key.png", transparency=int(GREY[0, 0]))
    with pytest.raises(ValueError, match="is partly transparent"):
        load_image(tmp_path / "key.png")
    Image.fromarray(MASK).save(tmp_path / "mask.png", transparency=0)
    assert np.array_equal(pixels(tmp_path / "mask.png", label=True), MASK)


def test_a_label_far_from_any_class_is_named_by_its_value(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), 1e30), np.eye(4)), tmp_path / "far.nii")
    with pytest.raises(ValueError, match=r"far\.nii holds 1e\+30: a label must hold the numbers of its classes"):
        load_image(tmp_path / "far.nii", label=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "has slices of different ImageOrientationPatient"),
        ({"PixelSpacing": [1, 1]}, "has slices of different PixelSpacing"),
        ({"ImagePositionPatient": None}, "has slices without ImagePositionPatient"),
        ({"NumberOfFrames": 4}, "holds several frames in one DICOM file"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "is stored as MONOCHROME1, MONOCHROME2"),
    ],
)
def test_a_dicom_series_whose_slices_differ_is_refused(change, message, tmp_path):
    dicom_series(tmp_path / "ct", RNG.integers(-900, 900, (5, 6, 4)), **change)
    with pytest.raises(ValueError, match=rf"ct cannot be read \(it {message}"):
        read_stored(tmp_path / "ct")


def test_a_folder_that_is_no_series_is_refused(tmp_path):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "notes.txt").write_text("not DICOM")
    with pytest.raises(ValueError, match="holds files that are not DICOM"):
        read_stored(tmp_path / "ct")
    dicom_series(tmp_path / "series", RNG.integers(-900, 900, (5, 6, 4)))
    (tmp_path / "series" / "more").mkdir()
    with pytest.raises(ValueError, match="holds no files, or folders beside them"):
        read_stored(tmp_path / "series")


def test_nrrd_in_micrometres_is_refused(tmp_path):
    header = {"space": "RAS", "space directions": np.eye(3), "space origin": [0, 0, 0], "space units": ["um"] * 3}
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((2, 3, 4)), header)
    with pytest.raises(ValueError, match="it lies in um: save it in millimetres"):
        read_stored(tmp_path / "a.nrrd")


def test_what_belongs_to_an_image_is_no_image_of_its_own(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(np.zeros((2, 3, 4)), np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "b.mhd").write_text("ElementDataFile = b.raw\n")
    for name in ("b.raw", "c.json", "d.nii.gz", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    names = [item["image"].removeprefix(f"{tmp_path}/") for item in list_images(tmp_path)]
    assert names == ["a.hdr", "b.mhd", "d.nii.gz"]


def test_the_affine_is_the_one_that_nibabel_reads(tmp_path):
    affine = np.diag([-0.48828125, -0.48828125, 5, 1])
    affine[:3, 3] = [120, 130, -60]
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.set_sform(affine, 1)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = [0.4883, 0.4883, 5]
    nibabel.save(image, tmp_path / "rounded.nii")
    assert np.allclose(read_stored(tmp_path / "rounded.nii").affine, nibabel.load(tmp_path / "rounded.nii").affine)
    assert np.allclose(read_stored(tmp_path / "rounded.nii").affine, affine)


def test_a_picture_is_not_resampled_to_millimetres(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="needs volumes, and a picture has no size of a pixel"):
        load_image(tmp_path / "a.png", spacing=(2, 2))


@pytest.mark.parametrize("code", ["PIR", "LIP", "ASL", "RAS"])
def test_what_was_read_can_be_saved_by_monai_in_any_orientation(code, tmp_path):
    affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(code), (4, 5, 6))
    nibabel.save(nibabel.Nifti1Image(RNG.normal(size=(4, 5, 6)).astype(np.float32), affine), tmp_path / "a.nii.gz")
    loaded = load_image(tmp_path / "a.nii.gz")
    SaveImage(tmp_path, output_postfix="saved", separate_folder=False, resample=False, print_log=False)(loaded)
    assert np.allclose(read_stored(tmp_path / "a_saved.nii.gz").affine, affine)
