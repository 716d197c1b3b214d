"""A data set as a folder: its name, safe names of folders, its lists, and paths that tell nothing of the machine."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_ccnet.data import dataset_name, list_images, load_image, open_dataset, relative_names, safe_name
from monai_ccnet.files import relative_path


def written(folder, **described):
    folder.mkdir(parents=True, exist_ok=True)
    items = [{"image": f"{index}.png", "label": f"{index}_mask.png"} for index in range(3)]
    listed = {"labels": {"0": "background", "1": "disk"}, "training": items[:2], "test": items[1:]}
    (folder / "dataset.json").write_text(json.dumps({**listed, **described}))
    return folder


@pytest.mark.parametrize(
    ("described", "name"),
    [({}, "drive"), ({"name": None}, "drive"), ({"name": " "}, "drive"), ({"name": " a b "}, "a b")],
)
def test_a_set_is_called_by_its_list_or_its_folder(described, name, tmp_path):
    assert dataset_name(described, tmp_path / "drive") == dataset_name(described, f"{tmp_path}/drive/") == name
    assert open_dataset(written(tmp_path / "drive", **described)).name == name


@pytest.mark.parametrize("name", [5, ["a"], {"a": 1}, True])
def test_a_name_that_is_no_text_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"`name` of .*drive.dataset\.json must be text, got .*: put it in quotes"):
        open_dataset(written(tmp_path / "drive", name=name))


@given(st.text(), st.text())
def test_a_safe_name_leads_nowhere_else_and_is_another_for_another_name(first, second):
    for name in (first, second):
        safe = safe_name(name)
        assert safe
        assert Path(safe).name == safe
        assert safe not in (".", "..")
        assert not set(safe) & set("#:/\\ \0")
        assert safe_name(safe) == safe
    if first != second and safe_name(first) == first and safe_name(second) == second:
        assert safe_name(first) != safe_name(second)


@pytest.mark.parametrize("name", ["../../escaped", "/abs", "set #1", "..", "", "a::b", "a/b", "ä ö"])
def test_names_that_would_lead_elsewhere(name):
    assert safe_name(name) != name
    assert safe_name(name) != safe_name(name + "!")
    assert not set(safe_name(name)) & set("#:/ ")


def test_the_lists_of_a_folder(tmp_path):
    data = open_dataset(written(tmp_path / "drive"))
    assert [len(part) for part in (data.training, data.validation, data.test, data.items)] == [2, 0, 2, 3]
    assert data.training[0]["image"] == str(tmp_path / "drive" / "0.png")
    assert data.middle == data.training[1]
    Image.new("RGB", (4, 6)).save(tmp_path / "drive" / "0.png")
    assert (data.spatial_dims, data.in_channels) == (2, 3)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"training": []}, "lists no `training` images: add them"),
        ({"labels": {}}, "has no `labels`: add them, as in"),
    ],
)
def test_a_list_that_nothing_can_be_trained_on_is_refused(described, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_dataset(written(tmp_path / "drive", **described))


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json is missing: give the folder that holds"):
        open_dataset(tmp_path)


def test_paths_are_relative_to_the_data_set_and_others_are_told_by_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / "drive" / "imagesTr" / "1.png", tmp_path / "elsewhere" / "2.png"
    assert (
        relative_path(inside, "drive") == relative_path("drive/imagesTr/1.png", tmp_path / "drive") == "imagesTr/1.png"
    )
    assert relative_path([inside, outside], "drive") == "imagesTr/1.png;2.png"
    assert relative_path(outside, None) == str(outside)

    class Image:
        meta = {"filename_or_obj": str(inside)}  # noqa: RUF012

    assert relative_names("drive")([{"image": Image()}]) == [{"filename_or_obj": "imagesTr/1.png"}]


def test_images_of_a_folder_in_the_order_of_their_names(tmp_path):
    for message, folder in (("contains no images", tmp_path), ("contains no images", tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=message):
            list_images(folder)
    for name in ("b[1].png", "a.png", ".hidden"):
        (tmp_path / name).write_bytes(b"no image")
    assert [Path(item["image"]).name for item in list_images(tmp_path)] == ["a.png", "b[1].png"]
    with pytest.raises(OSError, match=r"a\.png cannot be read \(no reader here knows its format: save it as PNG"):
        load_image(tmp_path / "a.png")
