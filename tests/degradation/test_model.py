"""The law of degradation: published constants, fits, intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.degradation import DegradationModel, DegradationPoint, inverse_log_compression, log_compression
from monai_ccnet.networks import narrow, network_size

# F1 of Tables 4 and 5, at the multipliers 1, 0.75, 0.5, 0.25, 0.1875, 0.125, 0.0625
MULTIPLIERS = (1, 0.75, 0.5, 0.25, 0.1875, 0.125, 0.0625)
PUBLISHED_F1 = {
    "chase_db1": (0.7748, 0.7684, 0.7602, 0.7395, 0.7498, 0.6823, 0.4739),
    "drive": (0.7940, 0.7901, 0.7857, 0.7864, 0.7494, 0.7727, 0.7125),
    "melanoma": (0.8444, 0.8238, 0.8177, 0.7875, 0.7874, 0.7548, 0.7574),
}


@pytest.fixture(scope="module")
def published_points():
    unet = {"_target_": "monai_ccnet.networks.PlainUNet"}
    weights = [network_size(narrow(unet, multiplier)).weights for multiplier in MULTIPLIERS]
    return [
        DegradationPoint(name, ComplexityProfile.published(name).at(1), weights[0] / count, score / scores[0])
        for name, scores in PUBLISHED_F1.items()
        for count, score in zip(weights, scores, strict=True)
    ]


def _points(truth, complexities=(0.1, 0.2, 0.3), noise=0.0, rng=None):
    return [
        DegradationPoint(str(c), c, x, truth.predict(c, x) + noise * (rng.normal() if rng else 0))
        for c in complexities
        for x in (1, 2, 10, 100)
    ]


def test_table_3():
    constants = {
        ("unet", "f1"): (0.437, 0.01030),
        ("cumedvision", "f1"): (0.538, 0.00427),
        ("ucunet", "f1"): (0.241, 0.00956),
        ("unet", "iu"): (0.349, 0.000072),
        ("cumedvision", "iu"): (0.366, 0.000096),
        ("ucunet", "iu"): (0.151, 0.007080),
    }
    for (network, metric), expected in constants.items():
        model = DegradationModel.published(network, metric=metric)
        assert (model.slope, model.intercept) == expected


def test_a_setting_names_the_law_of_its_network(tmp_path):
    ours, monais = {"_target_": "monai_ccnet.networks.PlainUNet"}, {"_target_": "monai.networks.nets.BasicUNet"}
    for network_def in (ours, monais):
        assert DegradationModel.named("calibrated", network_def) == DegradationModel.calibrated("plain_unet")
        assert DegradationModel.named("paper", network_def, "iu") == DegradationModel.published("unet", "iu")
    for name in ("CUMedVision", "UCUNet"):
        network_def = {"_target_": f"monai_ccnet.networks.{name}"}
        assert DegradationModel.named("calibrated", network_def) == DegradationModel.calibrated(name.lower())
        assert DegradationModel.named("paper", network_def) == DegradationModel.published(name.lower())
    own = DegradationModel.from_constants(0.2, 0.01, settings={"measure": "jpeg"})
    own.save(tmp_path / "own.json")
    assert DegradationModel.named(str(tmp_path / "own.json"), ours) == own


def test_published_models_and_profiles_belong_together():
    lymph_node = ComplexityProfile.published("lymph_node")
    DegradationModel.published("unet", metric="f1").check_settings(lymph_node.settings)
    for network, omega in {"unet": 0.7, "cumedvision": 0.775, "ucunet": 0.95}.items():
        jb = ComplexityProfile.published("lymph_node", measure="jb", omega=omega)
        DegradationModel.published(network, metric="iu").check_settings(jb.settings)
    with pytest.raises(ValueError, match=r"omega: law 0.7, complexity None"):
        DegradationModel.published("unet", metric="iu").check_settings(lymph_node.settings)


def test_spread_of_the_papers_own_tables_about_its_law(published_points):
    model = DegradationModel.published("unet", metric="f1")
    errors = [model.predict(p.complexity, p.compression) - p.score for p in published_points if p.compression > 1]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(model.residual_deviation, abs=5e-5)


@pytest.mark.parametrize(("curvature", "expected"), [(0, (0.081, 0.019, 0.011)), (0.5, (0.035, 0.014, 0.030))])
def test_what_a_line_and_a_curve_leave_of_tables_4_and_5(published_points, curvature, expected):
    for dataset, rms in zip(PUBLISHED_F1, expected, strict=True):
        h, loss = np.array(
            [(log_compression(p.compression, curvature), 1 - p.score) for p in published_points if p.dataset == dataset]
        ).T
        assert np.sqrt(np.mean((loss - h * (h @ loss) / (h @ h)) ** 2)) == pytest.approx(rms, abs=1e-3)


@pytest.mark.parametrize("curvature", [0, 0.5, -0.2])
def test_fit_recovers_an_exact_law(curvature):
    truth = DegradationModel.from_constants(slope=0.2, intercept=0.01, curvature=curvature)
    model = DegradationModel.fit(_points(truth), curvature=curvature)
    assert (model.slope, model.intercept) == pytest.approx((0.2, 0.01))
    assert model.standard_errors == pytest.approx((0, 0), abs=1e-7)
    assert model.r_squared == pytest.approx(1)
    assert (model.datasets, model.points) == (3, 9)


def test_standard_errors_cover_the_truth():
    truth, rng = DegradationModel.from_constants(slope=0.3, intercept=0.01), np.random.default_rng(0)
    fits = [DegradationModel.fit(_points(truth, (0.05, 0.1, 0.2, 0.4), 0.02, rng)) for _ in range(200)]
    within = [abs(fit.slope - 0.3) <= 2.8 * fit.standard_errors[0] for fit in fits]  # t of 4 - 2 degrees and more
    assert np.mean(within) >= 0.9
    spread = np.std([fit.slope for fit in fits])
    assert np.mean([fit.standard_errors[0] for fit in fits]) == pytest.approx(spread, rel=0.3)


@given(st.floats(1, 1e6), st.floats(-0.5, 1, allow_subnormal=False))
def test_the_curve_and_its_inverse(compression, curvature):
    assert inverse_log_compression(log_compression(compression, curvature), curvature) == pytest.approx(
        compression, rel=1e-4
    )


@given(st.floats(0, 1), st.floats(1, 1e5), st.floats(1, 1e5))
def test_scores_never_rise_with_compression_or_complexity(complexity, first, second):
    model, (less, more) = DegradationModel.published("unet"), sorted((first, second))
    assert 1 >= model.predict(complexity, less) >= model.predict(complexity, more) >= 0
    assert model.predict(complexity, less) <= model.predict(complexity / 2, less)


def test_intervals_hold_the_score_and_widen_with_the_level():
    model = DegradationModel.published("unet")
    narrow_one, wide = (model.predict_interval(0.15, 30, level) for level in (0.5, 0.95))
    assert wide.low < narrow_one.low < narrow_one.score < narrow_one.high <= wide.high
    assert DegradationModel.published("cumedvision").predict_interval(0.15, 30).low is None
    at_full = model.predict_interval(0.15, 1)
    assert (at_full.low, at_full.high) == (1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DegradationModel.published("vnet"), r"no law is published.*\('unet', 'f1'\)"),
        (lambda: DegradationModel.fit([]), "at least two complexities"),
        (lambda: DegradationModel.fit([DegradationPoint("a", 0.1, 2, 0.9)]), "train on another data set"),
        (
            lambda: DegradationModel.fit([DegradationPoint("a", 0.1, 2, 0.9), DegradationPoint("b", 0.2, 1, 1)]),
            r"'b'.* hold no narrowed network",
        ),
        (lambda: DegradationModel.fit([DegradationPoint("a", math.nan, 2, 0.9)]), "finite"),
        (lambda: DegradationModel.from_constants(math.inf, 0), "finite"),
        (lambda: DegradationModel.published("unet").predict(-0.1, 2), "not negative"),
        (lambda: DegradationModel.published("unet").predict(0.1, 0.5), "at least 1"),
        (lambda: DegradationModel.published("unet").predict_interval(0.1, 2, level=1), "level"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_assumption_is_named():
    model = DegradationModel.published("unet").assuming({"measure": "jpeg", "quality": 90})
    model.check_settings({"quality": 90, "measure": "jpeg"})
    assert "assumed" in model.source
    assert model.assuming(model.settings) is model


def _made_sweep(rng, truth, between=0.01, noise=0.01, count=8):
    """Make a sweep over data sets whose own slopes scatter about the law."""
    points = []
    for index, complexity in enumerate(np.linspace(0.1, 0.6, count)):
        own = truth.loss_per_decade(complexity) + between * rng.normal()
        for compression in (1, 1.8, 4, 16, 28, 64, 256):
            loss = own * log_compression(compression, truth.curvature)
            score = 1 - loss + noise * rng.normal() * (compression > 1)
            points.append(DegradationPoint(f"set {index}", complexity, compression, score))
    return points


@pytest.mark.parametrize("curvature", [0.0, 0.2])
def test_a_fit_recovers_all_constants_within_its_errors(curvature):
    truth = DegradationModel.from_constants(0.2, 0.02, curvature=curvature)
    hits = {"slope": 0, "intercept": 0, "curvature": 0}
    for seed in range(100):
        model = DegradationModel.fit(_made_sweep(np.random.default_rng(seed), truth), curvature=None)
        quantile = stats.t.ppf(0.975, model.datasets - 2)
        slope_error, intercept_error = model.standard_errors
        hits["slope"] += abs(model.slope - truth.slope) <= quantile * slope_error
        hits["intercept"] += abs(model.intercept - truth.intercept) <= quantile * intercept_error
        free = model.points - model.datasets - 1
        hits["curvature"] += abs(model.curvature - truth.curvature) <= stats.t.ppf(0.975, free) * model.curvature_error
    assert min(hits.values()) >= 93
    assert sum(hits.values()) >= 3 * 95


@pytest.mark.parametrize(("between", "noise", "count"), [(0.01, 0.01, 8), (0.01, 0.03, 6), (0.03, 0.01, 6)])
def test_ninety_percent_intervals_cover_ninety_percent_of_new_data_sets(between, noise, count):
    truth = DegradationModel.from_constants(0.2, 0.02)
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        model = DegradationModel.fit(_made_sweep(rng, truth, between, noise, count))
        complexity, compression = rng.uniform(0.1, 0.6), 10 ** rng.uniform(0.5, 2.4)
        own = truth.loss_per_decade(complexity) + between * rng.normal()
        score = 1 - own * math.log10(compression) + noise * rng.normal()
        prediction = model.predict_interval(complexity, compression, level=0.9)
        covered.append(prediction.low <= min(score, 1) <= prediction.high)
    assert 0.85 <= np.mean(covered) <= 0.95


def test_the_papers_own_curvature_and_errors_of_sets_left_out(published_points):
    model = DegradationModel.fit(published_points, curvature=None)
    assert model.curvature > 0
    assert set(model.left_out_errors) == set(model.dataset_slopes) == {"chase_db1", "drive", "melanoma"}
    assert "leave-one-out error of the relative score" in str(model)
    assert DegradationModel.from_dict(model.to_dict()) == model


def test_errors_of_sets_left_out_the_slow_way():
    points = _made_sweep(np.random.default_rng(3), DegradationModel.from_constants(0.3, 0.01), count=4)
    model = DegradationModel.fit(points)
    without = DegradationModel.fit([point for point in points if point.dataset != "set 1"])
    misses = [
        point.score - (1 - without.loss_per_decade(point.complexity) * math.log10(point.compression))
        for point in points
        if point.dataset == "set 1" and point.compression > 1
    ]
    assert model.left_out_errors["set 1"] == pytest.approx(np.sqrt(np.mean(np.square(misses))))


def test_a_network_that_did_not_learn_is_counted_and_not_fitted():
    truth = DegradationModel.from_constants(0.4, 0.01)
    points = _points(truth)
    dead = DegradationPoint("0.1", 0.1, 200, 0.0, has_learned=False)
    model = DegradationModel.fit([*points, dead])
    assert model.slope == pytest.approx(0.4)
    assert model.not_learned == 1
    assert "networks that failed to learn, not counted: 1" in str(model)


def test_a_few_networks_of_ones_own_narrow_the_interval():
    truth = DegradationModel.from_constants(0.2, 0.02)
    errors, widths = {k: [] for k in (0, 1, 2, 3)}, {k: [] for k in (0, 1, 2, 3)}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        model = DegradationModel.fit(_made_sweep(rng, truth, between=0.03))
        own = truth.loss_per_decade(0.3) + 0.03 * rng.normal()
        full_score = rng.uniform(0.6, 0.95)  # of the full-size network, which is never trained
        trials = [
            DegradationPoint("mine", 0.3, x, full_score * (1 - own * math.log10(x) + 0.01 * rng.normal()))
            for x in (256, 16, 64)
        ]
        for k in errors:
            adapted = model.adapt(trials[:k]) if k else model
            errors[k].append(adapted.loss_per_decade(0.3) - own)
            prediction = adapted.predict_interval(0.3, 30)
            widths[k].append(prediction.high - prediction.low)
    rms = {k: np.sqrt(np.mean(np.square(values))) for k, values in errors.items()}
    mean = {k: np.mean(values) for k, values in widths.items()}
    assert max(rms[2], rms[3]) < 0.6 * rms[0]
    assert mean[3] < mean[2] < 0.7 * mean[0]
    assert mean[1] == pytest.approx(mean[0], rel=0.1), "one network alone, of unknown full-size score, says little"


def test_adapting_does_not_see_the_scale_of_the_scores():
    model = DegradationModel.fit(_made_sweep(np.random.default_rng(0), DegradationModel.from_constants(0.2, 0.02)))
    relative = [DegradationPoint("mine", 0.3, 16, 0.9), DegradationPoint("mine", 0.3, 256, 0.8)]
    absolute = [point._replace(score=0.7 * point.score) for point in relative]
    assert model.adapt(absolute).loss_per_decade(0.3) == pytest.approx(model.adapt(relative).loss_per_decade(0.3))
    assert "adapted to mine by 2 of its own networks" in model.adapt(relative).source


@pytest.mark.parametrize(
    ("model", "points", "message"),
    [
        (DegradationModel.published("unet"), [DegradationPoint("a", 0.1, 2, 0.9)], "lacks standard deviations"),
        (None, [], "at least one network that learned"),
        (None, [DegradationPoint("a", 0.1, 2, 0.9), DegradationPoint("b", 0.1, 2, 0.9)], "all of one data set"),
    ],
)
def test_adapting_refuses(model, points, message):
    if model is None:
        model = DegradationModel.fit(_made_sweep(np.random.default_rng(0), DegradationModel.from_constants(0.2, 0.02)))
    with pytest.raises(ValueError, match=message):
        model.adapt(points)
