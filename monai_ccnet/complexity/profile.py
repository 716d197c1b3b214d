"""How complex a data set is at each image scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monai_ccnet.complexity.foreground import jb_complexity
from monai_ccnet.complexity.measures import SCALES
from monai_ccnet.degradation.published import PUBLISHED_SETTINGS
from monai_ccnet.files import shown
from monai_ccnet.values import Value

__all__ = ["ComplexityProfile"]

_PUBLISHED_JPEG: dict[str, tuple[float, ...]] = {  # Table 1, at scales 1, 2, 4, 8, 16
    "wing_disk": (0.0279, 0.0187, 0.0175, 0.0166, 0.0156),
    "drive": (0.0362, 0.0303, 0.0284, 0.0269, 0.0255),
    "melanoma": (0.0642, 0.0459, 0.0361, 0.0296, 0.0250),
    "lymph_node": (0.1518, 0.0857, 0.0655, 0.0496, 0.0375),
    "chase_db1": (0.2826, 0.2204, 0.1971, 0.1789, 0.1636),
}
_PUBLISHED_FOREGROUND: dict[str, tuple[float, ...]] = {
    "lymph_node": (0.0812, 0.0813, 0.0811, 0.0809, 0.0799)
}  # Table 2
_PUBLISHED_COUNTS = {"wing_disk": 889, "drive": 20, "melanoma": 2150, "lymph_node": 137, "chase_db1": 20}


@dataclass(frozen=True)
class ComplexityProfile(Value):
    """The mean complexity of a data set at each image scale, and the settings it was measured with.

    Attributes:
        dataset: name of the data set.
        settings: settings that the numbers depend on; complexities are comparable only at equal settings.
        scales: subsampling factors along each axis, ascending, from 1.
        mean: mean complexity over the images at each scale, unitless.
        standard_error: standard error of each mean; ``None`` where it is not known, as for one image.
        count: number of images measured.
        unreadable: names of the files that could not be read and are not counted.
        digest: SHA-256 digest of what was measured, if that is known: the files, and how they were read.
    """

    dataset: str
    settings: dict[str, Any]
    scales: tuple[int, ...]
    mean: tuple[float, ...]
    standard_error: tuple[float, ...] | None
    count: int
    unreadable: tuple[str, ...] = ()
    digest: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        object.__setattr__(self, "scales", tuple(int(scale) for scale in self.scales))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "unreadable", tuple(self.unreadable))
        if self.standard_error is not None:
            object.__setattr__(self, "standard_error", tuple(float(value) for value in self.standard_error))
        if not self.scales or list(self.scales) != sorted(set(self.scales)) or self.scales[0] < 1:
            raise ValueError(f"scales must be distinct, ascending and at least 1, got {shown(self.scales)}.")
        lengths = {len(self.scales), len(self.mean), len(self.standard_error or self.mean)}
        if len(lengths) != 1:
            raise ValueError(
                f"{len(self.scales)} scales need as many means and standard errors, got {sorted(lengths)}."
            )
        if not np.isfinite([*self.mean, *(self.standard_error or ())]).all() or min(self.mean) < 0:
            raise ValueError(
                f"complexities must be finite and not negative, got {shown([self.mean, self.standard_error])}."
            )
        if not isinstance(self.settings.get("measure", ""), str):
            raise ValueError(f"settings must name the measure in text, got {shown(self.settings['measure'])}.")
        if self.count < 1:
            raise ValueError(f"a profile needs at least one image, got count={shown(self.count)}.")

    def at(self, scale: int) -> float:
        """Return the mean complexity at a scale that was measured."""
        if scale not in self.scales:
            raise ValueError(
                f"the profile of {self.dataset!r} has the scales {self.scales}, and {scale} is needed: "
                f"measure the data set with scales=(..., {scale})."
            )
        return self.mean[self.scales.index(scale)]

    @classmethod
    def published(cls, dataset: str, measure: str = "jpeg", omega: float = 0.7) -> ComplexityProfile:
        """Return a profile of the paper: Table 1, or for the lymph node data set also Table 2.

        Args:
            dataset: ``"wing_disk"``, ``"drive"``, ``"melanoma"``, ``"lymph_node"`` or ``"chase_db1"``.
            measure: ``"jpeg"``; for ``"lymph_node"`` also ``"foreground"`` and ``"jb"``.
            omega: weight of JPEG in ``"jb"``: 0.7 for U-Net, 0.775 for CUMedVision, 0.95 for UCU-Net.

        >>> ComplexityProfile.published("lymph_node").at(2)
        0.0857
        """
        if measure == "jb":
            foreground = cls.published(dataset, "foreground")
            return cls.published(dataset).mixed_with(foreground, omega)
        tables = {"jpeg": _PUBLISHED_JPEG, "foreground": _PUBLISHED_FOREGROUND}
        if measure not in tables:
            raise ValueError(f"unknown measure {measure!r}; published are {sorted({*tables, 'jb'})}.")
        if dataset not in tables[measure]:
            raise ValueError(f"no {measure!r} of data set {dataset!r} is published; known: {sorted(tables[measure])}.")
        settings = PUBLISHED_SETTINGS | {"measure": measure}
        return cls(dataset, settings, SCALES, tables[measure][dataset], None, _PUBLISHED_COUNTS[dataset])

    def mixed_with(self, foreground: ComplexityProfile, omega: float) -> ComplexityProfile:
        """Return JB, ``omega`` times this profile (JPEG) plus ``1 - omega`` times foreground density (Eq. 5).

        The images need not be measured again for each omega.

        >>> jpeg = ComplexityProfile.published("lymph_node")
        >>> density = ComplexityProfile.published("lymph_node", measure="foreground")
        >>> jpeg.mixed_with(density, 0.7) == ComplexityProfile.published("lymph_node", measure="jb", omega=0.7)
        True
        """
        if (self.settings.get("measure"), foreground.settings.get("measure")) != ("jpeg", "foreground"):
            raise ValueError(
                f"JB mixes 'jpeg' with 'foreground', got {self.settings.get('measure')!r} and "
                f"{foreground.settings.get('measure')!r}."
            )
        if (self.dataset, self.scales) != (foreground.dataset, foreground.scales):
            raise ValueError(
                f"JB mixes two profiles of one data set at the same scales, got {self.dataset!r} at {self.scales} and "
                f"{foreground.dataset!r} at {foreground.scales}."
            )
        pairs = zip(self.mean, foreground.mean, strict=True)
        return replace(
            self,
            settings={**self.settings, "measure": "jb", "omega": omega},
            mean=tuple(jb_complexity(jpeg, density, omega) for jpeg, density in pairs),
            standard_error=None,
        )

    def __str__(self) -> str:
        values = ", ".join(
            f"{value:.4f} at 1/{scale}" if scale > 1 else f"{value:.4f}"
            for scale, value in zip(self.scales, self.mean, strict=True)
        )
        skipped = f"; {len(self.unreadable)} files could not be read" if self.unreadable else ""
        measure = self.settings.get("measure", "unknown")
        return f"{measure} complexity of {self.dataset} ({self.count} images{skipped}): {values}"
