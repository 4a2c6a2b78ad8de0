import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.quantizers.gradients import PowerOfTwoGradient


def test_nearest_in_the_logarithm_by_hand():
    root = math.sqrt(2)
    gradient = torch.tensor([1.0, 0.99 * root, -1.01 * root, 3.0, 0.5 * 1.01 * root, -0.26])
    # max = 3, whose logarithm rounds to 2.
    assert PowerOfTwoGradient()(gradient).tolist() == [1, 1, -2, 4, 1, -0.25]


@pytest.mark.parametrize("stochastic", [False, True])
@given(seed=st.integers(0, 2**32), log2_size=st.integers(-60, 60))
def test_has_at_most_sixteen_magnitudes(stochastic, seed, log2_size):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(4000, generator=generator).mul(5).exp() * 2.0**log2_size
    magnitudes = PowerOfTwoGradient(generator=generator if stochastic else None)(gradient).abs().unique()
    assert len(magnitudes) <= 16
    mantissa, exponent = torch.frexp(magnitudes[magnitudes > 0])
    assert (mantissa == 0.5).all()
    assert exponent.max() - exponent.min() <= 14
    bound = math.ceil(math.log2(gradient.max())) if stochastic else round(math.log2(gradient.max()))
    assert exponent.max() - 1 <= bound


def test_fifteen_octaves_and_then_zero():
    gradient = torch.tensor([1.0, 2.0**-14, 2.0**-14.49, 2.0**-14.51, 2.0**-20])
    assert PowerOfTwoGradient()(gradient).tolist() == [1, 2.0**-14, 2.0**-14, 0, 0]


def test_stochastic_values_are_the_neighbours(generator):
    gradient = torch.tensor([3.0, 1.5, 1.0, 2.0**-15]).repeat(1000, 1)
    q = PowerOfTwoGradient(generator=generator)(gradient)
    # The largest may go up to 4, and the least power is 4 * 2^-14.
    assert [set(column.tolist()) for column in q.T] == [{2, 4}, {1, 2}, {1}, {0, 2.0**-12}]


def test_takes_five_bits():
    assert PowerOfTwoGradient().storage_bits == 5
