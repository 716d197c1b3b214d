"""Files that are not what they should be: a value, or one error that names the file, and nothing is executed."""

import contextlib
import copy
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_ccnet.complexity import ComplexityProfile
from monai_ccnet.constraints import AccuracyFloor, DiskBudget, InfeasibleConstraintError, compress
from monai_ccnet.degradation import DegradationModel
from monai_ccnet.handlers import plan_metrics
from monai_ccnet.networks import network_size
from monai_ccnet.records import TrialRecord
from monai_ccnet.reporting import save_report
from monai_ccnet.training import load_records

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [4, 8]}
PROFILE = ComplexityProfile.published("lymph_node")
MODEL = DegradationModel.published("unet", metric="f1")
RECORD = TrialRecord(
    dataset="disks",
    network_def=UNET,
    multiplier=0.5,
    recipe={"seed": 0},
    size=network_size(UNET),
    file_bytes=1000,
    scores={"f1": 0.9},
    pooled={"f1": 0.9},
    per_image={"f1": [0.9, None]},
    constant_score=0.3,
    losses=(0.5, 0.4),
    seconds=1.5,
    versions={"torch": "2"},
)
PLAN = compress(UNET, [DiskBudget(60_000), AccuracyFloor(0.9)], complexity=PROFILE, degradation=MODEL)
VALUES = {type(value).__name__: value for value in (PROFILE, MODEL, RECORD, PLAN)}


def _use_profile(profile, folder):
    assert profile.at(profile.scales[0]) >= 0
    compress(
        UNET, DiskBudget(20_000), complexity=profile, degradation=MODEL.assuming(profile.settings), layerwise=False
    )


def _use_model(model, folder):
    for compression in (1, 10, 1e6):
        assert 0 <= model.predict(0.1, compression) <= 1
        model.predict_interval(0.1, compression)
    assert model.standard_errors is None or len(model.standard_errors) == 2
    assert model.left_out_error is None or model.left_out_error >= 0
    assert model.covered_compression(10**6) > 0
    model.assumption_for(UNET, 2, 10**6)


def _use_record(record, folder):
    assert record.has_learned in (True, False)
    assert record.failure is None or record.failure
    with contextlib.suppress(InfeasibleConstraintError):  # where its file is larger than the plan's budget
        save_report(folder / "report.json", PLAN, record)


def _use_plan(plan, folder):
    assert plan.compression > 0
    assert plan_metrics(plan)
    plan.check_file_bytes(1, "model.pt")
    save_report(folder / "report.json", plan, RECORD)


USES = {"ComplexityProfile": _use_profile, "DegradationModel": _use_model, "TrialRecord": _use_record}
USES["CompressionPlan"] = _use_plan

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, {"value_type": "DiskBudget"}, {"value_type": []}, {"value_type": "PosixPath"}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw, content):
    """Return JSON text in which one place, however deep, is replaced, removed or joined by another."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if not (isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans())):
            break
        place = place[key]
    what = draw(st.sampled_from(["replace", "remove", "add"]))
    if what == "replace":
        place[key] = draw(anything)
    elif what == "remove":
        del place[key]
    elif isinstance(place, dict):
        place[draw(st.text(max_size=8))] = draw(anything)
    else:
        place.append(draw(anything))
    return json.dumps(content).encode()


@st.composite
def damaged(draw, content):
    """Return the bytes of JSON cut off or with some bytes overwritten, as by a broken disk or an editor."""
    text = bytearray(json.dumps(content).encode())
    start = draw(st.integers(0, len(text)))
    if draw(st.booleans()):
        return bytes(text[:start])
    text[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(text)


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=1300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_gives_a_value_or_an_error_that_names_it(name, data, tmp_path):
    content = json.loads(json.dumps(VALUES[name].to_dict()))
    path = tmp_path / "value.json"
    path.write_bytes(data.draw(mutated(content) | damaged(content)))
    cls, error, loaded = type(VALUES[name]), None, None
    try:
        loaded = cls.load(path)
    except (ValueError, TypeError) as raised:
        error = str(raised)
    if loaded is not None:
        assert cls.from_dict(loaded.to_dict()) == loaded
        assert str(loaded)
        USES[name](loaded, tmp_path)  # what loads can be used
    else:
        assert str(path) in error
        assert "\n" not in error
        assert len(error) < len(str(path)) + 600


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"value_type": NaN}', "\x00", "", "null", "[]", '"x"'])
def test_what_is_no_value_at_all_is_named(text, tmp_path):
    (tmp_path / "value.json").write_text(text)
    for value in VALUES.values():
        with pytest.raises(ValueError, match=r"value\.json"):
            type(value).load(tmp_path / "value.json")


def test_a_field_of_another_kind_is_named(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD.to_dict() | {"file_bytes": "many"}))
    with pytest.raises(ValueError, match=r"record\.json: field 'file_bytes' of a TrialRecord must be int, got 'many'"):
        load_records(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps(RECORD.to_dict() | {"size": DiskBudget(5).to_dict()}))
    with pytest.raises(ValueError, match="field 'size' of a TrialRecord must be NetworkSize"):
        load_records(tmp_path)


class _Evil:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('executed').touch()",)


def test_a_checkpoint_that_would_execute_code_is_refused(tmp_path, monkeypatch, capsys):
    from ignite.engine import Engine

    from monai_ccnet.handlers import ResumeTraining

    monkeypatch.chdir(tmp_path)
    torch.save({"network": _Evil()}, tmp_path / "training_checkpoint_1.pt")
    trainer = Engine(lambda engine, batch: None)
    ResumeTraining(tmp_path, {"network": torch.nn.Linear(1, 1)}).attach(trainer)
    trainer.run([0], max_epochs=1)
    assert "training_checkpoint_1.pt is damaged: the training goes on" in capsys.readouterr().out
    assert set(torch.load("training_checkpoint_1.pt", weights_only=True)) == {"network", "trainer"}
    assert not (tmp_path / "executed").exists()
