import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.optim.moments import Moment

ALL = slice(None)
LOW_BIT = [torch.bfloat16, torch.float16, torch.int8]
# Largest distance of two neighbours, in parts of the value, for values of at least 1 % of their row's largest.
STEP = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.int8: 0.27}


def moment(x: torch.Tensor, dtype: torch.dtype, *, squared: bool) -> Moment:
    return Moment({}, "mean", x, dtype, squared=squared)


def kept(x: torch.Tensor, dtype: torch.dtype, *, squared: bool, seed: int = 0) -> torch.Tensor:
    one = moment(x, dtype, squared=squared)
    one.write(ALL, x.clone(), torch.Generator().manual_seed(seed))
    return one.read(ALL)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("dtype", "bytes_each"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)])
def test_tensors_of_the_state(dtype, bytes_each, squared):
    state = {}
    Moment(state, "mean", torch.zeros(6, 5, 3, 3), dtype, squared=squared)
    assert {name: x.shape for name, x in state.items()} == {"mean": (6, 5, 3, 3)}
    assert state["mean"].element_size() == bytes_each


def test_tensors_of_8_bits():
    state = {}
    parameter = torch.zeros(6, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    Moment(state, "m", parameter, torch.int8, squared=False)
    Moment(state, "v", parameter, torch.int8, squared=True)
    Moment(state, "vector", torch.zeros(9), torch.int8, squared=True)
    assert {name: (x.dtype, tuple(x.shape)) for name, x in state.items()} == {
        "m": (torch.int8, (6, 5, 3, 3)),
        "m_exponent": (torch.int8, (6,)),
        "v": (torch.uint8, (6, 5, 3, 3)),
        "v_exponent": (torch.int8, (6,)),
        "vector": (torch.uint8, (9,)),
        "vector_exponent": (torch.int8, (1,)),
    }
    assert state["m"].stride() == parameter.stride()


@pytest.mark.parametrize("dtype", [torch.float32, *LOW_BIT])
@pytest.mark.parametrize("squared", [False, True])
def test_starts_at_zero(dtype, squared):
    assert not moment(torch.ones(3, 4), dtype, squared=squared).read(ALL).any()


def test_float32_is_worked_on_in_place(generator):
    state = {}
    one = Moment(state, "mean", torch.zeros(4, 5), torch.float32, squared=True)
    values = one.read(slice(1, 3)).fill_(7.0)
    one.write(slice(1, 3), values, generator)
    assert state["mean"].sum() == 70


@pytest.mark.parametrize(("dtype", "log10_size"), [(torch.bfloat16, -12), (torch.int8, -12), (torch.float16, -1)])
@pytest.mark.parametrize("squared", [False, True])
@given(seed=st.integers(0, 2**32), further=st.floats(0, 3))
def test_values_come_back_within_a_step(dtype, squared, log10_size, seed, further):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((4, 50), generator=generator) * 10 ** (log10_size + further)
    back = kept(x.square() if squared else x, dtype, squared=squared, seed=seed)
    back = back.sqrt() * x.sign() if squared else back
    large = x.abs() > 0.01 * x.abs().amax(1, keepdim=True)
    assert ((back - x).abs() <= STEP[dtype] * x.abs())[large].all()
    assert (back * x >= 0).all()


@pytest.mark.parametrize("dtype", LOW_BIT)
@pytest.mark.parametrize("value", [1.0, 0.3, 0.011, 2e-4])
def test_a_mean_is_kept_on_average(dtype, value):
    x = torch.full((1, 40_001), -value)
    x[0, 0] = 1.0
    back = kept(x, dtype, squared=False)[0, 1:]
    deviation = back.std().item()
    assert back.mean().item() == pytest.approx(-value, abs=5 * deviation / 200 + 1e-6 * value)
    assert len(back.unique()) <= 2


@pytest.mark.parametrize("dtype", LOW_BIT)
@pytest.mark.parametrize("value", [1.0, 0.3, 0.011, 1e-3])
def test_the_root_of_a_mean_square_is_kept_on_average(dtype, value):
    x = torch.full((1, 40_001), value**2)
    x[0, 0] = 1.0
    root = kept(x, dtype, squared=True)[0, 1:].sqrt()
    assert root.mean().item() == pytest.approx(value, abs=5 * root.std().item() / 200 + 1e-6 * value)


def test_a_small_root_of_8_bits_is_never_zero_nor_below_the_least_mean():
    x = torch.tensor([[0.9, 1e-20, 0.0]])
    least_root = kept(x, torch.int8, squared=True)[0, 1:].sqrt()
    least_mean = 1 / 127**2
    torch.testing.assert_close(least_root, torch.full((2,), (4 / 255) ** 2))
    assert (least_root > least_mean).all()


def test_8_bit_rows_have_factors_of_their_own(generator):
    x = torch.randn((3, 20), generator=generator) * torch.tensor([[1e-10], [1.0], [1e10]])
    torch.testing.assert_close(kept(x, torch.int8, squared=False).norm(dim=1), x.norm(dim=1), rtol=0.02, atol=0)


def test_8_bit_values_that_do_not_change_are_not_rounded_again(generator):
    one = moment(torch.zeros(4, 50), torch.int8, squared=False)
    one.write(ALL, torch.randn((4, 50), generator=generator), generator)
    before = one.read(ALL)
    for _ in range(20):
        one.write(ALL, one.read(ALL), generator)
    # A root that is computed one float above or below an integer rounds right all but once in 2^16.
    assert (one.read(ALL) != before).sum() <= 1


@pytest.mark.parametrize("dtype", LOW_BIT)
def test_a_slow_mean_square_decays_as_it_should(dtype):
    """Rounded to nearest it would stay where it is: a thousandth is less than half a step."""
    generator = torch.Generator().manual_seed(1)
    one = moment(torch.zeros(1, 2000), dtype, squared=True)
    one.write(ALL, torch.full((1, 2000), 0.37), generator)
    for _ in range(1000):
        one.write(ALL, one.read(ALL).mul_(0.999), generator)
    assert one.read(ALL).sqrt().mean().item() == pytest.approx(math.sqrt(0.37 * 0.999**1000), rel=0.03)


@pytest.mark.parametrize(("dtype", "squared", "levels"), [(torch.int8, False, 127), (torch.uint8, True, 255)])
def test_codes_of_8_bits_mean_what_is_written(dtype, squared, levels):
    codes = torch.tensor([[levels, 64, 9, 0], [1, 2, 3, 4]])
    state = {"mean": codes.to(dtype), "mean_exponent": torch.tensor([3, -2], dtype=torch.int8)}
    expected = (codes / levels).square() * torch.tensor([[8.0], [0.25]])
    one = Moment(state, "mean", torch.zeros(2, 4), torch.int8, squared=squared)
    torch.testing.assert_close(one.read(ALL), expected.square() if squared else expected)


def test_what_is_just_below_a_power_of_two_keeps_its_sign():
    x = torch.tensor([[1 - 2.0**-24], [-1 + 2.0**-24]])
    torch.testing.assert_close(kept(x, torch.int8, squared=False), x)


def test_8_bit_rows_reach_to_2_to_the_127():
    x = torch.tensor([[1.5 * 2.0**126, -(2.0**126)]])
    torch.testing.assert_close(kept(x, torch.int8, squared=False), x, rtol=0.02, atol=0)
