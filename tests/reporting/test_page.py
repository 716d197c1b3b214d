"""The page of a run: one file, whole, that says what there is to say and runs nothing."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from monai_ccnet.complexity import ComplexityProfile, measure_ceiling
from monai_ccnet.constraints import AccuracyFloor, DiskBudget, InfeasibleConstraintError, MemoryBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.records import TrialRecord
from monai_ccnet.reporting.page import PICTURES, html_report, save_html_report

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 16, 32]}
SEGRESNET = {"_target_": "monai.networks.nets.SegResNet", "spatial_dims": 2, "init_filters": 16}
KNOWN = {
    "complexity": ComplexityProfile.published("lymph_node"),
    "degradation": DegradationModel.published("unet", metric="f1"),
}
PLAN = compress(UNET, [DiskBudget(60_000), MemoryBudget(10_000_000, (1, 1, 32, 32))], **KNOWN)
LABEL = np.zeros((1, 64, 48), int)
LABEL[0, 8:40, 8:40], LABEL[0, 50, 40] = 1, 1
SCALED = compress(
    UNET, DiskBudget(60_000), **KNOWN, scale="auto", ceiling=measure_ceiling([LABEL]), image_shape=(1, 1, 64, 48)
)
SCORES = {
    "f1": 0.87,
    "iu": 0.8,
    "jaccard": 0.75,
    "accuracy": 0.96,
    "specificity": 0.97,
    "sensitivity": 0.88,
    "auc": 0.99,
}


def record_of(plan, **changed):
    known = {
        "dataset": "nuclei",
        "network_def": plan.network_def,
        "multiplier": None,
        "recipe": {"max_epochs": 3, "dataset_dir": "/somewhere/secret"},
        "size": plan.size,
        "file_bytes": plan.size.file_bytes,
        "scores": SCORES,
        "pooled": {},
        "per_image": {"f1": [0.87]},
        "constant_score": 0.4,
        "losses": (0.9, 0.2),
        "seconds": 61.0,
        "versions": {"torch": "2.8"},
    }
    return TrialRecord(**(known | changed))


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, its words, and tags that were not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(file, "png")
    return file.getvalue()


def test_the_page_says_where_the_prediction_goes_beyond_what_was_measured():
    known = {**KNOWN, "degradation": replace(KNOWN["degradation"], max_compression=1.5)}
    further = compress(UNET, DiskBudget(60_000), **known)
    assert (PLAN.is_extrapolated, further.is_extrapolated) == (False, True)
    assert "extrapolated" not in html_report(PLAN, record_of(PLAN))
    assert "extrapolated" in html_report(further, record_of(further))


def test_the_page_says_what_was_asked_for_predicted_and_achieved():
    page = Page(html_report(PLAN, record_of(PLAN), full_size_score=0.9))
    assert not page.open
    for words in (
        f"nuclei: {PLAN.compression:.1f} times fewer weights",
        f"{PLAN.predicted.score:.1%}",
        f"{0.87 / 0.9:.1%}",
        f"{PLAN.size.file_bytes:,}",
        f"{PLAN.size.parameters:,}",
        f"{PLAN.full_size.macs:,}",
        "0.1518",  # complexity
        "0.437",  # the law
        "at most 60,000 bytes on disk (parameters at 32 bits, and the file) (binding constraint)",
        "at most 10,000,000 bytes in memory",
        "max_epochs 3",
        str(PLAN).splitlines()[1],
    ):
        assert words in page.text, words
    assert "failed to learn" not in page.text
    assert "/somewhere" not in page.text


def test_the_scale_is_explained_with_all_that_vanishes():
    page = Page(html_report(SCALED, record_of(SCALED))).text
    assert SCALED.scale == 4
    assert "1 of 1 smaller ones do, the largest lost is of 1 pixels" in SCALED.scale_lines[0]
    for words in (
        "The scale at which the network works",
        SCALED.scale_lines[0],
        "of the resolution, at which the network works",
        "1/4 (this plan)",
        "multiply-adds for an image of the median size, 64 x 48",
        f"{SCALED.image_size.macs:,}",
    ):
        assert words in page
    assert "The scale at which the network works" not in html_report(PLAN, record_of(PLAN))


def test_the_page_refers_to_nothing_outside_and_shows_every_picture(tmp_path):
    for value, name in enumerate(PICTURES):
        (tmp_path / f"{name}.png").write_bytes(png(value))
    training = {
        "channels": "4-4",
        "scale": "2",
        "seed": 0,
        "f1": 0.5,
        "has_learned": True,
        "file_bytes": 9,
        "cost": 0.1,
    }
    found = {"words": ["found this & that"], "trainings": [{**training, "reason": "a first scale"}]}
    (tmp_path / "search.json").write_text(json.dumps(found))
    save_html_report(tmp_path / "report.html", SCALED, record_of(SCALED))
    (tmp_path / "search.json").unlink()
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == len(PICTURES)
    shown = set()
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        shown.add(int(np.asarray(Image.open(io.BytesIO(base64.b64decode(content, validate=True))))[0, 0]))
    assert shown == set(range(len(PICTURES)))
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", *(f"{name}.png" for name in PICTURES)}


def test_names_are_words_and_never_markup():
    evil = '<script>alert("1")</script>&$title'
    plan = compress(UNET, DiskBudget(60_000), **{**KNOWN, "complexity": replace(KNOWN["complexity"], dataset=evil)})
    record = record_of(plan, dataset=evil, recipe={evil: evil}, versions={evil: evil})
    page = Page(html_report(plan, record, pictures={"plan": png(0)}))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 6


@pytest.mark.parametrize(
    ("network_def", "constraint", "known"),
    [
        (UNET, AccuracyFloor(0.95), KNOWN),
        (UNET, AccuracyFloor(0.95), {**KNOWN, "layerwise": False}),
        (UNET, DiskBudget(60_000), {"layerwise": False}),
        (SEGRESNET, DiskBudget(3_000_000), KNOWN),
    ],
)
def test_every_kind_of_plan_has_its_page(network_def, constraint, known):
    plan = compress(network_def, constraint, **known)
    page = Page(html_report(plan, record_of(plan)))
    assert str(constraint) in page.text
    assert "yes" in page.text
    assert ("not known" in page.text) == (plan.predicted is not None)
    assert "img" not in {tag for tag, _ in page.tags}


def test_a_network_that_did_not_learn_is_named_as_such():
    record = record_of(PLAN, scores=SCORES | {"f1": 0.39})
    assert (
        "FAILED: the network has not learned. Its F1 on the test images is 0.3900"
        in Page(html_report(PLAN, record)).text
    )


def test_a_file_above_the_budget_has_no_page(tmp_path):
    with pytest.raises(InfeasibleConstraintError, match="60,001 bytes"):
        save_html_report(tmp_path / "report.html", PLAN, record_of(PLAN, file_bytes=60_001))
    assert not list(tmp_path.iterdir())


def test_the_page_needs_no_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import monai_ccnet.reporting.page, monai_ccnet.figures"
    code += "; print(monai_ccnet.figures.has_matplotlib)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
