"""What holds for all tests."""

import os

import numpy as np
import pytest
from hypothesis import settings

# Networks here are tiny: threads would only wait for each other, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same code gives the same answer twice. New examples are drawn with --hypothesis-profile=default.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def damages():
    return _damages


def _damages(content, count, seed=0):
    """Yield different damaged copies of a file: cut off, bytes changed, blocks zeroed, repeated, removed or moved."""
    rng, length = np.random.default_rng(seed), len(content)
    made = 0
    while made < count:
        at, to = sorted(int(place) for place in rng.integers(0, length, 2))
        to = min(to, at + int(rng.choice([1, 4, 64, 1024])))
        damaged = bytearray(content)
        kind = rng.integers(0, 7)
        if kind == 0:
            del damaged[at:]
        elif kind == 1:
            damaged[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            damaged[at:to] = bytes(to - at)
        elif kind == 3:
            damaged[at:at] = content[at:to]
        elif kind == 4:
            del damaged[at:to]
        elif kind == 5:
            damaged[at:to] = rng.bytes(to - at)
        else:
            damaged[at:to] = content[at:to][::-1]
        if damaged != content:
            made += 1
            yield bytes(damaged)
