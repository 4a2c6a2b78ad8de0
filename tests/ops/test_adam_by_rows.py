"""Adam with a mean square a row, of 8-bit accumulators: native equals the specification, which is right on average."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import NonFiniteError
from bnn.ops import steps
from bnn.random.lowbias32 import random_bits
from tests.ops.test_adam_by_values import gradients
from tests.ops.test_step_by_signs import operands


@pytest.mark.usefixtures("isa", "threads")
@given(
    rows=st.integers(0, 5),
    n=st.integers(0, 700),
    exponent=st.integers(-130, 50),  # squares stay within float32
    step_codes=st.sampled_from([0.0, 0.3, 10.24, 1e9]),
    limit=st.sampled_from([0.0, 4.0, 1e9]),
    hysteresis=st.floats(0, 127),
    seed=st.integers(0, 2**62),
    step=st.integers(1, 9),
    threads=st.sampled_from([1, 3]),
)
def test_native_equals_the_specification(rows, n, exponent, step_codes, limit, hysteresis, seed, step, threads):
    (codes, _), gradient = operands(rows, n), (gradients(rows, n) * 2.0**exponent).bfloat16()
    squares = torch.linspace(0, 3, rows) * 2.0 ** (2 * exponent)
    of_spec = codes.clone(), squares.clone()
    torch.set_num_threads(threads)
    numbers = (step_codes, 0.99, 1e-20, limit, hysteresis, step, seed)
    steps.adam_by_rows(*of_spec, gradient, *numbers)
    torch.ops.bnn.adam_by_rows(codes, squares, gradient, *numbers)
    assert torch.equal(codes, of_spec[0])
    assert squares.tolist() == of_spec[1].tolist()


@pytest.mark.usefixtures("isa")
def test_the_step_is_the_formula():
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).bfloat16()
    codes, squares = torch.zeros((2, 2), dtype=torch.int8), torch.tensor([100.0, 0.0])
    torch.ops.bnn.adam_by_rows(codes, squares, gradient, 64.0, 0.75, 1e-20, 4.0, 0.0, 2, 0)
    assert squares.tolist() == [0.75 * 100 + 0.25 * 12.5, 0]
    rate = 64 / math.sqrt(squares[0].item() / (1 - 0.75**2))
    assert abs(codes[0, 0].item() + 3 * rate) < 1
    assert abs(codes[0, 1].item() - 4 * rate) < 1
    assert not codes[1].any()


@pytest.mark.usefixtures("isa")
def test_the_shifts_of_the_rounding_lie_in_the_middle_of_their_parts():
    """(u + 1/2) 2^-16 is at most 2^-17 below 1, and above 0: so a move of 2^-17 rounds up for the largest u alone."""

    def moved(sign):
        codes, squares = torch.zeros((16, 1 << 16), dtype=torch.int8), torch.zeros(16)
        gradient = torch.full(codes.shape, sign).bfloat16()
        torch.ops.bnn.adam_by_rows(codes, squares, gradient, 2.0**-17, 0.0, 1e-20, 4.0, 0.0, 1, 3)
        return codes

    largest = random_bits(3, 1 << 19, torch.device("cpu"))
    expected = sum(((largest >> shift & 0xFFFF) == 0xFFFF).sum().item() for shift in (0, 16))
    assert expected > 4
    assert moved(1.0).sum() == -expected
    assert not moved(-1.0).any()


def test_mean_squares_are_those_of_the_numbers():
    gradient = gradients(20, 5000).bfloat16()
    exact = gradient.double().square().mean(1)
    torch.testing.assert_close(steps.row_squares(gradient), exact, rtol=1e-3, atol=0)
    assert steps.row_squares(torch.tensor([[3.0, -4.0], [0.0, 0.0]]).bfloat16()).tolist() == [12.5, 0]


def test_the_order_of_a_row_changes_no_bit():
    gradient = gradients(3, 5001).bfloat16()
    assert torch.equal(steps.row_squares(gradient.flip(1).contiguous()), steps.row_squares(gradient))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e38])
@pytest.mark.parametrize("adam_by_rows", [torch.ops.bnn.adam_by_rows, steps.adam_by_rows])
def test_a_row_without_a_finite_mean_square_is_refused_and_nothing_changed(value, adam_by_rows):
    gradient = torch.ones((3, 21), dtype=torch.bfloat16)
    gradient[1, 20] = value
    codes, squares = torch.full((3, 21), 5, dtype=torch.int8), torch.ones(3)
    with pytest.raises(NonFiniteError, match="no finite mean square"):
        adam_by_rows(codes, squares, gradient, 8.0, 0.9, 1e-8, 4.0, 0.0, 1, 0)
    assert set(codes.flatten().tolist()) == {5}
    assert squares.tolist() == [1, 1, 1]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("adam_by_rows", [torch.ops.bnn.adam_by_rows, steps.adam_by_rows])
def test_a_mean_square_of_earlier_steps_that_is_not_finite_is_refused(value, adam_by_rows):
    codes, squares = torch.full((2, 9), 5, dtype=torch.int8), torch.tensor([1.0, value])
    with pytest.raises(NonFiniteError, match="no finite mean square"):
        adam_by_rows(codes, squares, torch.ones((2, 9)).bfloat16(), 8.0, 0.9, 1e-8, 4.0, 0.0, 1, 0)
    assert set(codes.flatten().tolist()) == {5}
    assert squares[0] == 1


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


CODES, GRADIENT, SQUARES = torch.zeros((2, 8), dtype=torch.int8), torch.zeros((2, 8)).bfloat16(), torch.ones(2)
NUMBERS = {"step_codes": 1.0, "decay": 0.9, "eps": 1e-8, "limit": 4.0, "hysteresis": 0.0, "step": 1}


@pytest.mark.parametrize(
    ("tensors", "change", "message"),
    [
        ((CODES.float(), SQUARES, GRADIENT), {}, "contiguous int8"),
        ((CODES, SQUARES, GRADIENT.float()), {}, "contiguous bfloat16"),
        ((CODES, SQUARES, GRADIENT[:, :7]), {}, "contiguous bfloat16"),
        ((CODES, SQUARES[:1], GRADIENT), {}, "one a row"),
        ((CODES, SQUARES.double(), GRADIENT), {}, "one a row"),
        ((CODES, SQUARES, GRADIENT), {"step_codes": math.nan}, "at least 0"),
        ((CODES, SQUARES, GRADIENT), {"decay": 1.0}, r"lies in \[0, 1\)"),
        ((CODES, SQUARES, GRADIENT), {"eps": 0.0}, "above 0"),
        ((CODES, SQUARES, GRADIENT), {"limit": math.inf}, "at least 0"),
        ((CODES, SQUARES, GRADIENT), {"hysteresis": 128.0}, "hysteresis"),
        ((CODES, SQUARES, GRADIENT), {"step": 0}, "from 1, got"),
    ],
)
def test_refuses_what_does_not_fit(tensors, change, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.bnn.adam_by_rows(*tensors, *(NUMBERS | change).values(), 0)
