"""Public data sets, from folders made in the shape in which they are distributed."""

import json

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from PIL import Image

from monai_ccnet.data.public import chase_db1, drive, isic_2017


def write(path, size, rng, mode="RGB"):
    """Write noise, or for a mask a bright rectangle of its own place, of ``(height, width)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    if mode == "L":
        top = int(rng.integers(0, size[0] // 2))
        pixels = np.zeros(size, np.uint8)
        pixels[top : top + size[0] // 3, : size[1] // 2] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def drive_source(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "DRIVE"
    for part, numbers in {"training": range(21, 24), "test": range(1, 3)}.items():
        for number in numbers:
            write(root / part / "images" / f"{number:02}_{part}.tif", (24, 20), rng)
            write(root / part / "1st_manual" / f"{number:02}_manual1.gif", (24, 20), rng, "L")
    return root


@pytest.fixture
def chase_source(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "CHASEDB1"
    for number in range(1, 15):
        for side in "LR":
            write(root / f"Image_{number:02}{side}.jpg", (16, 16), rng)
            for observer in ("1stHO", "2ndHO"):
                write(root / f"Image_{number:02}{side}_{observer}.png", (16, 16), rng, "L")
    return root


@pytest.fixture
def isic_source(tmp_path):
    rng, root, number = np.random.default_rng(0), tmp_path / "ISIC", 0
    for part, count in {"Training": 8, "Validation": 2, "Test_v2": 3}.items():
        for _ in range(count):
            name = f"ISIC_{number:07}"
            write(root / f"ISIC-2017_{part}_Data" / f"{name}.jpg", (18, 24), rng)
            write(root / f"ISIC-2017_{part}_Data" / f"{name}_superpixels.png", (18, 24), rng)
            write(root / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{name}_segmentation.png", (18, 24), rng, "L")
            number += 1
    return root


def lists(folder):
    described = json.loads((folder / "dataset.json").read_text())
    return {
        part: load_decathlon_datalist(str(folder / "dataset.json"), data_list_key=part)
        for part in ("training", "validation", "test")
        if part in described
    }


def names(items):
    return [item["image"].rsplit("/", 1)[-1] for item in items]


def test_drive_keeps_its_split_and_becomes_readable(drive_source, tmp_path):
    folder = drive(drive_source, tmp_path / "drive")
    parts = lists(folder)
    assert {part: len(items) for part, items in parts.items()} == {"training": 3, "test": 2}
    load = LoadImage(image_only=True, ensure_channel_first=True)
    for item in parts["training"] + parts["test"]:
        image, label = load(item["image"]), load(item["label"])
        assert image.shape == (3, 512, 512)
        assert label.shape == (1, 512, 512)
        assert set(np.unique(label)) == {0, 1}


def test_without_a_size_the_pixels_stay(drive_source, tmp_path):
    folder = drive(drive_source, tmp_path / "drive", image_size=None)
    for item in lists(folder)["training"]:
        number = names([item])[0][:2]
        original = Image.open(drive_source / "training" / "images" / f"{number}_training.tif")
        mask = Image.open(drive_source / "training" / "1st_manual" / f"{number}_manual1.gif").convert("L")
        assert np.array_equal(Image.open(item["image"]), original)
        assert np.array_equal(Image.open(item["label"]), np.asarray(mask) > 0)


def test_chase_trains_on_the_first_twenty(chase_source, tmp_path):
    parts = lists(chase_db1(chase_source, tmp_path / "chase", image_size=(8, 12)))
    assert names(parts["training"])[::19] == ["Image_01L.png", "Image_10R.png"]
    assert names(parts["test"])[::7] == ["Image_11L.png", "Image_14R.png"]
    assert Image.open(parts["test"][0]["image"]).size == (12, 8)
    first = np.asarray(Image.open(chase_source / "Image_01L_1stHO.png")) > 0
    kept = chase_db1(chase_source, tmp_path / "whole", image_size=None)
    assert np.array_equal(Image.open(lists(kept)["training"][0]["label"]), first)


def test_isic_validates_on_a_fifth_of_training_and_validation(isic_source, tmp_path):
    parts = lists(isic_2017(isic_source, tmp_path / "isic", image_size=(8, 8)))
    assert {part: len(items) for part, items in parts.items()} == {"training": 8, "validation": 2, "test": 3}
    together = names(parts["training"]) + names(parts["validation"])
    assert sorted(together) == [f"ISIC_{number:07}.png" for number in range(10)]
    again = lists(isic_2017(isic_source, tmp_path / "again", image_size=(8, 8)))
    assert names(again["validation"]) == names(parts["validation"])
    none = lists(isic_2017(isic_source, tmp_path / "none", image_size=(8, 8), validation_share=0))
    assert set(none) == {"training", "test"}


def test_a_second_call_converts_nothing_and_another_size_is_refused(drive_source, tmp_path):
    folder = drive(drive_source, tmp_path / "drive", image_size=(8, 8))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert drive(drive_source, folder, image_size=(8, 8)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(ValueError, match=r"'drive' of size \[9, 9\] was requested: choose another folder"):
        drive(drive_source, folder, image_size=(9, 9))


def test_what_is_missing_or_broken_is_named_and_nothing_is_left(drive_source, chase_source, tmp_path):
    before = set(tmp_path.iterdir())
    (chase_source / "Image_03R_1stHO.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"Image_03R_1stHO\.png is missing"):
        chase_db1(chase_source, tmp_path / "out")
    (chase_source / "Image_03R.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"28 images.* holds 27"):
        chase_db1(chase_source, tmp_path / "out")
    truncated = drive_source / "training" / "images" / "22_training.tif"
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"22_training\.tif cannot be read as an image"):
        drive(drive_source, tmp_path / "out")
    Image.new("RGB", (5, 6)).save(truncated)
    with pytest.raises(ValueError, match=r"22_training\.tif has 5 x 6 pixels and its mask .*22_manual1\.gif 20 x 24"):
        drive(drive_source, tmp_path / "out")
    (drive_source / "test" / "1st_manual").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="test/1st_manual is missing"):
        drive(drive_source, tmp_path / "out")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "elsewhere"}


def test_a_folder_with_other_things_in_it_is_left_alone(drive_source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="choose another"):
        drive(drive_source, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        isic_2017(tmp_path, tmp_path / "out", validation_share=1)
