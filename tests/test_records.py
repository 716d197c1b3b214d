"""What a record holds, computed from counts."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from monai_ccnet.records import METRICS, evaluated_record, remedies

UNET = {"_target_": "monai_ccnet.networks.PlainUNet", "channels": [2, 2], "out_channels": 3}


def counts_of(truth, predicted):
    """Count as MONAI does: (images, classes, 4) of tp, fp, tn, fn for each foreground class of two."""
    rows = []
    for t, p in zip(truth, predicted, strict=True):
        pairs = [(t == c, p == c) for c in (1, 2)]
        rows.append([[np.sum(a & b), np.sum(~a & b), np.sum(~a & ~b), np.sum(a & ~b)] for a, b in pairs])
    return np.array(rows, dtype=float)


def record_of(truth, predicted):
    counts = counts_of(truth, predicted)
    given = {"dataset": "made", "network_def": UNET, "input_shape": None, "weights_file": __file__}
    return evaluated_record({"f1": 0.5}, counts, **given)


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 5, 400))
    record = record_of(truth, predicted)
    expected = [f1_score(t, p, labels=[1, 2], average="macro") for t, p in zip(truth, predicted, strict=True)]
    assert record.per_image["f1"] == pytest.approx(expected)
    pooled = f1_score(truth.ravel(), predicted.ravel(), labels=[1, 2], average="macro")
    assert record.pooled["f1"] == pytest.approx(pooled)
    assert set(record.per_image) < set(METRICS)


def test_the_best_constant_prediction_the_slow_way():
    rng = np.random.default_rng(1)
    truth = rng.choice(3, (6, 300), p=[0.5, 0.4, 0.1])
    by_answer = [
        np.mean([f1_score(t, np.full_like(t, answer), labels=[1, 2], average="macro", zero_division=0) for t in truth])
        for answer in (0, 1, 2)
    ]
    record = record_of(truth, np.zeros_like(truth))
    assert record.constant_score == pytest.approx(max(by_answer))
    assert record.has_learned == (record.constant_score < 0.5)


def test_an_image_without_a_class_counts_for_the_others_only():
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    assert record_of(truth, truth).per_image["f1"] == [1.0, None]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ([0.7], "So few epochs tell little"),
        ([0.7, 0.6, 0.4, 0.2], "The loss is still falling: train for more steps"),
        ([0.7, 0.7, 0.69, 0.69, 0.69, 0.69], "The loss hardly fell: try --lambda_dice 1"),
        ([0.7, 0.3, 0.2, 0.2, 0.2, 0.2], "The loss fell, and the answer is the background alone"),
    ],
)
def test_remedies_follow_from_the_losses(losses, words):
    assert remedies(losses).startswith(words)
