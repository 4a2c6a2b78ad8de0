"""Rounding to integers: the native kernels against the specification, and both against the statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import rounding
from tests.ops.comparison import examples, generator, seeds


def check(grad: Tensor, seed: int, largest: int = 127) -> None:
    """Compares the registered kernel to the specification: values, dtype, shape and strides."""
    results = (f(grad, largest, seed) for f in (torch.ops.bnn.quantize_integers, rounding.quantize_integers))
    for got, expected in zip(*results, strict=True):
        assert (got.dtype, got.shape, got.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert torch.equal(got, expected)


@pytest.mark.usefixtures("isa")
class TestQuantize:
    @given(
        shape=st.lists(st.integers(0, 12), max_size=4),
        dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
        exponent=st.integers(-40, 4),
        largest=st.sampled_from([1, 7, 100, 127]),
        seed=seeds,
    )
    @examples
    def test_equals_the_specification(
        self, shape: list[int], dtype: torch.dtype, exponent: int, largest: int, seed: int
    ) -> None:
        grad = (torch.randn(shape, generator=generator(seed)) * 10.0**exponent).to(dtype)
        check(grad, seed, largest)
        check(grad.relu(), seed, largest)

    @pytest.mark.usefixtures("threads")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_any_layout_and_any_number_of_threads(self, dtype: torch.dtype) -> None:
        grad = torch.randn(3, 20, 15, 37, generator=generator(0)).to(dtype)
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            check(grad, 3)
            check(grad.contiguous(memory_format=torch.channels_last), 3)
            check(grad[:, :, ::2, 1:], 3)
            check(grad.mT, 3)
            check(grad[0, 0, 0].expand(5, 37), 3)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf, -torch.inf])
    def test_one_value_that_is_not_finite_is_found_anywhere(self, dtype: torch.dtype, value: float) -> None:
        for position in (0, 4_200, 9_998):
            grad = torch.ones(9_999, dtype=dtype)
            grad[position] = value
            with pytest.raises(NonFiniteError, match="NaN or infinite"):
                torch.ops.bnn.quantize_integers(grad, 127, 0)

    def test_the_largest_becomes_127_and_the_least_floats_become_zero(self) -> None:
        q, scale = torch.ops.bnn.quantize_integers(torch.tensor([-2.0, 1.0, 0.0, 2.0]), 127, 0)
        assert scale == torch.tensor(2.0) / 127
        assert (q[0], q[2], q[3]) == (-127, 0, 127)
        assert q[1] in (63, 64)
        for tiny in (0.0, 1e-45, 1e-37):
            q, scale = torch.ops.bnn.quantize_integers(torch.tensor([tiny, -tiny]), 127, 0)
            assert q.tolist() == [0, 0]
            assert scale == 0

    def test_no_value_exceeds_127(self) -> None:
        # The scale's inverse is rounded: some largest values come to a little more than 127 steps.
        largest = next(x for x in torch.linspace(1, 2, 1_000) if x * (1 / (x / 127)) > 127)
        grad = torch.stack([largest, -largest]).repeat(1_000_000)
        check(grad, 0)
        q, _ = torch.ops.bnn.quantize_integers(grad, 127, 0)
        assert q.unique().tolist() == [-127, 127]

    def test_the_mean_is_right(self) -> None:
        steps = torch.linspace(-9, 9, 37)  # fractions of every kind, in steps of the scale
        grad = torch.cat([torch.tensor([127.0]), steps]).repeat(4_000, 1)
        q, scale = torch.ops.bnn.quantize_integers(grad, 127, 11)
        assert scale == 1
        error = q[:, 1:].double() - steps
        assert error.abs().max() < 1
        deviation = ((steps - steps.floor()) * (1 - steps + steps.floor()) / len(grad)).sqrt()
        assert (error.mean(0).abs() <= 5 * deviation).all()
        # Neighbours, and the same elements under another seed, are rounded independently.
        other = torch.ops.bnn.quantize_integers(grad, 127, 12)[0][:, 1:].double() - steps
        for a, b in ((error[:, :-1], error[:, 1:]), (error[:-1], error[1:]), (error, other)):
            assert abs((a * b).mean()) < 5 * 0.25 / a.numel() ** 0.5


@pytest.mark.parametrize("largest", [1, 7, 127])
def test_a_narrow_format_is_bounded_by_its_largest_integer_and_right_on_average(isa: str, largest: int) -> None:
    grad = torch.randn(64, generator=generator(3)).repeat(20_000, 1)
    q, scale = torch.ops.bnn.quantize_integers(grad, largest, 4)
    assert q.dtype is torch.int8
    assert q.abs().max() == largest
    assert scale == grad.abs().max() / largest
    # The standard error of a mean of 20,000 choices between two neighbours is below 0.0036 of a step.
    assert ((q.double().mean(0) * scale - grad[0]).abs() < 0.02 * scale).all()


@pytest.mark.parametrize("largest", [0, 128])
def test_integers_that_int8_does_not_hold_are_refused(largest: int) -> None:
    with pytest.raises(ValueError, match=r"lies in 1\.\.127"):
        torch.ops.bnn.quantize_integers(torch.ones(3), largest, 0)
