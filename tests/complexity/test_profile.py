"""Profiles: published, measured, kept."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor
from PIL import Image

from monai_ccnet.complexity import ComplexityProfile, complexity_at_scales, jpeg_complexity, measure_dataset
from monai_ccnet.data import images
from monai_ccnet.data.pictures import read_picture

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 40 * (i + 1), (1, 48, 64)).astype(np.uint8) for i in range(4)]


def test_tables_1_and_2():
    lymph_node = ComplexityProfile.published("lymph_node")
    assert lymph_node.scales == (1, 2, 4, 8, 16)
    assert lymph_node.mean == (0.1518, 0.0857, 0.0655, 0.0496, 0.0375)
    assert ComplexityProfile.published("chase_db1").at(16) == 0.1636
    printed = {  # Table 2
        0.7: (0.1306, 0.0844, 0.0702, 0.0590, 0.0502),
        0.775: (0.1359, 0.0847, 0.0690, 0.0566, 0.0470),
        0.95: (0.1483, 0.0855, 0.0663, 0.0512, 0.0396),
    }
    for omega, values in printed.items():
        profile = ComplexityProfile.published("lymph_node", measure="jb", omega=omega)
        assert profile.mean == pytest.approx(values, abs=1.01e-4)


def test_mean_and_standard_error_the_slow_way():
    profile = measure_dataset(IMAGES, scales=(4, 1))
    values = np.array([[complexity_at_scales(image)[scale] for scale in (1, 4)] for image in IMAGES])
    assert profile.scales == (1, 4)
    assert profile.mean == pytest.approx(values.mean(axis=0))
    assert profile.standard_error == pytest.approx(values.std(axis=0, ddof=1) / 2)
    assert profile.count == 4
    assert measure_dataset(IMAGES[:1]).standard_error is None


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_arrays_tensors_and_datasets_measure_alike(kind):
    expected = measure_dataset(IMAGES)
    assert measure_dataset([kind(image) for image in IMAGES]) == expected
    assert measure_dataset(Dataset([{"image": kind(image)} for image in IMAGES])) == expected
    assert measure_dataset([image[0] for image in IMAGES]) == expected


def test_files_measure_as_their_arrays(tmp_path):
    picture = RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    volume = RNG.integers(-1000, 1000, (20, 24, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volume.nii.gz")
    by_file = measure_dataset([{"image": str(tmp_path / "image.png")}], scales=(1,))
    assert by_file.mean[0] == jpeg_complexity(picture)
    by_path = measure_dataset([tmp_path / "volume.nii.gz"])
    assert by_path.mean == measure_dataset([volume[None]]).mean
    relative_to_file = measure_dataset([tmp_path / "image.png"], scales=(1,), reference="file")
    assert relative_to_file.mean[0] == pytest.approx(
        by_file.mean[0] * picture.size / (tmp_path / "image.png").stat().st_size
    )


def test_a_saved_profile_is_measured_again_only_for_other_settings(tmp_path):
    saved = tmp_path / "complexity.json"
    first = measure_dataset(IMAGES, saved=saved)
    written = saved.stat().st_mtime_ns
    assert measure_dataset(list(IMAGES), saved=saved) == first
    assert saved.stat().st_mtime_ns == written
    assert measure_dataset(IMAGES, saved=saved, quality=90) != first


def test_a_saved_profile_is_that_of_its_images_alone(tmp_path):
    saved = tmp_path / "complexity.json"
    measure_dataset(IMAGES, saved=saved)
    assert measure_dataset(IMAGES[:1], saved=saved).count == 1
    assert measure_dataset(iter(IMAGES), saved=saved).count == len(IMAGES)
    file = tmp_path / "a.png"
    Image.fromarray(IMAGES[0][0]).save(file)
    first = measure_dataset([{"image": str(file)}], saved=saved)
    Image.fromarray(255 - IMAGES[0][0] // 2).save(file)
    assert measure_dataset([{"image": str(file)}], saved=saved).mean != first.mean


def test_a_constant_image_is_near_zero_and_measured():
    assert 0 < measure_dataset([np.full((1, 256, 256), 3.5)]).mean[0] < 0.02


def test_an_unreadable_file_is_named_and_left_out(tmp_path):
    Image.fromarray(IMAGES[0][0]).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    items = [{"image": str(tmp_path / f"{name}.png")} for name in ("good", "broken", "good")]
    with pytest.warns(UserWarning, match=r"item 1 .*broken\.png.* is skipped"):
        profile = measure_dataset(items, scales=(1,))
    assert profile.count == 2
    assert len(profile.unreadable) == 1
    assert "broken.png" in profile.unreadable[0]
    assert "1 files could not be read" in str(profile)
    profile.save(tmp_path / "profile.json")
    assert ComplexityProfile.load(tmp_path / "profile.json") == profile


def _bomb(path):
    Image.new("L", (20_000, 20_000)).save(path)


def _gzip_with(change):
    def write(path):
        nibabel.save(nibabel.Nifti1Image(IMAGES[0][0], np.eye(4)), path)
        path.write_bytes(change(path.read_bytes()))

    return write


def _npy(array):
    return lambda path: np.save(path, array, allow_pickle=True)


DAMAGED = {
    "empty.png": lambda path: path.write_bytes(b""),
    "text.png": lambda path: path.write_text("not an image"),
    "bomb.png": _bomb,
    "folder.png": lambda path: path.mkdir(),
    "missing.png": lambda path: None,
    "empty.nii.gz": lambda path: path.write_bytes(b""),
    "no_gzip.nii.gz": lambda path: path.write_bytes(bytes(1000)),
    "cut.nii.gz": _gzip_with(lambda content: content[: len(content) // 2]),
    "without_end.nii.gz": _gzip_with(lambda content: content[:-8]),
    "checksum.nii.gz": _gzip_with(lambda content: content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]),
    "trailing.nii.gz": _gzip_with(lambda content: content + b"more"),
    "header.nii": lambda path: path.write_bytes(bytes(348)),
    "complex.npy": _npy(np.ones((8, 8), complex)),
    "objects.npy": _npy(np.array([{}], dtype=object)),
    "cut.npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    "nan.npy": _npy(np.full((8, 8), np.nan)),
    "text.tif": lambda path: path.write_bytes(b"II*\x00\xff\xff\xff\xff"),
    "text.nrrd": lambda path: path.write_text("NRRD0004\n"),
    "text.mha": lambda path: path.write_text("ObjectType = Image\n"),
    "text.dcm": lambda path: path.write_bytes(bytes(200)),
    "unknown.xyz": lambda path: path.write_bytes(bytes(200)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_cannot_be_read_is_named_and_left_out(name, tmp_path):
    Image.fromarray(IMAGES[0][0]).save(tmp_path / "good.png")
    DAMAGED[name](tmp_path / name)
    items = [str(tmp_path / "good.png")] * 2 + [str(tmp_path / name)]
    with pytest.warns(UserWarning, match=rf"item 2 .*{name}.* cannot be read and is skipped"):
        profile = measure_dataset(items, scales=(1,))
    assert profile.count == 2
    assert name in profile.unreadable[0]
    with pytest.raises(ValueError, match=rf"1 of 3 images of .*cannot be read, such as item 2 .*{name}"):
        measure_dataset(items, scales=(1,), max_unreadable=0.3)
    with pytest.raises(ValueError, match=rf"item 2 .*{name}"):
        measure_dataset(items, scales=(1,), strict=True)


def test_memory_that_runs_out_leaves_a_file_out(tmp_path, monkeypatch):
    for name in ("good", "large"):
        Image.fromarray(IMAGES[0][0]).save(tmp_path / f"{name}.png")

    def read(path, label):
        if Path(path).name == "large.png":
            raise MemoryError
        return read_picture(path, label)

    monkeypatch.setattr(images, "read_picture", read)
    with pytest.warns(UserWarning, match=r"item 1 .*large\.png.*MemoryError"):
        profile = measure_dataset([str(tmp_path / f"{name}.png") for name in ("good", "large")], scales=(1,))
    assert profile.count == 1


def test_workers_change_nothing():
    assert measure_dataset(IMAGES, n_jobs=2) == measure_dataset(IMAGES)


class _Counted:
    """Images of one brightness each, made when asked for; counts how many were."""

    def __init__(self, levels):
        self.levels, self.read = levels, 0

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, index):
        self.read += 1
        return np.full((1, 4, 4), self.levels[index], np.uint8)


def test_early_stopping_covers_the_mean_and_reads_no_more_than_it_needs():
    levels = np.random.default_rng(0).normal(100, 20, 5000).clip(1, 255).astype(np.uint8)
    truth, covered, read = np.mean(256.0 * levels.astype(float) ** 2), 0, []
    for seed in range(100):
        images = _Counted(levels)
        profile = measure_dataset(images, "energy", scales=(1,), tolerance=0.05, seed=seed)
        read.append(images.read)
        assert 1.96 * profile.standard_error[0] <= 0.05 * profile.mean[0]
        covered += abs(profile.mean[0] - truth) <= 0.05 * profile.mean[0]
    assert covered >= 93
    assert max(read) < 1000


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "it is empty"),
        ([IMAGES[0], np.full((1, 8, 8), np.nan)], {}, "item 1 .*of 'data set'.*NaN or infinite"),
        ([{"image": "missing.png"}], {"strict": True}, r"item 0 .*missing\.png"),
        ([{"image": "missing.png"}], {}, r"1 of 1 images of .*cannot be read, such as item 0 \(missing\.png\)"),
        (IMAGES, {"tolerance": 0}, "above 0"),
        ([{"image": IMAGES[0]}], {"measure": "foreground"}, r"needs \['label'\], the item holds \['image'\]"),
        ([{"image": IMAGES[0]}], {"measure": "jb"}, "needs"),
        ([{"label": IMAGES[0]}], {}, "needs"),
        (IMAGES, {"scales": (0, 1)}, "whole number from 1"),
        (IMAGES, {"scales": ()}, "scales must be distinct"),
    ],
)
def test_refusals_name_the_item(items, options, message):
    with pytest.raises(ValueError, match=message):
        measure_dataset(items, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (float("nan"), 0.1)}, "finite"),
        ({"mean": (-0.1, 0.1)}, "not negative"),
        ({"mean": (0.1,)}, "as many means"),
        ({"scales": (2, 1)}, "ascending"),
        ({"count": 0}, "at least one image"),
    ],
)
def test_profiles_that_cannot_be_right(fields, message):
    whole = {"dataset": "d", "settings": {}, "scales": (1, 2), "mean": (0.2, 0.1), "standard_error": None, "count": 1}
    with pytest.raises(ValueError, match=message):
        ComplexityProfile(**whole | fields)


def test_unknown_names_are_refused_with_the_known():
    with pytest.raises(ValueError, match=r"known:.*lymph_node"):
        ComplexityProfile.published("hela")
    with pytest.raises(ValueError, match="published are"):
        ComplexityProfile.published("drive", measure="energy")
    with pytest.raises(ValueError, match=r"scales=.*3"):
        ComplexityProfile.published("drive").at(3)


def test_the_table_holds_one_row_an_image(tmp_path):
    Image.fromarray(IMAGES[1][0]).save(tmp_path / "image.png")
    items = [IMAGES[0], tmp_path / "image.png", tmp_path / "missing.png"]
    table = tmp_path / "complexity.csv"
    with pytest.warns(UserWarning, match="cannot be read"):
        profile = measure_dataset(items, scales=(1, 2), table=table)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["item"], row["file"]) for row in rows] == [("0", ""), ("1", str(tmp_path / "image.png"))]
    assert np.mean([float(row["1/2"]) for row in rows]) == profile.at(2)
    with pytest.raises(ValueError, match="cannot be measured"):
        measure_dataset([IMAGES[0], np.zeros((0, 4))], table=table)
    assert len(table.read_text().splitlines()) == 3, "a failed run leaves the old table"
