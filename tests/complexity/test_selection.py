"""Selection: which measure follows the degradation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from monai_ccnet.complexity import ComplexityProfile, MeasureFit, rank_measures

NAMES = ("a", "b", "c", "d", "e")
SLOPES = dict(zip(NAMES, (0.02, 0.05, 0.04, 0.11, 0.09), strict=True))


def profiles(measure, values, scales=(1,)):
    return [
        ComplexityProfile(name, {"measure": measure}, scales, (value,) * len(scales), None, 1)
        for name, value in zip(NAMES, values, strict=True)
    ]


def test_a_measure_that_follows_comes_before_one_that_does_not():
    following = [0.5 * slope - 0.005 for slope in SLOPES.values()]
    best, worst = rank_measures(profiles("noise", (3, 1, 2, 2, 1)) + profiles("edges", following), SLOPES)
    assert (best.measure, worst.measure) == ("edges", "noise")
    assert (best.slope, best.intercept) == pytest.approx((2.0, 0.01))
    assert best.leave_one_out_error == pytest.approx(0, abs=1e-12)
    assert best.leave_one_out_r_squared == pytest.approx(1)
    assert best.rank_correlation == pytest.approx(1)
    assert worst.leave_one_out_r_squared < 0 < worst.leave_one_out_error
    assert MeasureFit.from_dict(best.to_dict()) == best
    assert "leave-one-out error 0.0000" in str(best)


@given(st.integers(0, 1000))
def test_the_same_numbers_as_scikit_learn_and_scipy(seed):
    x, y = np.random.default_rng(seed).random((2, len(NAMES)))
    (fit,) = rank_measures(profiles("jpeg", x), dict(zip(NAMES, y, strict=True)))
    expected = cross_val_predict(LinearRegression(), x[:, None], y, cv=LeaveOneOut())
    assert fit.predicted == pytest.approx(expected)
    assert fit.leave_one_out_error == pytest.approx(np.sqrt(np.mean((y - expected) ** 2)))
    assert fit.r_squared == pytest.approx(LinearRegression().fit(x[:, None], y).score(x[:, None], y), abs=1e-9)
    assert fit.rank_correlation == pytest.approx(stats.spearmanr(x, y).statistic)


@given(st.floats(0.1, 100), st.floats(0, 10))
def test_the_unit_of_a_measure_does_not_matter(gain, offset):
    x = np.array((1.0, 2.0, 1.5, 4.0, 3.0))
    (one,) = rank_measures(profiles("jpeg", x), SLOPES)
    (other,) = rank_measures(profiles("jpeg", gain * x + offset), SLOPES)
    assert other.leave_one_out_error == pytest.approx(one.leave_one_out_error)
    assert other.rank_correlation == one.rank_correlation


def test_a_measure_that_says_nothing_predicts_the_mean_of_the_others():
    (fit,) = rank_measures(profiles("entropy", (2,) * 5), SLOPES)
    slopes = list(SLOPES.values())
    assert fit.predicted == pytest.approx([np.mean(np.delete(slopes, index)) for index in range(5)])
    assert fit.leave_one_out_r_squared == pytest.approx(0)
    assert fit.rank_correlation is None
    assert "undefined" in str(fit)


def test_measures_of_other_settings_are_other_measures():
    others = [
        ComplexityProfile(p.dataset, {**p.settings, "quality": 90}, p.scales, p.mean, None, 1)
        for p in profiles("jpeg", (1, 2, 3, 4, 5))
    ]
    assert len(rank_measures(profiles("jpeg", (1, 2, 3, 5, 4)) + others, SLOPES)) == 2


@pytest.mark.parametrize(
    ("given_profiles", "slopes", "message"),
    [
        (profiles("jpeg", range(5)), {"a": 0.1, "b": 0.2}, "at least three"),
        (profiles("jpeg", range(5))[:4], SLOPES, r"no profile of \['e'\]"),
        (profiles("jpeg", range(5)) * 2, SLOPES, "two profiles of 'a'"),
        ([], SLOPES, "no profile to rank"),
    ],
)
def test_refusals(given_profiles, slopes, message):
    with pytest.raises(ValueError, match=message):
        rank_measures(given_profiles, slopes)


def test_a_scale_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="measure the data set with scales"):
        rank_measures(profiles("jpeg", range(5)), SLOPES, scale=4)


def test_the_share_of_jpeg_in_jb_is_found():
    rng = np.random.default_rng(0)
    jpeg, density = rng.random((2, 5))
    names = dict(zip(NAMES, zip(jpeg, density, strict=True), strict=True))
    slopes = {name: 0.3 * (0.7 * j + 0.3 * b) + 0.02 for name, (j, b) in names.items()}
    mixed = [
        ComplexityProfile(name, {"measure": "jpeg"}, (1,), (j,), None, 1).mixed_with(
            ComplexityProfile(name, {"measure": "foreground"}, (1,), (b,), None, 1), omega
        )
        for omega in np.linspace(0, 1, 41).round(3).tolist()
        for name, (j, b) in names.items()
    ]
    best, *_ = rank_measures(mixed, slopes)
    assert best.settings["omega"] == 0.7
    assert best.slope == pytest.approx(0.3)
