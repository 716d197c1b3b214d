"""Pictures: they can be drawn, and hold what they should."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from monai_ccnet.complexity import ComplexityProfile, measure_ceiling, measure_dataset, rank_measures
from monai_ccnet.complexity.label import label_at_scale
from monai_ccnet.complexity.scales import at_scale
from monai_ccnet.constraints import AccuracyFloor, DiskBudget, compress, trade_off
from monai_ccnet.degradation import DegradationModel, DegradationPoint
from monai_ccnet.figures import (
    draw_ceiling,
    draw_complexity,
    draw_degradation,
    draw_measures,
    draw_overlays,
    draw_plan,
    draw_profiles,
    draw_scales,
    draw_trade_off,
    overlay,
    save_figure,
)
from monai_ccnet.training import SegmentedImage

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 16, 32]}
KNOWN = {
    "complexity": ComplexityProfile.published("lymph_node"),
    "degradation": DegradationModel.published("unet", metric="f1"),
}


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
    plans = trade_off(UNET, points=4, **KNOWN)
    chosen = compress(UNET, DiskBudget(60_000), **KNOWN)
    (axes,) = draw_trade_off(plans, chosen).axes
    curve, star = axes.lines
    assert list(curve.get_xdata()) == [plan.size.file_bytes for plan in plans]
    assert star.get_xdata() == [chosen.size.file_bytes]
    assert "-".join(map(str, chosen.channels)) in words_of(axes.figure)


def test_the_scales_of_an_image_are_those_that_were_measured():
    image = np.random.default_rng(0).integers(0, 256, (1, 300, 200), np.uint8)
    profile = ComplexityProfile("noise", {"measure": "jpeg", "axes": "xy"}, (1, 4), (0.5, 0.25), None, 1)
    full, quarter = draw_scales(image, profile).axes
    assert [full.get_title(), quarter.get_title()] == ["1: 0.5000", "1/4: 0.2500"]
    picture = image[0].T  # rows along y; of the longer side, the middle 256
    np.testing.assert_array_equal(full.images[0].get_array(), picture[:, 22:278])
    np.testing.assert_array_equal(quarter.images[0].get_array(), at_scale(picture, 4)[:, 22:278])


def test_the_scales_of_a_label_are_those_that_its_measure_sees(tmp_path):
    label = np.zeros((1, 48, 32), np.uint8)
    label[0, 7:30, 5:20], label[0, 20:25, 10:15] = 1, 2
    Image.fromarray(label[0].T).save(tmp_path / "label.png")
    image = np.zeros((1, 48, 32), np.uint8)
    profile = ComplexityProfile("boxes", {"measure": "boundary"}, (1, 8), (0.5, 0.25), None, 1)
    for given in (label, tmp_path / "label.png"):
        figure = draw_scales(image, profile, label=given)
        shown = [axes.images[0].get_array() for axes in figure.axes]
        np.testing.assert_array_equal(shown[0], label[0].T * 127.5)
        np.testing.assert_array_equal(shown[1], label_at_scale(label[0].astype(np.int64), 8).T * 127.5)
        assert "a label of boxes" in figure.get_suptitle()
    volume = np.repeat(label[..., None], 4, axis=-1)
    np.testing.assert_array_equal(draw_scales(image, profile, label=volume).axes[0].images[0].get_array(), shown[0])
    without_label, of_the_image = draw_scales(image, profile), replace(profile, settings={"measure": "jpeg"})
    assert "an image of boxes" in without_label.get_suptitle()
    assert "an image of boxes" in draw_scales(image, of_the_image, label=label).get_suptitle()


def test_what_a_label_keeps_at_each_scale(tmp_path):
    image = np.zeros((1, 64, 48), np.uint8)
    label = np.zeros((1, 64, 48), np.uint8)
    label[0, 8:40, 8:40], label[0, 50, 40] = 1, 1
    ceiling = measure_ceiling([label])
    figure = draw_ceiling(image, label, ceiling, 4, names=("background", "box"))
    panels = [axes for axes in words_and_axes(figure) if axes.images]
    assert [axes.get_title() for axes in panels] == [
        "the label",
        "restored from 1/2",
        "restored from 1/4 *",
        "restored from 1/8",
    ]
    assert panels[0].images[0].get_array().shape == (48, 64, 3)  # rows along y
    red = np.array(panels[1].images[0].get_array())
    assert red[40, 50, 0] > red[40, 50, 1]  # the speck is lost
    assert "a pixel covers 4 x 4 of the image" in figure.get_suptitle()
    (curve,) = (axes for axes in words_and_axes(figure) if axes.lines)
    assert "box" in [line.get_label() for line in curve.lines]
    affine = np.array([[0, -2, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    volume = np.zeros((40, 32, 24), np.uint8)
    volume[8:32, 8:24, 6:18] = 1
    for name in ("image", "label"):
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"{name}.nii.gz")
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")]
    ceiling = measure_ceiling(files[1:])
    assert ceiling.scales[0] == (1, 2, 2)
    figure = draw_ceiling(*files, ceiling, (1, 2, 2))
    assert "a pixel of 2 x 2 x 2 mm" in figure.get_suptitle()


def words_and_axes(figure):
    return [axes for part in figure.subfigs for axes in part.axes]


def test_the_scales_of_a_volume_and_of_colours(tmp_path):
    rng = np.random.default_rng(0)
    profile = ComplexityProfile("noise", {"measure": "jpeg"}, (1, 2, 4, 8), (0.4, 0.3, 0.2, 0.1), None, 1)
    volume = rng.integers(0, 256, (2, 20, 16, 9), np.uint8)
    shown = [axes.images[0].get_array() for axes in draw_scales(volume, profile).axes if axes.images]
    np.testing.assert_array_equal(shown[0], volume[0, :, :, 4].T)
    assert len(shown) == 4
    Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8)).save(tmp_path / "colours.png")
    assert draw_scales(tmp_path / "colours.png", profile).axes[0].images[0].get_array().shape == (16, 20, 3)


def test_profiles_of_several_data_sets_compare_only_at_equal_settings():
    profiles = [ComplexityProfile.published(name) for name in ("wing_disk", "chase_db1", "melanoma")]
    figure = draw_profiles(profiles)
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [0.2826, 0.0642, 0.0279]
    assert "chase_db1 (20 images)" in words_of(figure)
    with pytest.raises(ValueError, match=r"different settings.*lymph_node"):
        draw_profiles([*profiles, ComplexityProfile.published("lymph_node", measure="foreground")])
    with pytest.raises(ValueError, match="no profile"):
        draw_profiles([])


def test_a_plan_is_drawn_with_each_stage_and_what_the_law_says_of_it():
    plan = compress(UNET, AccuracyFloor(0.95), **KNOWN)
    channels, law = draw_plan(plan).axes
    assert [bar.get_height() for bar in channels.patches] == [8, 16, 32, *plan.channels]
    assert [label.get_text() for label in channels.get_xticklabels()] == ["1", "1/2", "1/4"]
    dots = [line for line in law.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([share**-2 for share in plan.multipliers])
    assert min(dot.get_ydata()[0] for dot in dots) == pytest.approx(plan.predicted.score)


@pytest.mark.parametrize(
    ("network_def", "given", "parts", "names"),
    [
        (UNET, {"layerwise": False}, 2, ["1", "1/2", "1/4"]),
        (UNET, {"layerwise": False, "degradation": KNOWN["degradation"]}, 1, ["1", "1/2", "1/4"]),
        (UNET, {"layerwise": False, **KNOWN}, 2, ["1", "1/2", "1/4"]),
        (
            {"_target_": "monai.networks.nets.SegResNet", "spatial_dims": 2, "init_filters": 32},
            KNOWN,
            2,
            ["init_filters"],
        ),
    ],
)
def test_a_plan_without_a_law_and_one_of_a_single_width(network_def, given, parts, names):
    figure = draw_plan(compress(network_def, DiskBudget(2_000_000), **given))
    assert len(figure.axes) == parts
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == names


def test_what_was_missed_is_red_what_is_too_much_green_and_agreement_yellow():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 3, (2, 1, 12, 8))
    picture = overlay(np.zeros((1, 12, 8)), truth, found).astype(int)
    assert picture.shape == (8, 12, 3)
    red, green = picture[..., 0].T > 100, picture[..., 1].T > 100
    np.testing.assert_array_equal(red & green, (truth[0] > 0) & (truth == found)[0])
    np.testing.assert_array_equal(red & ~green, (truth[0] > 0) & (truth != found)[0])
    np.testing.assert_array_equal(~red & green, (truth[0] == 0) & (found[0] > 0))
    with pytest.raises(ValueError, match="of the image"):
        overlay(np.zeros((1, 12, 8)), truth, found[:, :-1])


def test_of_a_volume_the_slice_with_most_that_is_true():
    truth = np.zeros((1, 6, 5, 4), int)
    truth[..., 2] = 1
    assert (overlay(np.zeros((1, 6, 5, 4)), truth, 0 * truth)[..., 0] > 100).all()


@pytest.mark.parametrize(("images", "models", "shape"), [(1, 1, (1, 2)), (3, 1, (2, 3)), (2, 4, (2, 5))])
def test_overlays_of_several_images_by_several_networks(images, models, shape):
    segmented = [
        SegmentedImage(
            f"image_{index}.png", np.ones((1, 9, 6)), np.ones((1, 9, 6), int), np.eye(9, 6, dtype=int)[None], f1, index
        )
        for index, f1 in zip(range(images), (0.5, None, 0.75), strict=False)
    ]
    figure = draw_overlays({f"network {index}": segmented for index in range(models)})
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert len(figure.axes) == images * (1 + models)
    words = words_of(figure)
    assert {"image", "network 0", "image_0.png", "F1 0.500"} <= set(words)
    assert words.count("F1 undefined") == (models if images > 1 else 0)
    with pytest.raises(ValueError, match="the same images"):
        draw_overlays({"a": segmented, "b": []})
