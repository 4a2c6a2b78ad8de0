"""The step of 8-bit accumulators by values: native equals the specification, which is right on average."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import steps
from tests.ops.test_adam_by_values import gradients
from tests.ops.test_step_by_signs import operands


@pytest.mark.usefixtures("isa", "threads")
@given(
    rows=st.integers(0, 5),
    n=st.integers(0, 700),
    exponent=st.integers(-130, 90),
    bound=st.sampled_from([0.0, 0.3, 10.24, 1e9]),
    hysteresis=st.floats(0, 127),
    seed=st.integers(0, 2**62),
    threads=st.sampled_from([1, 3]),
)
def test_native_equals_the_specification(rows, n, exponent, bound, hysteresis, seed, threads):
    (codes, _), gradient = operands(rows, n), (gradients(rows, n) * 2.0**exponent).bfloat16()
    expected, rates = codes.clone(), torch.linspace(0, 3, rows) * 2.0 ** min(-exponent, 120)
    torch.set_num_threads(threads)
    squares = torch.ops.bnn.row_squares(gradient)
    assert squares.tolist() == steps.row_squares(gradient).tolist()
    steps.step_by_values(expected, gradient, rates, bound, hysteresis, seed)
    torch.ops.bnn.step_by_values(codes, gradient, rates, bound, hysteresis, seed)
    assert torch.equal(codes, expected)


def test_mean_squares_are_those_of_the_numbers():
    gradient = gradients(20, 5000).bfloat16()
    exact = gradient.double().square().mean(1)
    torch.testing.assert_close(steps.row_squares(gradient), exact, rtol=1e-3, atol=0)
    assert steps.row_squares(torch.tensor([[3.0, -4.0], [0.0, 0.0]]).bfloat16()).tolist() == [12.5, 0]


def test_the_order_of_a_row_changes_no_bit():
    gradient = gradients(3, 5001).bfloat16()
    assert torch.equal(torch.ops.bnn.row_squares(gradient.flip(1).contiguous()), torch.ops.bnn.row_squares(gradient))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_row_that_is_not_finite_has_no_mean_square(value):
    gradient = torch.ones((3, 21), dtype=torch.bfloat16)
    gradient[1, 20] = value
    for squares in (torch.ops.bnn.row_squares(gradient), steps.row_squares(gradient)):
        assert squares.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("move", [0.0, 0.3, -1.0, 2.75, -9.0])
def test_moves_against_the_gradient_on_average(move):
    codes = torch.zeros((4, 50_000), dtype=torch.int8)
    gradient = torch.full(codes.shape, move / 2, dtype=torch.bfloat16)
    steps.step_by_values(codes, gradient, torch.full((4,), 2.0), 5.0, 0.0, 5)
    expected = max(-5.0, min(5.0, 2 * gradient[0, 0].item()))
    # The standard error of a mean of 200,000 choices between two neighbours is below 0.0012.
    assert codes.float().mean().item() == pytest.approx(-expected, abs=0.006)
    assert {-math.floor(expected), -math.ceil(expected)} >= set(codes.unique().tolist())


def test_codes_stay_in_their_range_and_go_beyond_zero():
    codes = torch.tensor([[127, -128, 1, -1, 3, 0, 40]], dtype=torch.int8)
    gradient = torch.tensor([[-1000.0, 1000, 2, -2, 2, 2, 2]]).bfloat16()
    steps.step_by_values(codes, gradient, torch.ones(1), math.inf, 4.5, 0)
    assert codes.tolist() == [[127, -128, -5, 5, 1, -5, 38]]


CODES, GRADIENT, RATES = torch.zeros((2, 8), dtype=torch.int8), torch.zeros((2, 8)).bfloat16(), torch.ones(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CODES.float(), GRADIENT, RATES, 1.0, 0.0), "contiguous int8"),
        ((CODES, GRADIENT.float(), RATES, 1.0, 0.0), "contiguous bfloat16"),
        ((CODES, GRADIENT[:, :7], RATES, 1.0, 0.0), "contiguous bfloat16"),
        ((CODES, GRADIENT, RATES[:1], 1.0, 0.0), "one a row"),
        ((CODES, GRADIENT, RATES, math.nan, 0.0), "at least 0"),
        ((CODES, GRADIENT, RATES, 1.0, 128.0), "hysteresis"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.bnn.step_by_values(*arguments, 0)
