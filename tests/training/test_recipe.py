"""The planned recipe: it follows from the data, each choice has its reason, and what is asked for is used."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_ccnet.data import DataReading
from monai_ccnet.data.facts import FileFacts
from monai_ccnet.networks import network_divisor, network_size
from monai_ccnet.training import (
    MOST_PIXELS,
    device_of_cache,
    largest_structure,
    median_lengths,
    plan_batch,
    plan_recipe,
)
from monai_ccnet.training.recipe import print_recipe


def facts(*shape, frame="picture", affine=()):
    return FileFacts(
        path=f"{shape}",
        is_label=False,
        bytes=1,
        modified=1,
        mode="",
        frame=frame,
        shape=shape,
        affine=affine,
        orientation="",
        low=0,
        high=1,
        values={},
        digest="",
        content="",
    )


def reading_of(*files):
    return DataReading(dataset="made", labels=("a", "b"), label_values={}, held_out=None, training=files)


def test_a_small_image_is_a_patch_as_a_whole():
    recipe = plan_recipe("planned", (160, 150), divisor=16)
    assert recipe.patch_size == (160, 160)
    assert "the whole of a median image of 160 x 150" in recipe.reasons["patch_size"]
    assert plan_recipe("planned", (1000, 600), 4, divisor=16).patch_size == (1000, 600)  # AtScale pads by itself
    assert plan_recipe("planned", (35, 50, 36), divisor=16).patch_size == (48, 64, 48)


def test_of_a_large_image_a_patch_is_what_its_structures_need():
    assert plan_recipe("planned", (976, 976), divisor=16).patch_size == (256, 256)
    assert plan_recipe("planned", (976, 976), divisor=16, largest=400).patch_size == (256, 256)
    recipe = plan_recipe("planned", (976, 976), divisor=16, largest=60)
    assert recipe.patch_size == (128, 128)
    assert recipe.reasons["patch_size"] == "2 times the largest structure, which spans 60 pixels in nine of ten images"
    assert plan_recipe("planned", (976, 976), divisor=16, largest=5).patch_size == (96, 96)
    assert plan_recipe("planned", (4000, 4000), 4, divisor=16, largest=200).patch_size == (448, 448)


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=2, max_size=3),
    scale=st.integers(1, 8),
    divisor=st.sampled_from([1, 8, 16, 32]),
    largest=st.none() | st.floats(1, 3000),
)
def test_a_patch_keeps_to_its_share_and_fits_the_network(lengths, scale, divisor, largest):
    recipe = plan_recipe("planned", lengths, scale, divisor=divisor, largest=largest)
    most = MOST_PIXELS[len(lengths)]
    seen = [length // scale for length in recipe.patch_size]
    assert all(length % scale == 0 for length in recipe.patch_size)
    assert math.prod(seen) <= most
    assert scale > 1 or all(length % divisor == 0 for length in recipe.patch_size)
    padded = [divisor * math.ceil(scale * math.ceil(length / scale) / divisor) for length in lengths]
    assert all(part <= whole for part, whole in zip(recipe.patch_size, padded, strict=True)) or scale > 1


def test_the_share_of_memory_is_that_of_the_full_size_network():
    for dims, count in ((2, 4), (3, 2)):
        side = round(MOST_PIXELS[dims] ** (1 / dims) / 16) * 16
        network_def = {"_target_": "monai_ccnet.networks.PlainUNet", "spatial_dims": dims, "out_channels": 2}
        size = network_size(network_def, (count, 1, *[side] * dims))
        assert size.training_bytes < 2.2e9


def test_small_patches_make_a_larger_batch():
    sizes = {64: 8, 90: 8, 100: 6, 128: 4, 900: 4}
    assert {side: plan_batch("planned", (side, side)) for side in sizes} == sizes
    assert plan_batch("planned", (320, 320), 4) == 8
    assert plan_batch("planned", (48, 64, 48)) == 2
    assert plan_batch("planned", (35, 50, 36), 2) == 4
    assert plan_batch("paper", (35, 50)) == 4


def test_the_recipe_of_the_paper_is_the_same_for_all_data():
    recipe = plan_recipe("paper", (976, 976), divisor=16)
    assert recipe.patch_size == (128, 128)
    assert (recipe.lambda_dice, recipe.rate_cycles, recipe.warmup_steps) == (0.0, 0.0, 0)
    with pytest.raises(ValueError, match="recipe must be one of planned, paper, got 'nnunet'"):
        plan_recipe("nnunet", (64, 64))


def test_the_median_image_is_that_of_training_as_the_pipeline_sees_it():
    assert median_lengths(reading_of(facts(1, 10, 20), facts(1, 30, 40), facts(1, 50, 90))) == [30, 40]
    turned = ((0.0, 0.0, 2.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    volume = reading_of(facts(1, 10, 20, 30, frame="volume", affine=turned))
    assert median_lengths(volume) == [30, 10, 20]
    assert median_lengths(volume, [1.0, 1.0, 4.0]) == [60, 10, 5]
    flat = facts(1, 10, 20, frame="volume", affine=((0, 1, 0, 0), (2, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
    assert median_lengths(reading_of(flat)) == [10, 20]  # it is not turned
    assert median_lengths(reading_of(flat), [1.0, 1.0]) == [20, 20]
    assert flat.spacing == (2, 1)


def test_labels_are_looked_at_only_where_a_patch_cannot_hold_the_image():
    assert largest_structure((64, 64), 1, ["missing.png"], {}) is None
    label = torch.zeros(1, 400, 400, dtype=torch.long)
    label[0, 10:110, 10:40] = 1
    assert largest_structure((400, 400), 1, [label], {"label_key": "label"}) == 100
    assert largest_structure((400, 400), 2, [label], {}) is None


def test_the_divisor_of_a_network_is_found():
    unet = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [2, 2, 2]}
    from monai_ccnet.networks import AtScale, build_network

    assert network_divisor(build_network(unet)) == (4, 4)
    assert network_divisor(AtScale(build_network(unet), 2)) == (4, 4)
    for name in ("PlainUNet", "UCUNet", "CUMedVision"):  # ours say what would be found
        ours = build_network({"_target_": f"monai_ccnet.networks.{name}", "channels": [2, 2, 2]})
        said = network_divisor(ours)
        ours.__class__ = type(name, (type(ours),), {"__module__": "mine"})
        assert network_divisor(ours) == said


def test_what_was_asked_for_is_said(capsys, monkeypatch):
    recipe = plan_recipe("planned", (160, 160), divisor=16)
    print_recipe(recipe, {"patch_size": (160, 160), "batch_size": 7, "precision": "float32"}, 8)
    words = capsys.readouterr().out
    assert "patch_size 160 x 160: the whole of a median image of 160 x 160" in words
    assert "batch_size 7, as asked for" in words
    assert "precision float32" in words
    print_recipe(recipe, {"patch_size": [96, 96], "batch_size": 8}, 8)
    words = capsys.readouterr().out
    assert "patch_size 96 x 96, as asked for" in words
    assert "batch_size 8: twice as many where they are small" in words
    monkeypatch.setenv("RANK", "1")
    print_recipe(recipe, {"batch_size": 7}, 8)
    assert not capsys.readouterr().out


def test_images_are_kept_on_a_gpu_where_they_fit(monkeypatch):
    reading = reading_of(facts(1, 100, 100), facts(1, 100, 100))  # 160,000 bytes with their labels
    assert device_of_cache("cpu", reading) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (640_000, 10**9))
    assert device_of_cache("cuda", reading) == torch.device("cuda")
    assert device_of_cache("cuda", reading, None, 2) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (639_000, 10**9))
    assert device_of_cache("cuda", reading) is None
