"""Widths by integer programming."""

import itertools

import numpy as np
import pytest

from bnn.posttraining.allocation import Choice, allocate


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_brute_force(seed):
    random = np.random.default_rng(seed)
    parts = [[Choice(int(random.integers(1, 50)), float(random.random())) for _ in range(3)] for _ in range(3)]
    for cap in (40, 60, 90):
        every = itertools.product(range(3), repeat=3)
        fitting = [
            (sum(parts[k][place].loss for k, place in enumerate(places)), list(places))
            for places in every
            if sum(parts[k][place].size_bytes for k, place in enumerate(places)) <= cap
        ]
        assert allocate(parts, cap) == (min(fitting)[1] if fitting else None)


def test_of_nothing_there_is_nothing_to_choose():
    assert allocate([], 0) == []
