"""Data sets on disk: opening, reading and checking them; public data sets and sample data."""

from monai_ccnet.data.checks import check_datalist
from monai_ccnet.data.folder import (
    DatasetFolder,
    dataset_name,
    folds,
    hold_out,
    open_dataset,
    relative_names,
    safe_name,
)
from monai_ccnet.data.images import ReadImaged, list_images, load_image
from monai_ccnet.data.public import chase_db1, drive, isic_2017
from monai_ccnet.data.reading import (
    DataReading,
    check_resampled,
    check_scorable,
    check_trainable,
    common_spacing,
    first_with_foreground,
    read_dataset,
)
from monai_ccnet.data.samples import mni152_grey_matter
from monai_ccnet.data.tensors import OnPlainTensors, RandPatchd

__all__ = [
    "DataReading",
    "DatasetFolder",
    "OnPlainTensors",
    "RandPatchd",
    "ReadImaged",
    "chase_db1",
    "check_datalist",
    "check_resampled",
    "check_scorable",
    "check_trainable",
    "common_spacing",
    "dataset_name",
    "drive",
    "first_with_foreground",
    "folds",
    "hold_out",
    "isic_2017",
    "list_images",
    "load_image",
    "mni152_grey_matter",
    "open_dataset",
    "read_dataset",
    "relative_names",
    "safe_name",
]
