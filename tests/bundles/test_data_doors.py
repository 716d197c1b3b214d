"""Files as others bring them, through the jobs of the bundle: the right result, or one clear refusal."""

import csv
import itertools
import json
import shutil

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from filelock import FileLock
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from monai_ccnet.__main__ import main
from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.records import TrialRecord

TINY = ["--max_epochs", "4", "--epoch_length", "10", "--channels", "[6,8]", "--learning_rate", "0.01"]
FLAT = [*TINY, "--patch_size", "[32,32]", "--pictures", "False"]
DEEP = [*TINY, "--patch_size", "[16,16,8]", "--pictures", "False"]
TRAIN = [*TINY, "--patch_size", "[32,32]"]


def disc(index):
    """Return noise with a bright disc, rows first, and its mask."""
    rows, columns = np.mgrid[:48, :40]
    mask = ((rows - 16 - 4 * index) ** 2 + (columns - 24 + 2 * index) ** 2 < 81).astype(np.uint8)
    return (40 + 120 * mask + np.random.default_rng(index).integers(0, 30, mask.shape)).astype(np.uint8), mask


def ball(index, shape=(20, 24, 12)):
    """Return noise with a bright ellipsoid, that also rises along x, and its mask."""
    grid, rng = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")), np.random.default_rng(index)
    centre = (rng.uniform(0.4, 0.6, 3) * shape).reshape(3, 1, 1, 1)
    mask = ((grid - centre) ** 2 / np.reshape([30, 20, 9], (3, 1, 1, 1))).sum(axis=0) < 1
    return (40 + 120 * mask + rng.integers(0, 30, shape) + grid[0]).astype(np.int16), mask.astype(np.uint8)


def save_picture(path, pixels):
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels)
    elif path.suffix == ".nii" or path.name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(pixels.T, np.eye(4)), path)
    elif path.suffix == ".npy":
        np.save(path, pixels)
    elif pixels.dtype == np.uint16:
        cv2.imwrite(str(path), pixels)
    else:
        Image.fromarray(pixels).save(path)


AFFINE = np.array([[1.0, 0, 0, -10], [0, 1.2, 0, 5], [0, 0, 2, 7], [0, 0, 0, 1]])


def save_volume(path, voxels):
    if path.suffix == ".nrrd":
        nrrd = pytest.importorskip("nrrd")
        header = {"space": "RAS", "space directions": AFFINE[:3, :3].T, "space origin": AFFINE[:3, 3]}
        nrrd.write(str(path), voxels, header)
        return
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path if path.suffix != ".mha" else path.with_suffix(".nii"))
    if path.suffix == ".mha":
        itk = pytest.importorskip("itk")
        itk.imwrite(itk.imread(str(path.with_suffix(".nii"))), str(path))
        path.with_suffix(".nii").unlink()


def make(
    folder, made=disc, save=save_picture, ending=".png", label_ending=None, as_image=None, as_label=None, **described
):
    """Write a set of two training and two test images, and return its folder."""
    index, listed = 0, {"training": [], "test": []}
    for part, suffix in (("training", "Tr"), ("test", "Ts")):
        for _ in range(2):
            item = {}
            for what, array, change, kind in zip(
                ("image", "label"), made(index), (as_image, as_label), (ending, label_ending or ending), strict=True
            ):
                item[what] = f"{what}s{suffix}/c{index}{kind}"
                (folder / item[what]).parent.mkdir(parents=True, exist_ok=True)
                save(folder / item[what], array if change is None else change(array))
            index += 1
            listed[part].append(item)
    described = {"name": "made", "labels": {"0": "background", "1": "disc"}, **listed, **described}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def run(verb, dataset_dir, output_dir, *words):
    return main([verb, "--dataset_dir", str(dataset_dir), "--output_dir", str(output_dir), *words])


def score(output_dir):
    return TrialRecord.load(output_dir / "record.json").scores["f1"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return make(tmp_path_factory.mktemp("flat") / "set")


@pytest.fixture(scope="module")
def compressed(flat, tmp_path_factory):
    """A set of pictures and the folder of a run on it, to be copied before anything is changed."""
    output_dir = tmp_path_factory.mktemp("flat_run") / "output"
    assert run("compress", flat, output_dir, *FLAT) == 0
    return output_dir


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return make(tmp_path_factory.mktemp("deep") / "set", ball, save_volume, ".nii.gz")


@pytest.fixture(scope="module")
def compressed_3d(deep, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("deep_run") / "output"
    assert run("compress", deep, output_dir, *DEEP) == 0
    return output_dir


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


# Formats: the table in the docs


FORMATS = {
    "PNG": (".png", None),
    "BMP": (".bmp", None),
    "TIFF": (".tif", None),
    "PNG of 16 bits": (".png", lambda pixels: pixels.astype(np.uint16) * 257),
    "TIFF of 16 bits": (".tif", lambda pixels: pixels.astype(np.uint16)),
    "TIFF of floating point": (".tif", lambda pixels: pixels.astype(np.float32)),
    "NIfTI, 2-D": (".nii.gz", None),
    "NPY": (".npy", None),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_of_pictures_gives_the_same_profile_score_and_segmentations(name, flat, compressed, tmp_path):
    ending, as_image = FORMATS[name]
    data = make(tmp_path / "set", ending=ending, as_image=as_image)
    assert run("compress", data, tmp_path / "output", *FLAT) == 0
    expected, found = (ComplexityProfile.load(each / "complexity.json") for each in (compressed, tmp_path / "output"))
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert score(tmp_path / "output") == pytest.approx(score(compressed), abs=0.02)
    output_dir = copied(compressed, tmp_path)  # of the network that the PNG files trained
    assert run("infer", flat, output_dir) == 0
    expected = [segmentation(output_dir / "predictions" / f"c{index}_seg.png") for index in (2, 3)]
    assert run("infer", data, output_dir) == 0
    for index, answer in zip((2, 3), expected, strict=True):
        assert np.array_equal(segmentation(output_dir / "predictions" / f"c{index}_seg{ending}"), answer)
        mask = disc(index)[1]
        assert 2 * (answer * mask).sum() / (answer.sum() + mask.sum()) > 0.8


def segmentation(path):
    """Return a segmentation, rows first."""
    if path.name.endswith(".nii.gz"):
        return np.asarray(nibabel.load(path).dataobj).T
    return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))


def test_jpeg_images_with_png_labels(compressed, tmp_path):
    data = make(tmp_path / "set", ending=".jpg", label_ending=".png")
    assert run("compress", data, tmp_path / "output", *FLAT) == 0
    assert score(tmp_path / "output") == pytest.approx(score(compressed), abs=0.05)
    assert run("infer", data, tmp_path / "output") == 0
    assert sorted(path.name for path in (tmp_path / "output" / "predictions").iterdir()) == ["c2_seg.png", "c3_seg.png"]


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_a_format_of_volumes_gives_the_same_profile_and_segmentations(ending, deep, compressed_3d, tmp_path):
    data = make(tmp_path / "set", ball, save_volume, ending)
    assert run("measure", data, tmp_path / "measured", "--measure", "jpeg") == 0
    assert run("measure", deep, tmp_path / "expected", "--measure", "jpeg") == 0
    expected, found = (ComplexityProfile.load(tmp_path / each / "complexity.json") for each in ("expected", "measured"))
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    output_dir = copied(compressed_3d, tmp_path)
    assert run("infer", deep, output_dir) == 0
    assert run("infer", data, output_dir) == 0
    from monai_ccnet.data.images import read_stored

    for index in (2, 3):
        expected, found, image = (
            read_stored(path)
            for path in (
                output_dir / f"predictions/c{index}_seg.nii.gz",
                output_dir / f"predictions/c{index}_seg{ending}",
                data / f"imagesTs/c{index}{ending}",
            )
        )
        assert np.array_equal(found.array, expected.array)
        assert np.allclose(found.affine, image.affine, atol=1e-5)
        assert found.array.shape == image.array.shape


# Where things lie


def test_forty_eight_orientations_are_one_segmentation_and_one_profile(deep, compressed_3d, tmp_path):
    output_dir, images = copied(compressed_3d, tmp_path), tmp_path / "turned" / "imagesTs"
    images.mkdir(parents=True)
    stored = nibabel.load(deep / "imagesTs" / "c2.nii.gz")
    pairs = [("LR", "PA", "IS")[axis] for axis in range(3)]
    codes = ["".join(code) for order in itertools.permutations(pairs) for code in itertools.product(*order)]
    assert len(codes) == 48
    for code in codes:
        turned = stored.as_reoriented(ornt_transform(io_orientation(stored.affine), axcodes2ornt(code)))
        nibabel.save(turned, images / f"{code}.nii.gz")
    assert run("infer", tmp_path / "turned", output_dir) == 0
    expected = None
    for code in codes:
        found = nibabel.load(output_dir / "predictions" / f"{code}_seg.nii.gz")
        image = nibabel.load(images / f"{code}.nii.gz")
        assert found.shape == image.shape
        assert np.allclose(found.affine, image.affine)
        in_world = np.asarray(nibabel.as_closest_canonical(found).dataobj)
        expected = in_world if expected is None else expected
        assert np.array_equal(in_world, expected), code
    assert expected.any()


def test_a_set_stored_in_other_orientations_trains_the_same_network(deep, compressed_3d, tmp_path):
    data = shutil.copytree(deep, tmp_path / "set")
    for number, path in enumerate(sorted((data / "imagesTr").iterdir())):
        code = ("LPS", "SAL")[number]
        for each in (path, data / "labelsTr" / path.name):
            stored = nibabel.load(each)
            turned = stored.as_reoriented(ornt_transform(io_orientation(stored.affine), axcodes2ornt(code)))
            nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), each)
    assert run("compress", data, tmp_path / "output", *DEEP) == 0
    expected, found = (torch.load(each / "model.pt") for each in (compressed_3d, tmp_path / "output"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    profiles = [ComplexityProfile.load(each / "complexity.json") for each in (compressed_3d, tmp_path / "output")]
    assert profiles[0].mean == profiles[1].mean


def test_a_turned_photograph_is_learned_as_it_is_seen(compressed, tmp_path):
    def turned(path, pixels):
        exif = Image.Exif()
        if path.parent.name.startswith("images"):
            exif[274], pixels = 3, pixels[::-1, ::-1]
        Image.fromarray(pixels).save(path, exif=exif)

    data = make(tmp_path / "set", save=turned)
    assert run("compress", data, tmp_path / "output", *FLAT) == 0
    assert score(tmp_path / "output") == pytest.approx(score(compressed))


@pytest.mark.parametrize("verb", ["compress", "train", "measure", "evaluate"])
def test_a_mirrored_label_is_refused_at_every_door(verb, deep, tmp_path, capsys):
    data = shutil.copytree(deep, tmp_path / "set")
    path = data / "labelsTs" / "c2.nii.gz"
    voxels, affine = np.asarray(nibabel.load(path).dataobj), np.diag([-1.0, 1, 1, 1]) @ AFFINE
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    assert run(verb, data, tmp_path / "output", *(DEEP if verb == "compress" else [])) == 1
    error = capsys.readouterr().err
    assert "labelsTs/c2.nii.gz lies on another grid (20 x 24 x 12, LAS" in error
    assert "imagesTs/c2.nii.gz (20 x 24 x 12, RAS" in error
    assert not (tmp_path / "output" / "model.pt").exists()


def test_where_voxels_differ_volumes_are_resampled_and_the_answer_returns_to_the_grid_of_the_image(deep, tmp_path):
    data = shutil.copytree(deep, tmp_path / "set")
    for part in ("imagesTr", "labelsTr"):
        path = data / part / "c0.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), AFFINE @ np.diag([1, 1, 2, 1])), path)
    median = [AFFINE[0, 0], AFFINE[1, 1], 1.5 * AFFINE[2, 2]]
    assert run("compress", data, tmp_path / "output", *DEEP) in (0, 3)
    assert json.loads((tmp_path / "output" / "run.json").read_text())["settings"]["spacing"] == median
    plain = json.loads((tmp_path / "output" / "complexity.json").read_text())["mean"]
    assert run("infer", data, tmp_path / "output") == 0
    f1 = []
    for index in (2, 3):
        found = nibabel.load(tmp_path / "output" / "predictions" / f"c{index}_seg.nii.gz")
        assert found.shape == (20, 24, 12)
        assert np.allclose(found.affine, AFFINE)
        answer, mask = np.asarray(found.dataobj), ball(index)[1]
        f1.append(2 * (answer * mask).sum() / (answer.sum() + mask.sum()))
    assert np.mean(f1) == pytest.approx(score(tmp_path / "output"), abs=1e-3)  # the pipeline that was evaluated
    spacing = ["--spacing", str(list(map(float, median)))]
    assert run("measure", data, tmp_path / "measured", *spacing, "--measure", "boundary") == 0
    assert json.loads((tmp_path / "measured" / "complexity.json").read_text())["mean"] == plain


# Values of labels


def test_masks_of_0_and_255_are_refused_and_mapped(flat, compressed, tmp_path, capsys):
    data = make(tmp_path / "set", as_label=lambda mask: mask * np.uint8(255))
    for verb in ("compress", "train", "measure"):
        assert run(verb, data, tmp_path / verb, *(FLAT if verb == "compress" else [])) == 1
        assert (
            'holds 255, and dataset.json declares 0 to 1: give --label_values "{0: 0, 255: 1}"'
            in capsys.readouterr().err
        )
    mapped = ["--label_values", "{0: 0, 255: 1}"]
    assert run("compress", data, tmp_path / "output", *FLAT, *mapped) == 0
    assert score(tmp_path / "output") == pytest.approx(score(compressed))
    assert run("evaluate", data, tmp_path / "output") == 0  # by the settings that the run left


def test_almost_whole_numbers_are_classes(compressed, tmp_path):
    data = make(tmp_path / "set", ending=".nii.gz", as_label=lambda mask: (mask * 0.99999994).astype(np.float32))
    assert run("compress", data, tmp_path / "output", *FLAT) == 0
    assert score(tmp_path / "output") == pytest.approx(score(compressed))


# Numbers


def test_an_image_with_nan_is_named_and_the_others_are_segmented(deep, compressed_3d, tmp_path, capsys):
    data, output_dir = shutil.copytree(deep, tmp_path / "set"), copied(compressed_3d, tmp_path)
    voxels = ball(2)[0].astype(np.float32)
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), data / "imagesTs" / "c2.nii.gz")
    assert run("infer", data, output_dir) == 1
    error = capsys.readouterr().err
    assert "1 of 2 images were not segmented" in error
    assert "c2.nii.gz holds NaN or infinity" in error
    assert [path.name for path in (output_dir / "predictions").iterdir()] == ["c3_seg.nii.gz"]
    for verb, words in (("measure", []), ("compress", DEEP), ("train", [])):
        assert run(verb, data, tmp_path / verb, *words) == 1
        assert "c2.nii.gz holds NaN or infinity" in capsys.readouterr().err


def test_a_network_with_numbers_that_are_not_finite_segments_nothing(flat, compressed, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    state = torch.load(output_dir / "model.pt")
    next(iter(state.values()))[0] = torch.nan
    torch.save(state, output_dir / "model.pt")
    for verb in ("infer", "evaluate"):
        assert run(verb, flat, output_dir) == 1
        assert "model.pt" in capsys.readouterr().err
    assert not (output_dir / "predictions").exists()


# What a folder holds


def test_masks_that_changed_are_named_and_force_starts_again(flat, compressed, tmp_path, capsys):
    data, output_dir = shutil.copytree(flat, tmp_path / "set"), copied(compressed, tmp_path)
    assert run("compress", data, output_dir, *FLAT) == 0  # a copy of the data is the same data
    before = score(output_dir)
    for path in [*(data / "labelsTr").iterdir(), *(data / "labelsTs").iterdir()]:
        Image.fromarray(1 - np.asarray(Image.open(path))).save(path)
    for verb, words in (("compress", FLAT), ("train", TRAIN)):
        assert run(verb, data, output_dir, *words) == 1
        assert (
            "holds a run on other data (4 of 8 files have changed since, such as labelsTr/" in capsys.readouterr().err
        )
    assert score(output_dir) == before
    assert run("compress", data, output_dir, *FLAT, "--force", "True") == 0
    assert score(output_dir) != before


def test_a_second_set_in_the_folder_is_measured_anew(flat, tmp_path, capsys):
    assert run("measure", flat, tmp_path / "output") == 0
    first = ComplexityProfile.load(tmp_path / "output" / "complexity.json")
    darker = make(tmp_path / "set", as_image=lambda pixels: 255 - pixels // 2)
    assert run("measure", darker, tmp_path / "output") == 0
    assert ComplexityProfile.load(tmp_path / "output" / "complexity.json").mean != first.mean


def test_measuring_leaves_a_run_as_it_is(flat, compressed, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    weights = (output_dir / "model.pt").read_bytes()
    assert run("measure", flat, output_dir, "--scales", "[1,4]") == 1
    assert "holds a run by {'measure': 'boundary'" in capsys.readouterr().err
    assert run("measure", flat, output_dir, "--measure", "boundary", "--force", "True") == 0
    assert run("compress", flat, output_dir, *FLAT) == 0
    assert (output_dir / "model.pt").read_bytes() == weights
    darker = make(tmp_path / "set", as_image=lambda pixels: 255 - pixels // 2)
    assert run("measure", darker, output_dir, "--measure", "boundary") == 1
    assert "holds a run on other data" in capsys.readouterr().err


def test_a_checkpoint_without_its_run_is_not_taken_up(flat, tmp_path):
    output_dir = tmp_path / "output"
    assert run("train", flat, output_dir, *TRAIN) in (0, 3)
    expected = torch.load(output_dir / "model.pt")
    (output_dir / "run.json").unlink()
    (output_dir / "training_checkpoint_3.pt").write_bytes(b"of nobody knows what")
    assert run("train", flat, output_dir, *TRAIN) in (0, 3)
    found = torch.load(output_dir / "model.pt")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_interrupted_training_is_not_taken_up_by_another_run(flat, tmp_path, monkeypatch, capsys):
    from monai_ccnet.handlers import EpochLosses

    complete, epochs = EpochLosses._complete, []

    def stop_in_the_third(self):
        complete(self)
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    output_dir = tmp_path / "output"
    monkeypatch.setattr(EpochLosses, "_complete", stop_in_the_third)
    assert run("train", flat, output_dir, *TRAIN) == 130
    assert "interrupted. What is done is kept: the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert list(output_dir.glob("training_*.pt"))
    other = make(tmp_path / "set", as_image=lambda pixels: 255 - pixels)
    for data, words, message in (
        (other, TRAIN, "on other data (4 of 8 files have changed since"),
        (flat, [*TRAIN, "--seed", "1"], "holds a run with another seed"),
        (flat, [*TRAIN, "--learning_rate", "0.02"], "holds a run with another learning_rate"),
    ):
        assert run("train", data, output_dir, *words) == 1
        assert message in capsys.readouterr().err
    assert run("train", flat, output_dir, *TRAIN) in (0, 3)
    assert not list(output_dir.glob("training_*.pt"))
    assert run("train", other, output_dir, *TRAIN, "--force", "true") in (0, 3)


# What cannot be scored, or not be met, is said first


def test_test_entries_that_are_plain_names_are_replaced_by_a_part_held_out(tmp_path, capsys):
    data = make(tmp_path / "set")
    described = json.loads((data / "dataset.json").read_text())
    described["test"] = [item["image"] for item in described["test"]]
    (data / "dataset.json").write_text(json.dumps(described))
    assert run("compress", data, tmp_path / "output", *FLAT) == 0
    assert "1 of 2 training images, chosen by image, are held out and scored" in capsys.readouterr().out
    page = (tmp_path / "output" / "report.html").read_text()
    assert "held out and scored" in page
    assert len(TrialRecord.load(tmp_path / "output" / "record.json").per_image["f1"]) == 1
    data = json.loads((tmp_path / "output" / "report.json").read_text())["data"]
    assert data["digest"] == json.loads((tmp_path / "output" / "run.json").read_text())["data"]["digest"]
    assert data["images"] == {"training": 1, "validation": 0, "test": 1, "unlabelled": 2}
    assert "held out and scored" in data["notes"][0]
    assert ComplexityProfile.load(tmp_path / "output" / "complexity.json").count == 1


def test_what_can_never_be_is_refused_before_anything_is_measured(flat, tmp_path, capsys):
    blank = make(tmp_path / "blank", as_label=lambda mask: 0 * mask)
    for data, words, message in (
        (blank, [], "none of the 2 training labels of 'made' holds any foreground"),
        (flat, ["--budget_bytes", "300"], "no width fits the budget"),
        (flat, ["--budget_bytes", "90000", "--bits_per_weight", "7"], "bits_per_weight must be one of 8, 16, 32, 64"),
        (flat, ["--full_size_score", "0"], "full_size_score must be a number above 0 and at most 1"),
        (flat, ["--measure", "jpge"], "unknown measure 'jpge'"),
        (flat, ["--channels", "8"], "channels must be a list"),
    ):
        output_dir = tmp_path / "output"
        assert run("compress", data, output_dir, *FLAT, *words) == 1
        assert message in capsys.readouterr().err
        assert not {path.name for path in output_dir.glob("[!.]*")} - {"data.json", "traceback.log"}


def test_the_same_image_in_training_and_test_is_refused_at_every_door(flat, tmp_path, capsys):
    data = shutil.copytree(flat, tmp_path / "set")
    shutil.copy(data / "imagesTr" / "c0.png", data / "imagesTs" / "c2.png")
    for verb, words in (("compress", FLAT), ("train", TRAIN), ("measure", []), ("evaluate", [])):
        assert run(verb, data, tmp_path / verb, *words) == 1
        assert (
            "1 of 2 test images are in training or validation too, such as imagesTs/c2.png" in capsys.readouterr().err
        )
    assert run("measure", data, tmp_path / "measure", "--allow_overlap", "True") == 0


def test_a_network_that_has_not_learned_is_said_to_have_failed(flat, tmp_path, capsys):
    words = [*FLAT, "--max_epochs", "1", "--epoch_length", "1", "--learning_rate", "1e-9"]
    assert run("compress", flat, tmp_path / "output", *words) == 3
    out = capsys.readouterr().out
    first = out[out.index("FAILED") :].splitlines()
    assert first[0].startswith("FAILED: the network has not learned. Its F1 on the test images is 0.")
    assert first[1].startswith("Requested: ")
    assert json.loads((tmp_path / "output" / "report.json").read_text())["failed"] == first[0]
    page = (tmp_path / "output" / "report.html").read_text()
    assert page.index("FAILED") < page.index("F1 on the test images</")
    assert (tmp_path / "output" / "model.pt").exists()
    assert run("compress", flat, tmp_path / "output", *words) == 3  # found again, said again
    words = [*TRAIN, "--max_epochs", "1", "--epoch_length", "1", "--learning_rate", "1e-9"]
    assert run("train", flat, tmp_path / "trained", *words) == 3
    assert "FAILED: the network has not learned. Its F1 on the validation images is" in capsys.readouterr().out


# Inference


def test_every_input_is_accounted_for(flat, compressed, tmp_path, capsys):
    output_dir, images = copied(compressed, tmp_path), tmp_path / "a set [1]" / "imagesTs"
    assert run("infer", tmp_path / "a set [1]", output_dir) == 1
    assert "imagesTs contains no images" in capsys.readouterr().err
    images.mkdir(parents=True)
    assert run("infer", tmp_path / "a set [1]", output_dir) == 1
    assert "imagesTs contains no images" in capsys.readouterr().err
    shutil.copy(flat / "imagesTs" / "c2.png", images / "a.png")
    shutil.copy(flat / "imagesTs" / "c2.png", images / "b.png")
    Image.open(flat / "imagesTs" / "c2.png").save(images / "b.jpg")
    Image.open(flat / "imagesTs" / "c2.png").convert("RGB").save(images / "colour.png")
    (images / "words.png").write_text("no image")
    (images / ".hidden").write_text("")
    (images / "folder").mkdir()
    assert run("infer", tmp_path / "a set [1]", output_dir) == 1
    error = capsys.readouterr().err
    assert "5 of 6 images were not segmented" in error
    assert "its segmentation b_seg.png is another image's too" in error
    assert "words.png cannot be read" in error
    assert "it has 3 channels, and the network takes 1" in error
    with open(output_dir / "segmentations.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"a.png", "b.png", "b.jpg", "colour.png", "words.png", "folder"}
    assert rows["a.png"]["segmentation"] == "predictions/a_seg.png"
    assert rows["a.png"]["classes"] == "0 1"
    assert 0 <= float(rows["a.png"]["seconds"]) < 60
    assert rows["b.png"]["segmentation"] == ""


def test_inference_and_evaluation_take_over_the_settings_of_the_run(flat, compressed, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    expected = score(output_dir)
    assert run("infer", flat, output_dir) == 0
    f1 = []
    for index in (2, 3):
        answer, mask = np.asarray(Image.open(output_dir / "predictions" / f"c{index}_seg.png")), disc(index)[1]
        f1.append(2 * (answer * mask).sum() / (answer.sum() + mask.sum()))
    assert np.mean(f1) == pytest.approx(expected, abs=1e-6)
    assert run("train", flat, tmp_path / "trained", *TRAIN) in (0, 3)
    assert run("infer", flat, tmp_path / "trained") == 0  # the network's config is the run's, too
    assert run("evaluate", flat, tmp_path / "trained") == 0
    left = json.loads((tmp_path / "trained" / "run.json").read_text())
    assert left["settings"]["patch_size"] == [32, 32]
    assert left["network_def"]["network"]["channels"] == [6, 8]
    assert left["network_def"]["scale"] == left["settings"]["scale"] > 1
    left["recipe"]["validate"]["inferer"]["mode"] = "constant"
    (tmp_path / "trained" / "run.json").write_text(json.dumps(left))
    assert run("infer", flat, tmp_path / "trained") == 1
    assert (
        "evaluated with another validate#inferer than train.yaml's: give this run the same" in capsys.readouterr().err
    )


def test_inference_refuses_what_its_network_cannot_take(flat, deep, compressed, compressed_3d, tmp_path, capsys):
    output_dir, deep_dir = copied(compressed, tmp_path), shutil.copytree(compressed_3d, tmp_path / "deep")
    images = tmp_path / "set" / "imagesTs"
    images.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(disc(2)[0].T[..., None], np.eye(4)), images / "slice.nii.gz")
    shutil.copy(flat / "imagesTs" / "c2.png", images / "c2.png")
    assert run("infer", tmp_path / "set", output_dir) == 1
    assert "slice.nii.gz: it has 3 axes, and the network takes 2" in capsys.readouterr().err
    assert [path.name for path in (output_dir / "predictions").iterdir()] == ["c2_seg.png"]
    for words, message in (
        (["--datalist", "[]"], "datalist must hold paths of images"),
        (["--datalist", "[{'label': 'a.png'}]"], "datalist must hold paths of images"),
        (["--overlap", "1"], "overlap must be a number from 0 and below 1"),
        (["--patch_size", "[32]"], "patch_size must hold 2 lengths for images of 2 axes, got [32]"),
        (["--spacing", "[1, 1]"], "spacing=[1, 1] needs volumes, and a picture has no size of a pixel"),
    ):
        assert run("infer", flat, output_dir, *words) == 1
        assert message in capsys.readouterr().err
    for spacing in ("[0, 1, 1]", "[1, 1]"):
        assert run("infer", deep, deep_dir, "--spacing", spacing) == 1
        assert "spacing must " in capsys.readouterr().err
    assert run("infer", flat, output_dir, "--datalist", f"['{flat / 'imagesTs' / 'c3.png'}']") == 0
    shutil.rmtree(output_dir / "predictions")
    (output_dir / "predictions").write_text("")
    assert run("infer", flat, output_dir) == 1
    assert "predictions cannot be written" in capsys.readouterr().err


def test_an_evaluation_on_other_data_leaves_the_scores_of_the_run(flat, compressed, tmp_path, capsys):
    output_dir = copied(compressed, tmp_path)
    before = (output_dir / "metrics.csv").read_bytes()
    other = make(tmp_path / "set", as_image=lambda pixels: 255 - pixels, name="other")
    assert run("evaluate", other, output_dir) == 0
    assert (output_dir / "metrics.csv").read_bytes() == before
    assert (output_dir / "evaluation-other" / "metrics.csv").read_bytes() != before
    assert "is of other data: the scores on other are written to" in capsys.readouterr().out
    assert run("train", flat, tmp_path / "trained", *TRAIN) in (0, 3)
    assert run("evaluate", flat, tmp_path / "trained", "--channels", "[4,8]") == 1
    assert "holds the weights of another network" in capsys.readouterr().err


def test_two_trainings_do_not_share_a_folder(flat, tmp_path, capsys):
    (tmp_path / "output").mkdir()
    held = FileLock(tmp_path / "output" / ".lock", is_singleton=False)
    with held:
        assert run("train", flat, tmp_path / "output", *TRAIN, "--no-wait") == 1
    assert "another process works in" in capsys.readouterr().err
    assert run("train", flat, tmp_path / "output", *TRAIN) in (0, 3)


def test_a_run_that_failed_before_it_trained_is_no_obstacle(flat, tmp_path, monkeypatch):
    from monai_ccnet.training import run as module

    with monkeypatch.context() as broken:
        broken.setattr(module, "check_space", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert run("train", flat, tmp_path / "output", *TRAIN, "--seed", "1") == 1
    assert (tmp_path / "output" / "run.json").exists()
    assert run("train", flat, tmp_path / "output", *TRAIN) in (0, 3)
    assert json.loads((tmp_path / "output" / "run.json").read_text())["recipe"]["seed"] == 0


def test_an_expression_in_the_network_of_a_run_is_not_evaluated(flat, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", flat, tmp_path / "output", *TRAIN) in (0, 3)
    left = json.loads((tmp_path / "output" / "run.json").read_text())
    left["network_def"]["network"]["channels"] = "$[6, 8] if not __import__('pathlib').Path('touched').touch() else 0"
    (tmp_path / "output" / "run.json").write_text(json.dumps(left))
    for verb in ("evaluate", "infer"):
        assert run(verb, flat, tmp_path / "output") == 1
    assert not (tmp_path / "touched").exists()


# nnU-Net


def test_an_nnunet_set_of_two_channels_through_the_main_job(tmp_path, capsys):
    data = tmp_path / "Dataset007_Balls"
    for suffix, indices in (("Tr", (0, 1, 4)), ("Ts", (2, 3))):
        for index in indices:
            image, mask = ball(index)
            for channel, voxels in enumerate((image, 255 - image)):
                path = data / f"images{suffix}" / f"case_{index}_{channel:04d}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_volume(path, voxels)
            (data / f"labels{suffix}").mkdir(exist_ok=True)
            save_volume(data / f"labels{suffix}" / f"case_{index}.nii.gz", mask)
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(described))
    assert run("compress", data, tmp_path / "output", *DEEP) == 0
    assert score(tmp_path / "output") > 0.5
    assert TrialRecord.load(tmp_path / "output" / "record.json").dataset == "Dataset007_Balls"
    assert run("infer", data, tmp_path / "output") == 0
    assert len(list((tmp_path / "output" / "predictions").iterdir())) == 2
    (data / "imagesTr" / "case_4_0001.nii.gz").unlink()
    assert run("compress", data, tmp_path / "other", *DEEP) == 1
    assert "case_4" in capsys.readouterr().err
