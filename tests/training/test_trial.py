"""What a record holds, computed from counts."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from monai_ccnet.records import _PER_IMAGE, _class_mean, _constant_score, _ratio


def counts_of(truth, predicted):
    """Count as MONAI does: (images, classes, 4) of tp, fp, tn, fn for each foreground class of two."""
    rows = []
    for t, p in zip(truth, predicted, strict=True):
        rows.append(
            [
                [
                    np.sum((t == c) & (p == c)),
                    np.sum((t != c) & (p == c)),
                    np.sum((t != c) & (p != c)),
                    np.sum((t == c) & (p != c)),
                ]
                for c in (1, 2)
            ]
        )
    return np.array(rows, dtype=float)


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 5, 400))
    counts = counts_of(truth, predicted)
    per_image = _class_mean(_ratio(_PER_IMAGE["f1"], counts))
    expected = [f1_score(t, p, labels=[1, 2], average="macro") for t, p in zip(truth, predicted, strict=True)]
    assert per_image == pytest.approx(expected)
    pooled = np.mean(_ratio(_PER_IMAGE["f1"], counts.sum(axis=0)))
    assert pooled == pytest.approx(f1_score(truth.ravel(), predicted.ravel(), labels=[1, 2], average="macro"))


def test_the_best_constant_answer_the_slow_way():
    rng = np.random.default_rng(1)
    truth = rng.choice(3, (6, 300), p=[0.5, 0.4, 0.1])
    counts = counts_of(truth, np.zeros_like(truth))
    by_answer = [
        np.mean([f1_score(t, np.full_like(t, answer), labels=[1, 2], average="macro", zero_division=0) for t in truth])
        for answer in (0, 1, 2)
    ]
    assert _constant_score(counts) == pytest.approx(max(by_answer))


def test_an_image_without_a_class_counts_for_the_others_only():
    truth = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    counts = counts_of(truth, truth)
    f1 = _class_mean(_ratio(_PER_IMAGE["f1"], counts))
    assert f1[0] == 1
    assert np.isnan(f1[1])
