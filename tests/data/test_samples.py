"""The default sample, from the library that ships it."""

import json

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_ccnet.data import samples
from monai_ccnet.data.samples import mni152_grey_matter


def test_the_sample_is_written_once_as_a_decathlon_folder(tmp_path):
    folder = mni152_grey_matter(tmp_path / "sample")
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"0": "background", "1": "grey matter"}
    for part in ("training", "test"):
        items = load_decathlon_datalist(folder / "dataset.json", data_list_key=part)
        assert len(items) == described[f"num{part.capitalize()}"] > 50
        image, label = (np.asarray(Image.open(items[30][key])) for key in ("image", "label"))
        assert image.shape == label.shape
        assert image.dtype == np.uint8
        assert set(np.unique(label)) == {0, 1}
        assert image[label == 1].mean() > image[label == 0].mean()
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    assert mni152_grey_matter(tmp_path / "sample") == folder
    assert (folder / "dataset.json").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_without_nilearn_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "has_nilearn", False)
    with pytest.raises(ImportError, match="--dataset_dir"):
        mni152_grey_matter(tmp_path / "sample")
