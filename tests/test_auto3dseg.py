"""Analyzers: complexity among the statistics of Auto3DSeg."""

import numpy as np
import pytest
from monai.auto3dseg import SegSummarizer
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_ccnet.auto3dseg import ComplexityStats, ComplexityStatsSumm
from monai_ccnet.complexity import complexity_at_scales, measure_settings

RNG = np.random.default_rng(0)


def as_loaded(array):
    return MetaTensor(array.astype(np.float32), meta={"filename_or_obj": "case.nii.gz"})


CASES = [
    {
        "image": as_loaded(RNG.integers(0, 40 + 60 * index, (1, 24, 20, 8))),
        "label": as_loaded(RNG.random((24, 20, 8)) < 0.1 + 0.1 * index),
    }
    for index in range(4)
]


def test_a_report_carries_complexity_beside_its_own_statistics():
    summarizer = SegSummarizer("image", "label", do_ccp=False)
    summarizer.add_analyzer(ComplexityStats(scales=(1, 4)), ComplexityStatsSumm(scales=(1, 4)))
    summarizer.add_analyzer(
        ComplexityStats(measure="boundary", scales=(1,), stats_name="boundary_stats"),
        ComplexityStatsSumm(scales=(1,), stats_name="boundary_stats"),
    )
    cases = [summarizer(dict(case)) for case in CASES]
    report = summarizer.summarize(cases)
    assert {"image_stats", "label_stats", "complexity_stats", "boundary_stats"} <= set(report)

    values = [complexity_at_scales(case["image"])[4] for case in CASES]
    assert [case["complexity_stats"]["4"] for case in cases] == values
    assert report["complexity_stats"]["4"]["mean"] == pytest.approx(np.mean(values))
    assert report["complexity_stats"]["4"]["max"] == pytest.approx(max(values))
    boundaries = [
        complexity_at_scales(label=case["label"][None], settings=measure_settings("boundary"))[1] for case in CASES
    ]
    assert report["boundary_stats"]["1"]["median"] == pytest.approx(np.median(boundaries))


def test_cases_are_turned_by_their_affine_and_refused_in_words():
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    label = MetaTensor(np.repeat(CASES[0]["label"].numpy(), 2, axis=0)[None], affine=affine)
    image = MetaTensor(RNG.integers(0, 256, label.shape), affine=affine)
    turn = Orientation(axcodes="SPL", labels=None)
    for own in ({}, {"measure": "boundary", "spacing": "physical"}):
        stats = ComplexityStats(scales=(1, 2), **own)
        straight, turned = (
            stats({"image": x, "label": y[0]})["complexity_stats"]
            for x, y in ((image, label), (turn(image), turn(label)))
        )
        assert turned == pytest.approx(straight, rel=1e-12)
    assert stats({"image": image.bfloat16(), "label": label.bool()})["complexity_stats"] == straight
    with pytest.raises(ValueError, match="whole numbers, class indices from 0 on, got"):
        stats({"image": image, "label": label[0] * 0.5})
    with pytest.raises(ValueError, match=r"np\.moveaxis\(image, -1, 0\)"):
        ComplexityStats()({"image": np.zeros((32, 32, 3))})


def test_a_summary_without_its_case_analyzer_says_so():
    with pytest.raises(ValueError, match="analyze them by a ComplexityStats"):
        ComplexityStatsSumm()([{"image_stats": {}}])
