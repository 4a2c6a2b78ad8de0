"""Depth scales of activations with few levels, and widths of sums."""

import math

import pytest

from bnn.posttraining.theory import accumulator_bits, best_spacing, depth_budget

# Recomputed from the formulas of arXiv 1906.00771.
XI = {2: 2.21, 3: 4.74, 4: 7.90, 8: 26.2, 16: 86.1, 32: 286}
SPACING = {3: 1.224, 4: 0.996, 8: 0.586, 16: 0.335, 32: 0.188}


@pytest.mark.parametrize("levels", XI)
def test_budget_is_six_depth_scales(levels):
    assert depth_budget(levels) == pytest.approx(6 * XI[levels], rel=3e-3)
    if levels in SPACING:
        assert best_spacing(levels) == pytest.approx(SPACING[levels], abs=1e-3)


def test_the_budget_grows_almost_with_the_square_of_the_levels():
    few, many = (-6 / depth_budget(levels) for levels in (8, 128))
    slope = math.log(math.expm1(few) / math.expm1(many)) / math.log(129 / 9)
    assert 1.7 < slope < 1.9


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="at least 2 levels"):
        depth_budget(1)


@pytest.mark.parametrize(("terms", "bits"), [(1, 2), (3, 3), (4, 4), (4608, 14), (0, 1)])
def test_bits_of_a_sum_of_signs(terms, bits):
    assert accumulator_bits(terms) == bits == max(1, math.ceil(math.log2(2 * terms + 1)))
