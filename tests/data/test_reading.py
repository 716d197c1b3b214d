"""One reading of a data set: what it remembers, what it refuses, and what it says has changed."""

import json
import os
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_ccnet.data import (
    DataReading,
    check_resampled,
    check_scorable,
    check_trainable,
    common_spacing,
    hold_out,
    open_dataset,
    read_dataset,
)
from monai_ccnet.files import files_of

RNG = np.random.default_rng(0)


def picture(path, value=None):
    pixels = RNG.integers(0, 256, (6, 8)) if value is None else np.full((6, 8), value)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def mask(path, high=1):
    Image.fromarray((np.indices((6, 8))[0] > 2).astype(np.uint8) * np.uint8(high)).save(path)


def volume(path, affine=None, array=None):
    array = RNG.normal(size=(6, 8, 4)).astype(np.float32) if array is None else array
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def folder_of(folder, write_image=picture, write_label=mask, ending=".png", label_ending=None, **described):
    """Write a set of three training and two test images, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {"training": [], "test": []}
    for part, count in (("training", 3), ("test", 2)):
        for index in range(count):
            item = {"image": f"{part}{index}{ending}", "label": f"{part}{index}_mask{label_ending or ending}"}
            write_image(folder / item["image"])
            write_label(folder / item["label"])
            listed[part].append(item)
    described = {"labels": {"0": "background", "1": "disk"}, **listed, **described}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def reading(folder, **given):
    return read_dataset(open_dataset(folder), **given)


def test_what_was_seen_is_remembered_and_an_unchanged_file_is_not_read_again(tmp_path, monkeypatch):
    folder, saved = folder_of(tmp_path / "set"), tmp_path / "data.json"
    first = reading(folder)
    image, label = first.training[:2]
    assert (image.path, image.mode, image.shape, image.frame) == (
        "training0.png",
        "PNG, L, uint8",
        (1, 8, 6),
        "picture",
    )
    assert label.values == {"0": 24, "1": 24}
    assert image.bytes == os.path.getsize(folder / image.path)
    assert len(image.digest) == len(image.content) == 64
    first.keep(saved)
    assert DataReading.load(saved) == first
    monkeypatch.setattr("monai_ccnet.data.facts._read", lambda *_: pytest.fail("read again"))
    assert reading(folder, saved=saved) == first


def test_an_untouched_data_json_is_not_written_again(tmp_path):
    first = reading(folder_of(tmp_path / "set"))
    first.keep(tmp_path / "data.json")
    written = os.stat(tmp_path / "data.json").st_mtime_ns
    first.keep(tmp_path / "data.json")
    assert os.stat(tmp_path / "data.json").st_mtime_ns == written


def test_a_moved_set_is_the_same_and_a_changed_one_is_named(tmp_path):
    folder = folder_of(tmp_path / "set")
    first = reading(folder)
    moved = tmp_path / "elsewhere" / "set"
    moved.parent.mkdir()
    folder.rename(moved)
    assert reading(moved).digest == first.digest
    assert reading(moved).differences(first) is None
    picture(moved / "training1.png")
    picture(moved / "test0.png")
    assert reading(moved).differences(first) == "2 of 10 files have changed since, such as test0.png"
    described = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps({**described, "test": described["test"][:1]}))
    (moved / "training1.png").unlink()
    picture(moved / "training1.png")
    assert "have changed since" in reading(moved).differences(first)


def test_files_that_come_and_go_are_named(tmp_path):
    folder = folder_of(tmp_path / "set")
    first = reading(folder)
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**described, "test": described["test"][:1]}))
    fewer = reading(folder)
    assert fewer.differences(first) == "2 of 10 files are no longer listed, such as test1.png"
    assert first.differences(fewer) == "2 files are new, such as test1.png"
    (folder / "dataset.json").write_text(json.dumps({**described, "labels": ["a", "b", "c"]}))
    assert reading(folder).differences(first) == "files are in other parts, or the classes or their values are others"
    (folder / "dataset.json").write_text(json.dumps({**described, "name": "other"}))
    assert reading(folder).differences(first) == "the data set was 'set' and is 'other'"


def test_masks_of_0_and_255_are_refused_with_the_remedy_and_mapped(tmp_path):
    folder = folder_of(tmp_path / "set", write_label=lambda path: mask(path, 255))
    with pytest.raises(
        ValueError, match=r'holds 255, and dataset.json declares 0 to 1: give --label_values "{0: 0, 255'
    ):
        reading(folder)
    mapped = reading(folder, label_values={0: 0, 255: 1})
    assert mapped.training[1].values == {"0": 24, "1": 24}
    assert mapped.digest != reading(folder_of(tmp_path / "other" / "set")).digest
    assert mapped.label_values == {"0": 0, "255": 1}


def test_a_mask_saved_as_jpeg_is_refused_as_such(tmp_path):
    folder = folder_of(tmp_path / "set", write_label=lambda path: mask(path, 255), label_ending=".jpg")
    with pytest.raises(ValueError, match="which changes the class numbers of a label: save it as PNG"):
        reading(folder, label_values={0: 0, 255: 1})


def shifted(affine, x):
    moved = affine.copy()
    moved[0, 3] += x
    return moved


FLIPPED = np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (FLIPPED, r"6 x 8 x 4, LAS, 1 x 1 x 1 mm, origin 5, 0, 0.*6 x 8 x 4, RAS, 1 x 1 x 1 mm, origin 0, 0, 0"),
        (np.diag([1.0, 1, 2, 1]), "1 x 1 x 2 mm"),
        (shifted(np.eye(4), 0.01), r"up to 0\.01 voxels apart"),
    ],
)
def test_a_label_elsewhere_than_its_image_is_refused_with_both_grids(affine, message, tmp_path):
    def label(path):
        volume(path, affine, np.eye(6, 8)[..., None] * np.ones(4, np.float32))

    folder = folder_of(tmp_path / "set", volume, label, ".nii.gz")
    with pytest.raises(ValueError, match=rf"training0_mask\.nii\.gz lies on another grid .*{message}"):
        reading(folder)


def test_a_thousandth_of_a_voxel_is_the_same_grid(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    near = shifted(affine, 0.0015)
    folder = folder_of(
        tmp_path / "set",
        lambda path: volume(path, affine),
        lambda path: volume(path, near, np.eye(6, 8)[..., None] * np.ones(4, np.float32)),
        ".nii.gz",
    )
    assert reading(folder).training[0].orientation == "RAS"


def test_a_picture_beside_a_volume_is_refused_and_beside_an_array_read_alike(tmp_path):
    def flat(path):
        nibabel.save(nibabel.Nifti1Image((np.indices((8, 6))[1] > 2).astype(np.uint8), np.eye(4)), path)

    folder = folder_of(tmp_path / "set", write_label=flat, label_ending=".nii")
    with pytest.raises(ValueError, match=r"is a volume \(NIfTI.* a picture \(PNG.*: how one lies on the other"):
        reading(folder)
    rows = np.indices((6, 8))[0] > 2
    both = folder_of(tmp_path / "both", write_label=lambda path: np.save(path, rows), label_ending=".npy")
    assert reading(both).training[1].content == reading(folder_of(tmp_path / "png")).training[1].content


def test_the_same_image_in_training_and_test_is_refused_in_whatever_form(tmp_path):
    folder = folder_of(tmp_path / "set")
    Image.open(folder / "training2.png").save(folder / "test1.png")
    with pytest.raises(
        ValueError, match=r"1 of 2 test images are in training or validation too, such as test1\.png as training2\.png"
    ):
        reading(folder)
    assert (
        reading(folder, allow_overlap=True).images("test")[1].content
        == reading(folder, allow_overlap=True).images()[2].content
    )
    picture(folder / "test1.png", 7)
    picture(folder / "training2.png", 7)
    assert reading(folder)  # images of one value say nothing

    array = RNG.normal(size=(6, 8, 4)).astype(np.float32)
    arrays = iter([array, *RNG.normal(size=(2, 6, 8, 4)).astype(np.float32), array[::-1], array + 1])

    def image(path):
        turned = path.name == "test0.nii"
        volume(path, FLIPPED if turned else np.eye(4), next(arrays))

    def label(path):
        turned = path.name == "test0_mask.nii"
        volume(path, FLIPPED if turned else np.eye(4), np.eye(6, 8)[..., None] * np.ones(4, np.float32))

    volumes = folder_of(tmp_path / "volumes", image, label, ".nii")
    with pytest.raises(ValueError, match=r"such as test0\.nii as training0\.nii"):
        reading(volumes)


def test_images_as_lists_of_files_are_checked_too(tmp_path):
    folder = folder_of(tmp_path / "set", write_label=lambda path: mask(path, 255))
    described = json.loads((folder / "dataset.json").read_text())
    for part in ("training", "test"):
        for item in described[part]:
            item["image"] = [item["image"]] * 2
    (folder / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="holds 255"):
        reading(folder)
    assert reading(folder, label_values={255: 1}).training[0].shape == (2, 8, 6)


def test_uneven_spacing_is_said_with_the_remedy(tmp_path):
    spacings = iter([(1, 1, 1), (1, 1, 1), (1, 1, 1.5), (1, 1, 1.5)] + [(1, 1, 1)] * 6)

    def image(path):
        volume(path, np.diag([*next(spacings), 1.0]))

    def label(path):
        volume(path, np.diag([*next(spacings), 1.0]), np.eye(6, 8)[..., None] * np.ones(4, np.float32))

    read = reading(folder_of(tmp_path / "set", image, label, ".nii"))
    assert "1 to 1.5 mm large" in str(read)
    assert "all are resampled to 1.0 x 1.0 x 1.0 mm, unless --spacing says otherwise" in str(read)
    assert common_spacing(read) == [1, 1, 1]
    check_resampled(read, [1, 1, 1.25])
    with pytest.raises(ValueError, match="one length above 0 for each of 3 axes, got"):
        check_resampled(read, [1, 1])
    with pytest.raises(ValueError, match="makes 1,000,000 voxels of each one: give it in millimetres"):
        check_resampled(read, [0.01, 0.01, 0.01])
    oblique = np.array([[0.64, 0.77, 0.03], [0.47, -0.42, 0.78], [0.61, -0.49, -0.63]])  # two axes lead right
    turned = replace(read.training[0], affine=(*((*row, 0.0) for row in oblique * (1, 1, 3)), (0.0, 0.0, 0.0, 1.0)))
    both = replace(read, training=(turned, *read.training[1:]))
    assert len(common_spacing(both)) == 3
    flat = reading(folder_of(tmp_path / "flat"))
    assert common_spacing(flat) is None
    check_resampled(flat, None)
    with pytest.raises(ValueError, match=r"spacing=\[1, 1\] needs volumes, and a picture has no size of a pixel"):
        check_resampled(flat, [1, 1])


def test_without_labels_in_the_test_part_a_fifth_of_training_is_held_out(tmp_path):
    folder = folder_of(tmp_path / "set", test=["test0.png", "test1.png"])
    data = open_dataset(folder)
    assert [len(part) for part in (data.training, data.test, data.unlabelled)] == [2, 1, 2]
    assert "1 of 3 training images, chosen by image, are held out and scored" in str(read_dataset(data))
    described = json.loads((folder / "dataset.json").read_text())
    for without in ({"test": []}, {"test": None}):
        (folder / "dataset.json").write_text(json.dumps({**described, **without}))
        assert [len(part) for part in (open_dataset(folder).training, open_dataset(folder).test)] == [2, 1]
    check_scorable(reading(folder))
    (folder / "dataset.json").write_text(json.dumps({**described, "training": described["training"][:1]}))
    with pytest.raises(ValueError, match="no test image with a label, and a single training image"):
        check_scorable(reading(folder))


def test_a_subject_is_held_out_as_a_whole_and_always_the_same():
    items = [{"image": f"{who}_{scan}.png", "label": "", "subject": who} for who in range(10) for scan in range(3)]
    training, held, words = hold_out(items, ".")
    assert len(held) == 6
    assert not {item["subject"] for item in training} & {item["subject"] for item in held}
    assert "chosen by subject" in words
    assert hold_out(items[::-1], ".")[1] == held[::-1]
    nameless = [{key: item[key] for key in ("image", "label")} for item in items]
    by_name = hold_out(nameless, ".", "file_name")[1]
    assert len({item["image"].split("_")[0] for item in by_name}) == 2
    assert len(by_name) == 6
    with pytest.raises(ValueError, match="needs a `subject` in each training item; 30 lack it"):
        hold_out(nameless, ".", "subject")
    with pytest.raises(ValueError, match="must be 'auto', 'subject', 'file_name' or 'image', got 'patient'"):
        hold_out(items, ".", "patient")


def test_test_labels_without_foreground_cannot_be_scored(tmp_path):
    folder = folder_of(tmp_path / "set")
    for index in range(2):
        mask(folder / f"test{index}_mask.png", 0)
    with pytest.raises(ValueError, match="none of the 2 test labels of 'set' holds any foreground"):
        check_scorable(reading(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": [{"image": "a.png"}]}, r"`training` lists .* each entry must be"),
        ({"training": ["a.png"]}, r"`training` lists 'a\.png': each entry must be"),
        ({"test": [{"label": "a.png"}]}, "`test` lists"),
        ({"labels": {"0": "background", "255": "disk"}}, "renumber them, and map the values in the masks"),
        ({"labels": None}, "has no `labels`"),
        ({"labels": {"background": 0, "disk": 2}}, "numbered from 0 on"),
    ],
)
def test_a_list_that_says_too_little_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_dataset(folder_of(tmp_path / "set", **change))


def test_a_byte_order_mark_and_labels_by_name_are_read(tmp_path):
    folder = folder_of(tmp_path / "set", labels={"background": 0, "disk": 1})
    file = folder / "dataset.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert open_dataset(folder).labels == ("background", "disk")


def test_images_of_another_kind_are_refused_by_name(tmp_path):
    folder = folder_of(tmp_path / "set")
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(folder / "training1.png")
    with pytest.raises(ValueError, match=r"training1\.png has 3 channels and 2 axes and training0\.png has 1 channels"):
        reading(folder)


def test_both_files_of_a_pair_belong_to_the_image(tmp_path):
    def pair(path):
        nibabel.save(nibabel.Nifti1Pair(RNG.normal(size=(6, 8, 4)).astype(np.float32), np.eye(4)), path)

    def label(path):
        volume(path, None, np.eye(6, 8)[..., None] * np.ones(4, np.float32))

    folder = folder_of(tmp_path / "set", pair, label, ".hdr", ".nii")
    first = reading(folder)
    assert first.training[0].bytes > 4 * 6 * 8 * 4
    content = bytearray((folder / "training0.img").read_bytes())
    content[0] ^= 1
    (folder / "training0.img").write_bytes(content)
    assert reading(folder).differences(first) == "1 of 10 files have changed since, such as training0.hdr"


def test_the_files_that_a_header_names(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"")
    (tmp_path / "a.mhd").write_text("NDims = 3\nElementDataFile = a.raw\n")
    (tmp_path / "b.nhdr").write_text("NRRD0004\ndata file: a.raw\n")
    assert files_of(tmp_path / "a.mhd") == [str(tmp_path / "a.mhd"), str(tmp_path / "a.raw")]
    assert files_of(tmp_path / "b.nhdr") == [str(tmp_path / "b.nhdr"), str(tmp_path / "a.raw")]
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"")
    assert files_of(tmp_path / "series") == [str(tmp_path / "series" / "1.dcm")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": [{"image": "training0.png", "label": "training0.png"}]}, "as an image and as its own label"),
        (
            {"training": [{"image": "training0.png", "label": "training0_mask.png"}] * 2},
            "is listed twice in `training`",
        ),
        ({"training": [{"image": "", "label": "training0_mask.png"}]}, "each entry must be"),
        ({"validation": "training0.png"}, "`validation` must be a list, got 'training0.png'"),
        ({"labels": {"0": "background", "1": {"name": "disk"}}}, "`labels` must be names of classes, got"),
        ({"labels": {"0": "background", "1": None}}, "`labels` must be names of classes, got None"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reading(folder_of(tmp_path / "set", **change))


def test_a_key_that_is_there_twice_and_a_list_that_is_no_json_are_to_be_corrected(tmp_path):
    folder = folder_of(tmp_path / "set")
    file = folder / "dataset.json"
    text = file.read_text()
    file.write_text(text.replace('"training"', '"test": [], "training"', 1))
    with pytest.raises(ValueError, match=r"dataset\.json is not valid JSON \('test' is there twice\): correct it"):
        open_dataset(folder)
    file.write_text(text[:-2])
    with pytest.raises(ValueError, match=r"dataset\.json is not valid JSON .*: correct it"):
        open_dataset(folder)


def test_a_subject_in_training_and_test_is_refused(tmp_path):
    folder = folder_of(tmp_path / "set")
    described = json.loads((folder / "dataset.json").read_text())
    for part in ("training", "test"):
        for index, item in enumerate(described[part]):
            item["subject"] = index
    (folder / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="2 subjects are in training and in test, such as '0'"):
        reading(folder)
    assert reading(folder, allow_overlap=True)


def test_training_labels_without_foreground_teach_nothing(tmp_path):
    folder = folder_of(tmp_path / "set")
    check_trainable(reading(folder))
    for index in range(3):
        mask(folder / f"training{index}_mask.png", 0)
    with pytest.raises(ValueError, match="none of the 3 training labels of 'set' holds any foreground"):
        check_trainable(reading(folder))


def test_a_declared_class_that_no_label_holds_is_said(tmp_path):
    read = reading(folder_of(tmp_path / "set", labels={"0": "background", "1": "disk", "2": "rare"}))
    assert read.notes == [
        "No training label holds rare, which cannot be learned.",
        "No test label holds rare, which is not scored.",
    ]
    assert str(read).endswith("\n".join(read.notes))
    assert reading(folder_of(tmp_path / "whole")).notes == []
