"""What each setting may be: the values that are taken, and the words of a refusal."""

import pytest

from monai_ccnet.__main__ import main
from monai_ccnet.configs import check_recipe
from monai_ccnet.networks.precision import PRECISIONS
from monai_ccnet.networks.storage import STORAGE_TYPES
from monai_ccnet.settings import KINDS, SETTINGS, check_value

REFUSED = [
    ("channels", 8, "channels must be a list of at least one whole number from 1, got 8: it is the channels of each"),
    ("channels", [], r"channels must be a list of at least one whole number from 1, got \[\]"),
    ("channels", [64, 0], r"whole number from 1, got \[64, 0\]"),
    ("patch_size", [96, 0.5], r"patch_size must be a list of at least one whole number from 1, got \[96, 0\.5\]"),
    ("scales", [0, 1], r"scales must be a list of at least one whole number from 1, got \[0, 1\]"),
    ("learning_rate", float("nan"), "learning_rate must be a number above 0, got nan: it is the highest learning rate"),
    ("learning_rate", float("inf"), "learning_rate must be a number above 0, got inf"),
    ("learning_rate", 0, "learning_rate must be a number above 0, got 0"),
    ("epoch_length", 0, "epoch_length must be a whole number from 1, got 0: it is the number of steps of an epoch"),
    ("max_epochs", -1, "max_epochs must be a whole number from 1, got -1"),
    ("batch_size", 2.5, r"batch_size must be a whole number from 1, got 2\.5"),
    ("val_interval", 0, "val_interval must be a whole number from 1, got 0"),
    ("seed", -1, "seed must be a whole number from 0, got -1"),
    ("seeds", [], r"seeds must be a list of at least one whole number from 0, got \[\]"),
    ("num_workers", -1, "num_workers must be a whole number from 0, got -1"),
    ("warmup_steps", -1, "warmup_steps must be a whole number from 0, got -1"),
    ("lambda_dice", -0.1, r"lambda_dice must be a number from 0, got -0\.1"),
    ("cache_rate", 1.5, r"cache_rate must be a number from 0 to 1, got 1\.5"),
    ("full_size_score", 0, "full_size_score must be a number above 0 and at most 1 or None, got 0: it is the score of"),
    ("min_score", True, "min_score must be a number above 0 and at most 1 or None, got True: it is the least score"),
    ("min_score", 95, "min_score must be a number above 0 and at most 1 or None, got 95"),
    ("bits_per_weight", 7, "bits_per_weight must be one of 8, 16, 32, 64, got 7: it is the bits of a stored weight"),
    ("bits_per_weight", "8", "bits_per_weight must be one of 8, 16, 32, 64, got '8'"),
    ("count", "kernels", "count must be one of parameters, weights, got 'kernels'"),
    ("metric", "dice", "metric must be one of f1, iu, got 'dice'"),
    ("precision", "half", "precision must be one of auto, float32, bfloat16, float16, got 'half'"),
    ("budget_bytes", 0, "budget_bytes must be a whole number from 1 or None, got 0"),
    ("budget_latency_seconds", 0.0, r"budget_latency_seconds must be a number above 0 or None, got 0\.0"),
    ("budgets_bytes", [100, -5], r"budgets_bytes must be a list of whole numbers from 1, got \[100, -5\]"),
    ("floors", [0.9, 90], r"floors must be a list of numbers above 0 and at most 1, got \[0\.9, 90\]"),
    ("multipliers", [1, 2], r"multipliers must be a list of at least one number above 0 and at most 1, got \[1, 2\]"),
    ("omegas", [-1], r"omegas must be a list of numbers from 0 to 1, got \[-1\]"),
    ("tolerance", 0, "tolerance must be a number above 0 or None, got 0"),
    ("n_jobs", 0, "n_jobs must be a whole number other than 0 or None, got 0"),
    ("layerwise", 1, "layerwise must be True or False, got 1"),
    ("output_dir", "", "output_dir must be a path, got ''"),
    ("training", [], r"training must be a dictionary, got \[\]"),
    ("law", None, "law must be text, got None"),
    ("widths", "features", "widths must be a dictionary or 'auto' or None, got 'features': it is the place where an"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_a_value_that_would_fail_later_is_refused_with_what_is_allowed(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_value(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("channels", [64, 128]), ("patch_size", (96, 48)), ("learning_rate", 1e-5), ("epoch_length", 1)),
        *(("min_score", 1), ("min_score", None), ("full_size_score", 0.93), ("warmup_steps", 0), ("cache_rate", 0)),
        *(("floors", []), ("budgets_macs", []), ("n_jobs", -1), ("seeds", [0, 7]), ("multipliers", [1, 0.25])),
        *(("widths", "auto"), ("widths", {"argument": "filters", "scales": [1, 2]}), ("widths", None)),
        *(("max_epochs", "$2 * 8"), ("patch_size", "@size"), ("channels", "%other.yaml#channels"), ("own", -1)),
    ],
)
def test_what_works_is_taken_as_it_is_and_expressions_are_not_looked_at(name, value):
    assert check_value(name, value) is value


def test_choices_are_those_of_the_code():
    assert set(SETTINGS["bits_per_weight"].choices) == set(STORAGE_TYPES)
    assert set(SETTINGS["precision"].choices) == {"auto", *PRECISIONS}


def test_every_kind_is_used_and_known():
    assert {setting.kind.removesuffix(" or none") for setting in SETTINGS.values()} == set(KINDS)


def test_the_recipe_is_checked_too():
    with pytest.raises(ValueError, match=r"max_epochs must be a whole number from 1, got 0"):
        check_recipe({"max_epochs": 0})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--channels", "8"], "channels must be a list of at least one whole number from 1, got 8"),
        (["--learning_rate", "nan"], "learning_rate must be a number above 0, got 'nan'"),
        (["--epoch_length", "0"], "epoch_length must be a whole number from 1, got 0"),
        (["--full_size_score", "0"], "full_size_score must be a number above 0 and at most 1 or None, got 0"),
        (["--bits_per_weight", "7"], "bits_per_weight must be one of 8, 16, 32, 64, got 7"),
        (["--min_score", "True"], "min_score must be a number above 0 and at most 1 or None, got True"),
    ],
)
def test_the_command_refuses_them_in_one_line_and_writes_nothing(words, message, tmp_path, capsys):
    places = ["--output_dir", str(tmp_path / "output"), "--dataset_dir", str(tmp_path)]
    assert main(["compress", *places, *words]) == 1
    assert f"monai-ccnet: ValueError: {message}: it is the " in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
