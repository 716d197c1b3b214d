"""What a datalist must be, each refusal by its message."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_ccnet.data import check_datalist
from monai_ccnet.data.images import read_stored

LABELS = {"0": "background", "1": "disk"}


def save(path, pixels):
    if path.suffix == ".png":
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(np.asarray(pixels, np.float32), np.eye(4)), path)
    return str(path)


@pytest.fixture
def item(tmp_path):
    mask = np.zeros((6, 8))
    mask[2:4, 2:4] = 1
    return {"image": save(tmp_path / "image.png", np.full((6, 8), 7)), "label": save(tmp_path / "label.png", mask)}


def test_what_is_right_is_counted_and_read_once(item, tmp_path, monkeypatch):
    read = []

    def watched(paths, **given):
        read.append(paths)
        return read_stored(paths, **given)

    monkeypatch.setattr("monai_ccnet.data.facts.read_stored", watched)
    volume = {
        "image": save(tmp_path / "v.nii", np.ones((3, 4, 5))),
        "label": save(tmp_path / "w.nii", np.eye(3, 4)[..., None] * np.ones(5)),
    }
    array = {"image": np.ones((1, 2, 2))}
    with pytest.warns(UserWarning, match="1 of 3 items are not given as files"):
        assert check_datalist([item, {"image": item["image"]}, array], LABELS) == 2
    assert check_datalist([volume], LABELS) == 1
    assert check_datalist([item], LABELS) == check_datalist([item], ["background", "disk"]) == 1
    assert len(read) == 4
    with pytest.warns(UserWarning, match="1 of 1 items are not given as files, and were not checked"):
        assert check_datalist([array], LABELS) == 0


@pytest.mark.parametrize(
    ("what", "pixels", "message"),
    [
        ("label", np.ones((6, 9)), r"label\.png has the size 9 x 6 and its image .*image\.png 8 x 6.*resample"),
        ("label", np.full((6, 8), 3), r"label\.png holds 3, and dataset\.json declares 0 to 1: correct it"),
        ("label", np.arange(48).reshape(6, 8), r"label\.png holds 2, 3, 4, 5, 6, \.\.\., and"),
        ("label", np.eye(6, 8)[..., None] * [1, 0, 0], r"label\.png has 3 channels: save the label with one"),
    ],
)
def test_a_label_that_does_not_fit_is_named(item, tmp_path, what, pixels, message):
    save(tmp_path / f"{what}.png", pixels)
    with pytest.raises(ValueError, match=message):
        check_datalist([item], LABELS)


def test_an_image_that_does_not_fit_is_named(item, tmp_path):
    colour = {"image": save(tmp_path / "colour.png", np.ones((6, 8, 3))), "label": item["label"]}
    with pytest.raises(
        ValueError,
        match=r"colour\.png has 3 channels and 2 axes and .*image\.png has 1 channels",
    ):
        check_datalist([item, colour], LABELS)
    nan = {"image": save(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan))}
    with pytest.raises(ValueError, match=r"nan\.nii holds NaN"):
        check_datalist([nan], LABELS)
    (tmp_path / "image.png").write_bytes((tmp_path / "image.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"image\.png cannot be read .*replace it"):
        check_datalist([item], LABELS)
    (tmp_path / "image.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image\.png is listed as a part of the data set but missing"):
        check_datalist([item], LABELS)


def test_classes_are_numbered_from_zero():
    with pytest.raises(ValueError, match=r"numbered from 0 on.* got \['0', '255'\]"):
        check_datalist([], {"0": "background", "255": "vessel"})


def test_where_labels_lie_is_checked_alone_without_classes(tmp_path):
    image = {"image": save(tmp_path / "image.nii", np.ones((3, 4, 5)))}
    probabilities = {**image, "label": save(tmp_path / "label.nii", np.full((3, 4, 5), 0.3))}
    assert check_datalist([probabilities]) == 1
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5)), np.diag([-1.0, 1, 1, 1])), tmp_path / "mirrored.nii")
    with pytest.raises(ValueError, match=r"mirrored\.nii lies on another grid"):
        check_datalist([{**image, "label": str(tmp_path / "mirrored.nii")}])


def test_two_classes_have_two_names():
    with pytest.raises(ValueError, match="gives two classes one name, a, a"):
        check_datalist([], ["a", "a"])


def test_plain_paths_are_checked_and_what_is_no_list_is_not(item):
    assert check_datalist([item["image"]], LABELS) == 1
    with pytest.warns(UserWarning, match="a generator is not a list of files: nothing was checked"):
        assert check_datalist((each for each in [item]), LABELS) == 0


def test_the_background_is_number_0():
    with pytest.raises(ValueError, match="numbers the background other than 0"):
        check_datalist([], {"disk": 0, "background": 1})
