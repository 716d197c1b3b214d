"""nnU-Net data sets: classes and lists as nnU-Net itself reads them, and what is refused."""

import json
import multiprocessing.dummy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms.io.array import LoadImage
from PIL import Image

from monai_ccnet.data.nnunet import is_nnunet, nnunet_parts

DESCRIBED = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "tumour": 2, "organ": 1},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
NATURAL = {
    "channel_names": {"0": "R", "1": "G", "2": "B"},
    "labels": {"background": 0, "road": 1},
    "numTraining": 3,
    "file_ending": ".png",
}


def write(path, rng, shape=(5, 4, 3)):
    """Write an image of random values, whose axes all differ in length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = rng.integers(0, 255 if "images" in path.parent.name else 2, shape).astype(np.uint8)
    if path.name.endswith(".png"):
        Image.fromarray(values).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.5, 1, 2, 1])), path)


@pytest.fixture
def volumes(tmp_path):
    """Three training cases of two channels, and two test cases, one with a label."""
    rng, folder = np.random.default_rng(0), tmp_path / "Dataset001_Volumes"
    for part, case in [("Tr", "c"), ("Tr", "a"), ("Tr", "b"), ("Ts", "d"), ("Ts", "e")]:
        for channel in range(2):
            write(folder / f"images{part}" / f"{case}_000{channel}.nii.gz", rng)
        if case != "e":
            write(folder / f"labels{part}" / f"{case}.nii.gz", rng)
    (folder / "dataset.json").write_text(json.dumps(DESCRIBED))
    return folder


@pytest.fixture
def photographs(tmp_path):
    """Three training cases of one RGB file each; no test cases. The names are hard to tell apart or to order."""
    rng, folder = np.random.default_rng(0), tmp_path / "Dataset120_Photographs"
    for case in ("a", "a_0000", "a-b"):
        write(folder / "imagesTr" / f"{case}_0000.png", rng, (5, 4, 3))
        write(folder / "labelsTr" / f"{case}.png", rng, (5, 4))
    (folder / "dataset.json").write_text(json.dumps(NATURAL))
    return folder


@pytest.fixture
def elsewhere(volumes):
    """A data set that lists the training cases of another one, by relative paths and a variable."""
    folder = volumes.parent / "Dataset002_Elsewhere"
    folder.mkdir()
    root = f"../{volumes.name}"
    listed = {
        case: {
            "images": [f"{root}/imagesTr/{case}_000{i}.nii.gz" for i in range(2)],
            "label": f"{base}/labelsTr/{case}.nii.gz",
        }
        for case, base in [("b", root), ("a", "$VOLUMES"), ("c", str(volumes))]
    }
    (folder / "dataset.json").write_text(json.dumps({**DESCRIBED, "dataset": listed}))
    return folder


def read(folder):
    described = json.loads((folder / "dataset.json").read_text())
    return nnunet_parts(folder, described)


def test_an_nnunet_list_is_told_from_a_decathlon_list():
    assert is_nnunet(DESCRIBED)
    assert is_nnunet({**DESCRIBED, "dataset": {}, "training": 3})
    assert not is_nnunet({**DESCRIBED, "training": [{"image": "a.png", "label": "b.png"}]})
    assert not is_nnunet({"channel_names": {"0": "CT"}})
    first_version = {
        "modality": {"0": "CT"},
        "labels": {"0": "background"},
        "training": [{"image": "./imagesTr/a.nii"}],
    }
    assert not is_nnunet(first_version)


def test_channels_in_files_of_their_own(volumes):
    names, parts = read(volumes)
    assert names == ["background", "organ", "tumour"]
    assert [len(parts[part]) for part in ("training", "validation", "test")] == [3, 0, 2]
    assert parts["training"][0] == {
        "image": [f"{volumes}/imagesTr/a_0000.nii.gz", f"{volumes}/imagesTr/a_0001.nii.gz"],
        "label": f"{volumes}/labelsTr/a.nii.gz",
    }
    assert [Path(item["label"]).name for item in parts["training"]] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert parts["test"][0]["label"] == f"{volumes}/labelsTs/d.nii.gz"
    assert "label" not in parts["test"][1]


def test_channels_in_one_file(photographs):
    names, parts = read(photographs)
    assert names == ["background", "road"]
    assert parts["training"][0] == {
        "image": f"{photographs}/imagesTr/a_0000.png",
        "label": f"{photographs}/labelsTr/a.png",
    }
    assert parts["validation"] == parts["test"] == []


def test_cases_listed_elsewhere(volumes, elsewhere, monkeypatch):
    monkeypatch.setenv("VOLUMES", str(volumes))
    assert read(elsewhere)[1]["training"] == read(volumes)[1]["training"]


def test_paths_are_absolute_and_files_of_others_are_passed_over(volumes, monkeypatch):
    parts = read(volumes)
    for name in (".DS_Store.nii.gz", "._a_0000.nii.gz", "a.json"):
        (volumes / "imagesTr" / name).touch()
    (volumes / "labelsTr" / "._a.nii.gz").touch()
    monkeypatch.chdir(volumes.parent)
    assert nnunet_parts(volumes.name, DESCRIBED) == parts


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "defines regions.*remove `regions_class_order`"),
        ({"regions_class_order": [1, 2]}, "defines regions.*remove `regions_class_order`"),
        ({"labels": {"background": 0, "organ": 1, "ignore": 2}}, "has the label `ignore`.*remove `ignore`"),
        ({"labels": {"background": 0, "organ": 2}}, "numbered 0, 1, 2 and so on.*renumber"),
        ({"labels": {"background": 0, "organ": 1, "twin": 1}}, "numbered 0, 1, 2 and so on.*renumber"),
        ({"labels": {"background": 0, "organ": "1"}}, "numbered 0, 1, 2 and so on.*renumber"),
        ({"labels": {"organ": 0, "tumour": 1}}, "numbered 0, 1, 2 and so on, `background` 0"),
        ({"labels": {"organ": 0, "background": 1}}, "numbered 0, 1, 2 and so on, `background` 0"),
        ({"labels": {"background": 0}}, "numbered 0, 1, 2 and so on"),
        ({"labels": {"0": "background", "1": "organ"}}, "numbered 0, 1, 2 and so on"),
        ({"labels": ["background", "organ"]}, "must be names with their numbers, as in"),
        ({"file_ending": "nii.gz"}, r"must begin with a dot, as in \.nii\.gz or \.png, got 'nii\.gz'"),
        ({"file_ending": None}, "must begin with a dot"),
        ({"channel_names": ["T1", "T2"]}, r'must be as in \{"0": "T1", "1": "T2"\}, got'),
        ({"channel_names": {"0": "T1"}}, "has 1 entries, so every case needs 1 image file, but a has 2 and 4 more"),
        ({"channel_names": {"0": "T1", "1": "T2", "2": "T3"}}, "has 3 entries, so every case needs 3 image files"),
        ({"numTraining": 4}, "is 4, but there are 3 training cases: correct the number"),
        ({"file_ending": ".mha"}, r"has no training case: put images into imagesTr, named as in case_0000\.mha"),
        ({"file_ending": ".gz"}, "has no channel of four digits before its ending: rename it as in"),
        ({"dataset": {}}, "has no training case"),
        ({"dataset": ["a"]}, "must name cases, as in"),
        ({"dataset": {"a": ["a.png"]}}, "case a in `dataset` of .* must be as in"),
        ({"dataset": {"a": {"images": "a.png", "label": "a.png"}}}, "case a in `dataset` of .* must be as in"),
        ({"dataset": {"a": {"images": ["a.png"]}}}, "case a in `dataset` of .* must be as in"),
        (
            {"dataset": {"a": {"images": ["a.png"], "label": "b.png"}}},
            "the image .*a.png in `dataset` of .* is missing",
        ),
    ],
)
def test_descriptions_that_are_refused(changed, message, volumes):
    with pytest.raises(ValueError, match=message) as refusal:
        nnunet_parts(volumes, {**DESCRIBED, **changed})
    assert str(volumes / "dataset.json") in str(refusal.value)


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("labelsTr/b.nii.gz", None, r"the label .*b\.nii\.gz of a training case of .* is missing: add it, or remove"),
        ("imagesTr/b_0001.nii.gz", None, r"every case needs 2 image files, but b has 1: add or remove files"),
        ("imagesTs/d_0001.nii.gz", None, r"every case needs 2 image files, but d has 1: add or remove files"),
        ("imagesTr/b_0000.nii.gz", None, r"case b beside .* has the files b_0001\.nii\.gz in imagesTr: their channels"),
        ("imagesTr/b_0001.nii.gz", "imagesTr/b_0002.nii.gz", r"has the files b_0000\.nii\.gz, b_0002\.nii\.gz"),
        (None, "imagesTr/b_1.nii.gz", r"imagesTr/b_1\.nii\.gz beside .* has no channel of four digits"),
        (
            None,
            "labelsTr/f.nii.gz",
            r"labelsTr/f\.nii\.gz beside .* has no image in imagesTr: add the image, or remove",
        ),
        (
            None,
            "labelsTs/f.nii.gz",
            r"labelsTs/f\.nii\.gz beside .* has no image in imagesTs: add the image, or remove",
        ),
    ],
)
def test_files_that_are_missing_or_left_over(removed, added, message, volumes):
    if removed:
        (volumes / removed).unlink()
    if added:
        (volumes / added).touch()
    with pytest.raises(ValueError, match=message) as refusal:
        read(volumes)
    assert str(volumes / "dataset.json") in str(refusal.value)


def test_labels_missing_where_they_are_listed(volumes, elsewhere, monkeypatch):
    monkeypatch.setenv("VOLUMES", str(volumes / "moved"))
    with pytest.raises(ValueError, match=r"the label .*moved.labelsTr.a\.nii\.gz of a training case of .* is missing"):
        read(elsewhere)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The published package, with threads instead of processes to list files."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    from nnunetv2.utilities import utils

    monkeypatch.setattr(utils, "Pool", multiprocessing.dummy.Pool)
    return utils


@pytest.mark.parametrize("kind", ["volumes", "photographs", "elsewhere"])
def test_cases_and_labels_are_those_of_the_published_package(kind, published, request, monkeypatch):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    folder = request.getfixturevalue(kind)
    monkeypatch.setenv("VOLUMES", str(folder.parent / "Dataset001_Volumes"))
    theirs = published.get_filenames_of_train_images_and_targets(str(folder))
    names, parts = read(folder)
    ours = {
        Path(item["label"]).name.split(".")[0]: (np.atleast_1d(item["image"]).tolist(), item["label"])
        for item in parts["training"]
    }
    assert ours == {case: (list(files["images"]), files["label"]) for case, files in theirs.items()}
    assert list(ours) == sorted(theirs)
    described = json.loads((folder / "dataset.json").read_text())
    manager = LabelManager(described["labels"], described.get("regions_class_order"))
    assert manager.all_labels == list(range(len(names)))
    assert [described["labels"][name] for name in names[1:]] == manager.foreground_labels


@pytest.mark.parametrize(
    ("kind", "reader", "shape"),
    [
        ("volumes", None, (2, 5, 4, 3)),  # SimpleITKIO
        ("volumes", "NibabelIO", (2, 5, 4, 3)),
        ("photographs", None, (3, 4, 5)),  # NaturalImage2DIO
    ],
)
@pytest.mark.usefixtures("published")
def test_monai_reads_of_our_paths_what_the_published_readers_read(kind, reader, shape, request):
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    folder = request.getfixturevalue(kind)
    described = json.loads((folder / "dataset.json").read_text())
    if reader:
        described["overwrite_image_reader_writer"] = reader
    their_reader = determine_reader_writer_from_dataset_json(described, verbose=False)()
    load = LoadImage(image_only=True, ensure_channel_first=True)
    for item in read(folder)[1]["training"]:
        image, label = load(item["image"]), load(item["label"])
        assert image.shape == shape
        assert label.shape == (1, *shape[1:])
        for ours, (theirs, properties) in [
            (image, their_reader.read_images(np.atleast_1d(item["image"]).tolist())),
            (label, their_reader.read_seg(item["label"])),
        ]:
            # theirs is (C, Z, Y, X), Z = 1 for images of two axes; MONAI's is (C, X, Y, Z) or (C, X, Y)
            flipped = theirs.transpose(0, 3, 2, 1)
            assert np.array_equal(np.asarray(ours), flipped if ours.ndim == 4 else flipped[..., 0])
            if ours.ndim == 4:
                assert np.allclose(ours.pixdim, properties["spacing"][::-1])
