"""Complexity in Auto3DSeg's data analysis: a pair of analyzers for MONAI's ``SegSummarizer``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.auto3dseg.analyzer import Analyzer
from monai.auto3dseg.operations import SampleOperations

from monai_ccnet.complexity.measures import SCALES, complexity_at_scales, measure_settings, needs

__all__ = ["ComplexityStats", "ComplexityStatsSumm"]


class ComplexityStats(Analyzer):
    """Analyze each case: its complexity at several scales, ``{"1": ..., "2": ...}``, at the key ``stats_name``.

    Add it with its summary: ``summarizer.add_analyzer(ComplexityStats(), ComplexityStatsSumm())``.

    Args:
        image_key: key of the image in a case, ``(C, H, W)`` or ``(C, H, W, D)``; a volume is turned to RAS orientation
            by the affine of a MetaTensor.
        label_key: key of the label in a case, with a channel axis or, as Auto3DSeg passes it, without.
        measure: any measure, of the image or of the label.
        scales: subsampling along each spatial axis, whole numbers from 1.
        stats_name: key of the result, in a case and in the summary.
        settings: settings of the measure; see :func:`monai_ccnet.complexity.measure_settings`.

    >>> noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32))
    >>> case = ComplexityStats(scales=(1, 2))({"image": noise})
    >>> case["complexity_stats"]["1"] > case["complexity_stats"]["2"]
    True
    """

    def __init__(
        self,
        image_key: str = "image",
        label_key: str = "label",
        measure: str = "jpeg",
        scales: Sequence[int] = SCALES,
        stats_name: str = "complexity_stats",
        **settings: Any,
    ) -> None:
        super().__init__(stats_name, {str(scale): None for scale in scales})
        self.keys_of = {"image": image_key, "label": label_key}
        self.settings = measure_settings(measure, **settings)
        self.scales = tuple(scales)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its complexity added."""
        d = dict(data)
        given = {what: d[self.keys_of[what]] for what in needs(self.settings["measure"])}
        image = d.get(self.keys_of["image"])
        label = given.get("label")
        if label is not None and image is not None and label.ndim == image.ndim - 1:
            given["label"] = label[None]
        pixdim = getattr(label, "pixdim", None)
        spacing = None if pixdim is None else [float(length) for length in pixdim]
        values = complexity_at_scales(**given, settings=self.settings, scales=self.scales, spacing=spacing)
        d[self.stats_name] = {str(scale): value for scale, value in values.items()}
        return d


class ComplexityStatsSumm(Analyzer):
    """Summarize the cases: mean, median, extremes, standard deviation and percentiles of the complexity at each scale.

    Args:
        scales: scales of the :class:`ComplexityStats` that analyzed the cases.
        stats_name: key of its results.
    """

    def __init__(self, scales: Sequence[int] = SCALES, stats_name: str = "complexity_stats") -> None:
        super().__init__(stats_name, {str(scale): None for scale in scales})
        for scale in scales:
            self.update_ops(str(scale), SampleOperations())

    def __call__(self, data: list[dict]) -> dict[str, Any]:
        """Return the statistics of each scale over a list of cases."""
        if missing := [index for index, case in enumerate(data) if self.stats_name not in case]:
            raise ValueError(
                f"cases {missing} hold no {self.stats_name!r}: analyze them by a ComplexityStats with that stats_name."
            )
        return {
            scale: self.ops[scale].evaluate(np.array([case[self.stats_name][scale] for case in data]))
            for scale in self.report_format
        }
