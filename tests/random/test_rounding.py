import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.random.rounding import round_to_dtype_, round_to_integers_, uniform_like

DRAWS = 40_000
SMALLEST_STEP = {torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
BITS = {torch.bfloat16: 8, torch.float16: 11}


def neighbours(value: float, dtype: torch.dtype) -> tuple[float, float]:
    """The two numbers of a dtype around a positive value."""
    exponent = torch.frexp(torch.tensor(value, dtype=torch.float64)).exponent.item()
    step = max(2.0 ** (exponent - BITS[dtype]), SMALLEST_STEP[dtype])
    low = value // step * step
    return low, low + step


@given(st.floats(-1000, 1000, width=32), st.integers(0, 2**32))
def test_integers_are_the_two_neighbours_and_right_on_average(value, seed):
    x = torch.full((DRAWS,), value)
    low = x[0].floor().item()
    rounded = round_to_integers_(x.clone(), torch.Generator().manual_seed(seed))
    assert set(rounded.tolist()) <= {low, low + 1}
    assert rounded.mean().item() == pytest.approx(value, abs=5 * 0.5 / DRAWS**0.5)


def test_integers_without_generator_are_the_nearest():
    assert round_to_integers_(torch.tensor([0.4, -0.6, 2.5]), None).tolist() == [0, -1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [1.0003, 0.7, 123.456, 3e-3, 2.0**-14 * 1.0001, 1.23e-5, 3e-8, 7e-10])
@pytest.mark.parametrize("sign", [1, -1])
def test_16_bit_floats_are_the_two_neighbours_and_right_on_average(dtype, value, sign):
    value = torch.tensor(value).item()
    low, high = neighbours(value, dtype)
    x = torch.full((DRAWS,), sign * value)
    rounded = round_to_dtype_(x, dtype, torch.Generator().manual_seed(3))
    assert rounded.dtype == dtype
    assert set((sign * rounded.double()).tolist()) <= {low, high}
    assert rounded.double().mean().item() == pytest.approx(sign * value, abs=5 * 0.5 * (high - low) / DRAWS**0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_of_the_dtype_stay(dtype, generator):
    x = (torch.randn(1000, generator=generator) * 10.0 ** torch.arange(-4.0, 1.0).repeat(200)).to(dtype)
    assert torch.equal(round_to_dtype_(x.float(), dtype, generator), x)


def test_float16_saturates(generator):
    x = torch.tensor([65519.0, 70000.0, -1e30])
    assert round_to_dtype_(x, torch.float16, generator).tolist() == [65504, 65504, -65504]


def test_uniform_values_are_uniform_and_never_0_or_1(generator):
    x = torch.empty(3, 5, 100, 70).permute(0, 3, 1, 2)
    u = uniform_like(x, generator)
    assert (u.shape, u.stride()) == (x.shape, x.stride())
    assert 0 < u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    assert u.mean().item() == pytest.approx(0.5, abs=5e-3)
    assert u.var().item() == pytest.approx(1 / 12, abs=2e-3)


def test_elements_are_rounded_independently(generator):
    u = uniform_like(torch.empty(100_000), generator)
    for lag in (1, 2, 3, 4):
        assert torch.corrcoef(torch.stack([u[:-lag], u[lag:]]))[0, 1].abs() < 0.02


def test_the_generator_alone_decides():
    def rounded(seed: int) -> torch.Tensor:
        return round_to_integers_(torch.full((1001,), 0.5), torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(rounded(1), rounded(1))
    assert not torch.equal(rounded(1), rounded(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_any_number_of_elements(generator):
    for n in (0, 1, 3, 4, 5):
        assert round_to_integers_(torch.zeros(n), generator).shape == (n,)
    assert round_to_integers_(torch.tensor(2.0), generator).item() == 2
