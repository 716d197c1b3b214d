"""Laws by the names that settings give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ccnet.degradation.model import DegradationModel
from monai_ccnet.degradation.published import FAMILIES
from monai_ccnet.degradation.width import WidthLaw
from monai_ccnet.files import read_json

__all__ = ["Law", "law_named"]

Law = DegradationModel | WidthLaw
_OF_COMPLEXITY = ("CUMedVision", "UCUNet")  # whose calibration is a law in complexity


def law_named(law: str, network_def: Mapping[str, Any], metric: str = "f1", *, allocation: str | None = None) -> Law:
    """Return the law that a setting names, for the network to be narrowed.

    A network that neither this project nor the paper has measured is assumed to degrade as the U-Net does.

    Args:
        law: name of the law, ``"calibrated"`` or ``"paper"``, or the path of the JSON file of a law.
        network_def: the network's config, or any mapping with its ``_target_``.
        metric: name of the score, ``"f1"`` or ``"iu"``; ignored for a file, which has its own.
        allocation: rule of a layer-wise plan; ``"complexity"`` needs a law in complexity.
    """
    if law == "calibrated":
        target = str(network_def["_target_"]).rsplit(".", 1)[-1]
        if allocation == "complexity" or target in _OF_COMPLEXITY:
            return DegradationModel.named(law, network_def, metric)
        return WidthLaw.calibrated(FAMILIES["PlainUNet"].calibrated, metric)
    if law == "paper":
        return DegradationModel.named(law, network_def, metric)
    content = read_json(law)
    kind = content.get("value_type") if isinstance(content, Mapping) else None
    return WidthLaw.load(law) if kind == WidthLaw.__name__ else DegradationModel.load(law)
