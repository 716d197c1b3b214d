"""Pictures: they can be drawn, and hold what they should."""

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from monai_ccnet.complexity import ComplexityProfile, measure_dataset, rank_measures
from monai_ccnet.constraints import DiskBudget, compress, trade_off
from monai_ccnet.degradation import DegradationModel, DegradationPoint
from monai_ccnet.figures import draw_complexity, draw_degradation, draw_measures, draw_trade_off, save_figure


def words_of(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.mark.parametrize("count", [1, 6])
def test_the_least_and_the_most_complex_images(count, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(count):
        picture = rng.integers(100 - 15 * index, 101 + 15 * index, (40, 60)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"image_{index}.png")
    files = sorted(tmp_path.glob("*.png"))
    table = tmp_path / "complexity.csv"
    profile = measure_dataset(files, scales=(1, 2, 4), table=table, name="noise")
    figure = draw_complexity(profile, table)
    words = words_of(figure)
    assert f"noise: {count} image{'s' if count > 1 else ''}" in words
    assert words.count("image_0.png") == (1 if count > 4 else 2)
    assert {"1", "1/2", "1/4", "least complex", "most complex"} <= set(words)
    save_figure(tmp_path / "complexity.png", figure)
    assert imread(tmp_path / "complexity.png").std() > 0.05


def test_measured_arrays_have_no_picture_but_their_numbers(tmp_path):
    table = tmp_path / "complexity.csv"
    profile = measure_dataset(np.zeros((2, 1, 16, 16), np.uint8), scales=(1,), table=table)
    assert "not from\na file" in words_of(draw_complexity(profile, table))


def test_measures_beside_the_degradation():
    slopes = {"a": 0.1, "b": 0.4, "c": 0.2}
    values = {"jpeg": (1, 4, 2), "edges": (1, 2, 3)}
    profiles = [
        ComplexityProfile(dataset, {"measure": measure}, (1,), (value,), None, 1)
        for measure, column in values.items()
        for dataset, value in zip(slopes, column, strict=True)
    ]
    (axes,) = draw_measures(rank_measures(profiles, slopes)).axes
    degradation, best, other = (line.get_ydata() for line in axes.lines)
    assert degradation == pytest.approx([0, 1 / 3, 1])
    assert best == pytest.approx(degradation)
    assert other == pytest.approx([0, 1, 0.5])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "c", "b"]


def test_the_law_beside_what_was_trained():
    points = [
        DegradationPoint(name, complexity, x, 1 - slope * np.log10(x))
        for name, complexity, slope in (("a", 0.1, 0.02), ("b", 0.3, 0.06), ("c", 0.4, 0.09))
        for x in (1, 4, 64)
    ]
    dead = DegradationPoint("c", 0.4, 256, 0.0, has_learned=False)
    model = DegradationModel.fit([*points, dead], settings={"measure": "jpeg"})
    figure = draw_degradation(model, [*points, dead])
    scores, slopes = figure.axes
    marks = [line for line in scores.lines if line.get_marker() == "x"]
    assert [list(line.get_ydata()) for line in marks] == [[0.0]]
    words = words_of(figure)
    assert {"a", "b", "c", "complexity (jpeg)"} <= set(words)
    shown = sorted(float(line.get_ydata()[0]) for line in slopes.lines if line.get_marker() == "o")
    assert shown == pytest.approx([0.02, 0.06, 0.09])


def test_the_chosen_plan_among_what_else_could_be_had():
    unet = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 16, 32]}
    known = {
        "complexity": ComplexityProfile.published("lymph_node"),
        "degradation": DegradationModel.published("unet", metric="f1"),
    }
    plans = trade_off(unet, points=4, **known)
    chosen = compress(unet, DiskBudget(60_000), **known)
    (axes,) = draw_trade_off(plans, chosen).axes
    curve, star = axes.lines
    assert list(curve.get_xdata()) == [plan.size.file_bytes for plan in plans]
    assert star.get_xdata() == [chosen.size.file_bytes]
    assert "-".join(map(str, chosen.channels)) in words_of(axes.figure)
