"""Data sets on disk: checked, opened, and some that can be had."""

from monai_ccnet.data.checks import check_datalist, merged_datalist
from monai_ccnet.data.public import chase_db1, drive, isic_2017
from monai_ccnet.data.samples import mni152_grey_matter

__all__ = [
    "chase_db1",
    "check_datalist",
    "drive",
    "isic_2017",
    "merged_datalist",
    "mni152_grey_matter",
]
