"""The step of 8-bit accumulators by signs: native equals the specification, which is right on average."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import steps
from bnn.ops.packing import pack, unpack


def operands(rows, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-128, 128, (rows, n), generator=generator).to(torch.int8)
    return codes, pack(torch.randn((rows, n), generator=generator))


@pytest.mark.usefixtures("isa", "threads")
class TestNative:
    @given(
        rows=st.integers(0, 5),
        n=st.integers(1, 700),
        step=st.floats(0, 300),
        hysteresis=st.floats(0, 127),
        seed=st.integers(0, 2**62),
        threads=st.sampled_from([1, 2, 5]),
    )
    def test_equals_the_specification(self, rows, n, step, hysteresis, seed, threads):
        codes, signs = operands(rows, n)
        expected = codes.clone()
        steps.step_by_signs(expected, signs, step, hysteresis, seed)
        torch.set_num_threads(threads)
        torch.ops.bnn.step_by_signs(codes, signs, step, hysteresis, seed)
        assert torch.equal(codes, expected)

    def test_large_tensors(self):
        codes, signs = operands(3, 100_001)
        expected = codes.clone()
        steps.step_by_signs(expected, signs, 2.5, 6.5, 9)
        torch.ops.bnn.step_by_signs(codes, signs, 2.5, 6.5, 9)
        assert torch.equal(codes, expected)


@pytest.mark.parametrize("step", [0.0, 0.3, 1.0, 2.75])
def test_moves_against_the_sign_by_the_step_on_average(step):
    codes = torch.zeros((4, 50_000), dtype=torch.int8)
    _, signs = operands(4, 50_000)
    steps.step_by_signs(codes, signs, step, 0.0, 5)
    along = -(codes * unpack(signs, 50_000, torch.int8)).float()
    # The standard error of a mean of 200,000 choices between two neighbours is below 0.0012.
    assert along.mean().item() == pytest.approx(step, abs=0.006)
    assert along.min() >= int(step)
    assert along.max() <= int(step) + (step % 1 > 0)


def test_stays_within_its_range():
    codes = torch.tensor([[127, -128, 126, -127]], dtype=torch.int8)
    up = pack(torch.tensor([[-1.0, 1, -1, 1]]))
    steps.step_by_signs(codes, up, 1000.0, 0.0, 0)
    assert codes.tolist() == [[127, -128, 127, -128]]


def test_a_code_that_changes_its_sign_goes_beyond_zero():
    codes = torch.tensor([[1, -1, 3, -3, 0, -1, 40]], dtype=torch.int8)
    signs = pack(torch.tensor([[1.0, -1, 1, -1, 1, 1, 1]]))
    steps.step_by_signs(codes, signs, 2.0, 4.5, 0)
    assert codes.tolist() == [[-5, 5, 1, -1, -5, -3, 38]]


def test_refuses_a_hysteresis_beyond_the_codes():
    codes, signs = operands(2, 9)
    with pytest.raises(ValueError, match="hysteresis"):
        torch.ops.bnn.step_by_signs(codes, signs, 1.0, 128.0, 0)


def test_another_seed_rounds_otherwise():
    one, signs = operands(2, 1000)
    other = one.clone()
    steps.step_by_signs(one, signs, 0.5, 0.0, 1)
    steps.step_by_signs(other, signs, 0.5, 0.0, 2)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("codes", "signs", "step", "message"),
    [
        (torch.zeros(2, 8), torch.zeros(2, 1, dtype=torch.uint8), 1.0, "contiguous int8"),
        (torch.zeros(2, 9, dtype=torch.int8), torch.zeros(2, 1, dtype=torch.uint8), 1.0, "are packed"),
        (torch.zeros(2, 8, dtype=torch.int8), torch.zeros(2, 1, dtype=torch.uint8), -1.0, "at least 0"),
        (torch.zeros(2, 8, dtype=torch.int8), torch.zeros(2, 1, dtype=torch.uint8), float("nan"), "at least 0"),
    ],
)
def test_refuses_what_does_not_fit(codes, signs, step, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.bnn.step_by_signs(codes, signs, step, 0.0, 0)
