"""Values: round trip through JSON, atomic writing, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import CompressionPlan, DiskBudget, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.files import atomically, write_json
from monai_ccnet.records import TrialRecord
from monai_ccnet.values import load_values, save_values

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [8, 16, 32]}


def _plan():
    complexity = ComplexityProfile.published("lymph_node")
    return compress(
        UNET, DiskBudget(60_000), complexity=complexity, degradation=DegradationModel.published("unet", metric="f1")
    )


@pytest.mark.parametrize(
    "value", [ComplexityProfile.published("drive"), DegradationModel.published("ucunet", "iu"), _plan()], ids=repr
)
def test_values_round_trip_through_json(value, tmp_path):
    value.save(tmp_path / "value.json")
    assert type(value).load(tmp_path / "value.json") == value


def test_values_of_several_classes_round_trip_through_json_lines(tmp_path):
    path = tmp_path / "values.jsonl"
    values = [_plan(), ComplexityProfile.published("drive"), DegradationModel.published("ucunet", "iu"), DiskBudget(5)]
    save_values(path, values)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        json.loads(json.dumps(value.to_dict())) for value in values
    ]
    assert load_values(path) == values
    assert load_values(path, DegradationModel) == values[2:3]
    save_values(path, [])
    assert load_values(path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not valid JSON, .* at column 2"),
        ("", "not valid JSON"),
        ("[]", r"expected the JSON of a value, with its 'value_type', got '\[\]'"),
        ('{"value_type": []}', "expected the JSON of a value"),
        ('{"value_type": "PosixPath"}', "unknown value 'PosixPath'; known are"),
        ('{"value_type": "DiskBudget"}', "the JSON of a DiskBudget lacks"),
        ('{"value_type": "DiskBudget", "limit": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_line_that_is_no_value_is_named_with_its_file(line, message, tmp_path):
    path = tmp_path / "values.jsonl"
    save_values(path, [DiskBudget(5)] * 2)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"values\.jsonl, line 3: {message}"):
        load_values(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})

    def write_half():
        with atomically(path) as file:
            file.write(b"{half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"score": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON.*delete it"),
        ("[]", "expected the JSON of a CompressionPlan, got 'list'"),
        ('{"value_type": "ComplexityProfile"}', "got 'ComplexityProfile'"),
        ('{"value_type": "CompressionPlan"}', "lacks"),
    ],
)
def test_corrupt_files_are_refused_by_name(tmp_path, text, message):
    path = Path(tmp_path / "plan.json")
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        CompressionPlan.load(path)
    assert "plan.json" in str(error.value)


RELEASE_0_1 = Path(__file__).parent / "release_0_1"


@pytest.mark.parametrize("path", sorted(RELEASE_0_1.glob("*.json")), ids=lambda path: path.stem)
def test_what_release_0_1_wrote_still_loads(path, tmp_path):
    content = json.loads(path.read_text())
    kinds = {"CompressionPlan": CompressionPlan, "ComplexityProfile": ComplexityProfile, "TrialRecord": TrialRecord}
    kind = {**kinds, "DegradationModel": DegradationModel}[content["value_type"]]
    value = kind.load(path)
    value.save(tmp_path / "again.json")
    assert kind.load(tmp_path / "again.json") == value
    for name in {"channels", "multipliers", "mean", "scores", "slope"} & set(content):
        found = getattr(value, name)
        assert found == (tuple(content[name]) if isinstance(content[name], list) else content[name])


def test_a_later_format_is_refused_by_name(tmp_path):
    content = ComplexityProfile.published("drive").to_dict() | {"format_version": 3}
    write_json(tmp_path / "value.json", content)
    with pytest.raises(ValueError, match=r"value\.json: .* has format 3, but this release reads formats 1 to 2"):
        ComplexityProfile.load(tmp_path / "value.json")


def test_moved_names_are_found(tmp_path):
    content = json.loads((RELEASE_0_1 / "record.json").read_text())
    content["recipe"]["deep_supervision"] = {"_target_": "monai_ccnet.losses.DeepSupervision", "weight": 1.0}
    record = TrialRecord.from_dict(content)
    assert record.recipe["deep_supervision"]["_target_"] == "monai_ccnet.training.losses.DeepSupervision"
