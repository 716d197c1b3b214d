"""The paper's published constants of the law, and the names of its networks in the paper and here."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "FAMILIES",
    "PUBLISHED",
    "PUBLISHED_CLASSES",
    "PUBLISHED_OMEGA",
    "PUBLISHED_RESIDUAL",
    "PUBLISHED_SETTINGS",
    "PUBLISHED_WEIGHTS",
    "Names",
]

# Table 3: slope (lambda) and intercept (delta).
PUBLISHED = {
    ("unet", "f1"): (0.437, 0.01030),
    ("cumedvision", "f1"): (0.538, 0.00427),
    ("ucunet", "f1"): (0.241, 0.00956),
    ("unet", "iu"): (0.349, 0.000072),
    ("cumedvision", "iu"): (0.366, 0.000096),
    ("ucunet", "iu"): (0.151, 0.007080),
}
# How complexity was measured: the paper states the quality and no more.
PUBLISHED_SETTINGS = {"measure": "jpeg", "quality": 25, "source": "Mishra, Chen, Hu: Table 1"}
PUBLISHED_OMEGA = {"unet": 0.7, "cumedvision": 0.775, "ucunet": 0.95}
# Root mean square of the relative scores of Tables 4 and 5 (CHASE_DB1, DRIVE, melanoma) about the published law.
PUBLISHED_RESIDUAL = {("unet", "f1"): 0.0617}
# Kernel weights of the full-size networks, if they follow from the paper's numbers.
PUBLISHED_WEIGHTS = {"unet": 31_023_744}


class Names(NamedTuple):
    """Names of a class of networks in this project's calibration and in the paper."""

    calibrated: str
    published: str


FAMILIES = {
    "PlainUNet": Names("plain_unet", "unet"),
    "CUMedVision": Names("cumedvision", "cumedvision"),
    "UCUNet": Names("ucunet", "ucunet"),
}
PUBLISHED_CLASSES = {names.published: network for network, names in FAMILIES.items()}
