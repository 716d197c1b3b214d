"""Data sets on disk: opening, validating and reading them; public data sets and sample data."""

from monai_ccnet.data.checks import check_datalist
from monai_ccnet.data.folder import (
    DatasetFolder,
    dataset_name,
    open_dataset,
    relative_names,
    safe_name,
)
from monai_ccnet.data.images import list_images, load_image
from monai_ccnet.data.public import chase_db1, drive, isic_2017
from monai_ccnet.data.samples import mni152_grey_matter

__all__ = [
    "DatasetFolder",
    "chase_db1",
    "check_datalist",
    "dataset_name",
    "drive",
    "isic_2017",
    "list_images",
    "load_image",
    "mni152_grey_matter",
    "open_dataset",
    "relative_names",
    "safe_name",
]
