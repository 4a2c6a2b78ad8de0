import itertools

import pytest
import torch

from bnn.quantizers.gradients import FloatGradient
from bnn.quantizers.gradients.float_format import float_format, largest_float
from tests.contracts import randn


@pytest.mark.parametrize(
    ("bits", "octaves", "widths"),
    [
        (8, 1.5, (4, 3)),
        (8, 3.7, (4, 3)),
        (8, 3.8, (5, 2)),
        (8, 8.1, (5, 2)),
        (6, 1.0, (3, 2)),
        (6, 2.0, (3, 2)),
        (6, 2.1, (4, 1)),
        (6, 4.9, (4, 1)),
    ],
)
def test_formats_are_those_of_the_table(bits, octaves, widths):
    assert float_format(bits, octaves) == widths
    assert 1 + sum(widths) == bits


@pytest.mark.parametrize(("widths", "largest"), [((4, 3), 480), ((5, 2), 114_688), ((3, 2), 28), ((4, 1), 384)])
def test_largest_numbers(widths, largest):
    assert largest_float(*widths) == largest


def numbers(exponent_bits: int, mantissa_bits: int) -> set[float]:
    """Every number of a format, code by code."""
    bias = 2 ** (exponent_bits - 1) - 1
    codes = itertools.product(range(2**exponent_bits), range(2**mantissa_bits))
    return {
        (m / 2**mantissa_bits) * 2.0 ** (1 - bias) if e == 0 else (1 + m / 2**mantissa_bits) * 2.0 ** (e - bias)
        for e, m in codes
    }


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("octaves", [1.2, 4.0])
@pytest.mark.parametrize("stochastic", [True, False])
def test_values_are_numbers_of_the_format_times_a_power_of_two(bits, octaves, stochastic, generator):
    gradient = torch.exp2(octaves * randn(3000)) * randn(3000, seed=1).sign()
    q = FloatGradient(bits=bits, generator=generator if stochastic else None)(gradient).abs()
    spread = gradient.abs().log2().std(correction=0).item()
    allowed = numbers(*float_format(bits, spread))
    shifts = [s for s in range(-30, 31) if set((q.double() * 2.0**s).unique().tolist()) <= allowed]
    assert shifts
    assert len(q.unique()) > 2 ** (bits - 3)


def test_nearest_is_within_half_a_step():
    gradient = torch.exp2(randn(5000)) * randn(5000, seed=1).sign()
    error = ((FloatGradient()(gradient) - gradient) / gradient).abs()
    assert 0 < error.max() <= 2.0**-4


def test_the_largest_of_a_wide_spread_is_not_clamped(generator):
    gradient = torch.exp2(5 * randn(100_000))
    mean = torch.stack([FloatGradient(bits=6, generator=generator)(gradient).sum() for _ in range(20)]).mean()
    assert mean.item() == pytest.approx(gradient.sum().item(), rel=0.02)


def test_tiny_gradients_stay_finite():
    assert FloatGradient()(torch.full((4,), 1e-40)).isfinite().all()


@pytest.mark.parametrize("bits", [4, 7, 16])
def test_other_widths_are_refused(bits):
    with pytest.raises(ValueError, match=f"^a float gradient has 6 or 8 bits, got {bits}$"):
        FloatGradient(bits=bits)
