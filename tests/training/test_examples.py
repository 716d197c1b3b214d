"""Which test images are shown, and how many networks of a sweep."""

import pytest

from monai_ccnet.training.examples import from_worst_to_best


@pytest.mark.parametrize(
    ("scores", "count", "places"),
    [
        ([0.5, 0.9, 0.1, 0.7], 3, [2, 3, 1]),
        ([0.5, None, 0.1], 3, [2, 0]),
        ([None, None], 1, [0]),
        ([0.5], 3, [0]),
    ],
)
def test_examples_go_from_the_worst_to_the_best(scores, count, places):
    assert from_worst_to_best(scores, count) == places
