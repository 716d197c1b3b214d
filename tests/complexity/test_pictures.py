"""Any image to 8 bit."""

import itertools

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_ccnet.complexity import complexity_at_scales, measure_settings
from monai_ccnet.complexity.pictures import as_array, as_radiologists_see, in_ras, to_pictures
from monai_ccnet.transforms import LabelComplexity

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (1, 20, 30)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.uint16])
def test_whole_numbers_up_to_255_are_taken_as_they_are(dtype):
    (picture,) = to_pictures(IMAGE.astype(dtype))
    assert np.array_equal(picture, IMAGE[0].T)
    assert picture.dtype == np.uint8


MASK = RNG.random((1, 40, 30)) > 0.7


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float16, np.float32, bool])
def test_a_picture_of_0_and_1_is_the_picture_of_0_and_255(kind):
    white = to_pictures(MASK * np.uint8(255))[0]
    assert set(np.unique(white)) == {0, 255}
    assert np.array_equal(to_pictures(MASK.astype(kind))[0], white)
    assert complexity_at_scales(MASK.astype(kind)) == complexity_at_scales(MASK * np.uint8(255))
    assert complexity_at_scales(torch.as_tensor(MASK)) == complexity_at_scales(torch.as_tensor(MASK).bfloat16())
    for intensity in ("minmax", (0, 1)):
        assert np.array_equal(to_pictures(MASK.astype(kind), intensity=intensity)[0], white)


@pytest.mark.parametrize("step", [256, 257])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("content", [IMAGE, IMAGE // 3, MASK.astype(np.uint8)], ids=["full", "dark", "mask"])
def test_8_bits_widened_to_16_are_the_same_8_bits(content, dtype, step):
    wide = content.astype(dtype) * dtype(step)
    assert np.array_equal(to_pictures(wide)[0], to_pictures(content)[0])
    assert complexity_at_scales(wide) == complexity_at_scales(content)


def test_any_other_16_bits_are_stretched_by_percentiles():
    image = IMAGE.astype(np.uint16) * 257
    image[0, 0, :3] = 0, 65535, 5  # the extremes are multiples of 257
    assert np.array_equal(to_pictures(image)[0], to_pictures(image, intensity="percentile")[0])


def test_a_window_of_percentiles_from_0_to_255_does_not_wrap_what_lies_beyond():
    image = np.repeat([0.0, 100.5, 255.0], 1000)
    image[[0, -1]] = -20, 300
    picture = to_pictures(image.reshape(1, 50, 60), axes="yx")[0].ravel()
    assert (picture[0], picture[-1], picture.max()) == (0, 255, 255)


def test_half_precision_is_measured_as_float32():
    image = torch.as_tensor(RNG.normal(size=(1, 24, 24)))
    for half in (image.half(), image.bfloat16()):
        assert complexity_at_scales(half) == complexity_at_scales(half.float())
        assert as_array(half).dtype == np.float32
    assert complexity_at_scales(image.half().numpy()) == complexity_at_scales(image.half().float())


ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(pairs, sides, strict=True))
    for pairs in itertools.permutations(["LR", "PA", "IS"])
    for sides in itertools.product((0, 1), repeat=3)
]


def test_all_48_orientations_of_a_volume_are_as_complex():
    assert len(set(ORIENTATIONS)) == 48
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    image = MetaTensor(RNG.integers(0, 256, (2, 18, 24, 11)), affine=affine)
    label = MetaTensor(np.repeat(RNG.integers(0, 3, (1, 18, 12, 11)), 2, axis=2), affine=affine)
    for orientation in ORIENTATIONS:
        turn = Orientation(axcodes=orientation, labels=None)
        assert nibabel.aff2axcodes(turn(image).affine) == tuple(orientation)
        assert complexity_at_scales(turn(image), scales=(1, 2)) == complexity_at_scales(image, scales=(1, 2))
        for name in ("boundary", "label_jpeg", "label_detail", "foreground"):
            own = {"spacing": "physical"} if name == "boundary" else {}
            measure = LabelComplexity(name, scales=(1, 2), **own)
            assert measure(turn(label)) == pytest.approx(measure(label), rel=1e-12)


def test_only_a_volume_with_an_affine_is_turned():
    volume, flat = RNG.integers(0, 256, (1, 16, 20, 9)), RNG.integers(0, 256, (1, 16, 20))
    upside_down = np.diag([1.0, -1.0, -1.0, 1.0])
    assert complexity_at_scales(MetaTensor(volume)) == complexity_at_scales(volume)
    turned = complexity_at_scales(MetaTensor(volume, affine=upside_down))
    assert turned == complexity_at_scales(volume[:, :, ::-1, ::-1])
    assert turned != complexity_at_scales(volume)
    assert complexity_at_scales(MetaTensor(flat, affine=upside_down)) == complexity_at_scales(flat)


def test_an_affine_in_lps_space_is_taken_as_such():
    volume = RNG.integers(0, 256, (1, 16, 20, 9))
    ras = MetaTensor(volume, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    lps = MetaTensor(volume, affine=np.eye(4), meta={"space": "LPS"})
    assert complexity_at_scales(lps) == complexity_at_scales(ras) == complexity_at_scales(volume[:, ::-1, ::-1])


def test_an_oblique_volume_takes_the_nearest_orientation_and_its_spacing_follows():
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:3, :3] = [[0, -np.cos(turn), np.sin(turn)], [0, np.sin(turn), np.cos(turn)], [4, 0, 0]]  # to SLA
    array = RNG.integers(0, 256, (1, 4, 5, 6))
    turned, spacing = in_ras(array, affine, [4, 1, 2])
    assert np.array_equal(turned, array.transpose(0, 2, 3, 1)[:, ::-1])
    assert spacing == [1, 2, 4]


@pytest.mark.parametrize("shape", [(1, 20, 30, 3), (4, 20, 30, 2), (1, 20, 3), (4, 4, 4)])
def test_thin_images_are_not_channel_last(shape):
    assert complexity_at_scales(np.zeros(shape, np.uint8))[1] > 0
    assert complexity_at_scales(label=np.zeros(shape, np.uint8), settings=measure_settings("boundary"))[1] == 0


def test_axes_tell_rows_from_columns():
    assert to_pictures(IMAGE, axes="xy")[0].shape == (30, 20)
    assert np.array_equal(to_pictures(IMAGE, axes="yx")[0], IMAGE[0])
    assert to_pictures(np.zeros((1, 4, 5, 6), np.uint8), axes="xy")[0].shape == (6, 5, 4)
    assert to_pictures(np.zeros((1, 4, 5, 6), np.uint8), axes="yx")[0].shape == (6, 4, 5)


@pytest.mark.parametrize("stretch", ["auto", "minmax", "percentile"])
def test_a_stretch_does_not_see_gain_and_offset(stretch):
    image = RNG.normal(size=(1, 32, 32))
    pictures = [to_pictures(image * gain + offset, intensity=stretch)[0] for gain, offset in ((1, 0), (300, -1000))]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1
    assert (pictures[0].min(), pictures[0].max()) == (0, 255)


def test_a_hounsfield_window_is_a_fixed_range():
    hounsfield = np.array([[[-3024, -1000, 0, 1000, 3071]]], np.int16)
    assert to_pictures(hounsfield, intensity=(-1000, 1000), axes="yx")[0].tolist() == [[0, 0, 128, 255, 255]]


def test_three_channels_are_a_colour_picture_and_others_apart():
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5)))] == [(5, 4, 3)]
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5)), channels="separate")] == [(5, 4)] * 3
    assert [p.shape for p in to_pictures(np.zeros((4, 4, 5)))] == [(5, 4)] * 4
    assert [p.shape for p in to_pictures(np.zeros((3, 4, 5, 6)))] == [(6, 5, 4)] * 3


@pytest.mark.parametrize("value", [0, 7.25, -1000])
def test_a_constant_image_is_flat(value):
    assert np.unique(to_pictures(np.full((1, 8, 8), value, np.float32))[0]).size == 1


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.full((1, 4, 4), np.nan), {}, "NaN or infinite"),
        (np.full((1, 4, 4), np.inf), {}, "NaN or infinite"),
        (np.full((1, 4, 4), np.nan), {"intensity": (0, 1)}, "NaN or infinite"),
        (np.zeros((4, 4)), {}, r"add a channel axis with image\[None\]"),
        (np.zeros((1, 0, 4)), {}, "no empty axis"),
        (np.zeros((1, 4, 4), complex), {}, r"real numbers, got dtype complex128: take its magnitude with np\.abs"),
        (np.array([[["a"]]]), {}, "real numbers, got dtype <U1"),
        (np.full((1, 4, 4), np.inf, np.float16), {}, "NaN or infinite"),
        (
            np.zeros((96, 96, 3)),
            {},
            r"channel axis first, and in the shape \(96, 96, 3\) .* np\.moveaxis\(image, -1, 0\)",
        ),
        (np.zeros((96, 96, 1)), {}, r"in the shape \(96, 96, 1\) it seems to be last"),
        (np.zeros((32, 32, 20, 3)), {}, r"in the shape \(32, 32, 20, 3\) it seems to be last"),
        (np.zeros((1, 4, 4)), {"intensity": (0, np.inf)}, "pair .* of finite numbers"),
        (np.zeros((1, 4, 4)), {"intensity": "bright"}, "intensity must be one of"),
        (np.zeros((1, 4, 4)), {"intensity": (5, 5)}, "low < high"),
        (np.zeros((1, 4, 4)), {"channels": "colour"}, r"shape \(3, H, W\)"),
        (np.zeros((1, 4, 4)), {"channels": "sum"}, "channels must be one of"),
        (np.zeros((1, 4, 4)), {"axes": "zyx"}, "axes must be one of"),
    ],
)
def test_refusals(image, options, message):
    with pytest.raises(ValueError, match=message):
        to_pictures(image, **options)


@pytest.mark.parametrize(
    "affine", [np.full((4, 4), np.nan), np.diag([1.0, 0, 1, 1]), np.diag([1.0, 1, np.inf, 1]), np.eye(3)]
)
def test_an_affine_that_cannot_be_inverted_is_refused(affine):
    volume = MetaTensor(RNG.integers(0, 2, (1, 8, 8, 8)))
    volume.meta["affine"] = torch.as_tensor(affine)
    with pytest.raises(ValueError, match=r"affine of a volume of shape \(1, 8, 8, 8\) must be a 4 x 4 matrix"):
        complexity_at_scales(volume)
    with pytest.raises(ValueError, match="affine of a volume"):
        complexity_at_scales(label=volume, settings=measure_settings("foreground"))


def test_slices_are_shown_with_the_front_at_the_top_and_the_right_on_the_left():
    array = np.zeros((1, 3, 4, 5))  # right, anterior, superior
    array[0, 2, 3, 4] = 1  # the rightmost, foremost and topmost voxel
    shown = to_pictures(as_radiologists_see(array, np.eye(4)))[0]
    assert shown[4, 0, 0] == shown.max() > 0
    assert np.array_equal(
        as_radiologists_see(array[:, ::-1], np.diag([-1.0, 1, 1, 1])), as_radiologists_see(array, np.eye(4))
    )
    assert np.array_equal(as_radiologists_see(array, None), array)
    assert np.array_equal(as_radiologists_see(array[..., 0], np.eye(4)), array[..., 0])
