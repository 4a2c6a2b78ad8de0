"""The norm with sign: its specification against formulas, the native kernels against the specification."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops.packing import pack, unpack
from tests.contracts import randn
from tests.ops.comparison import check, examples, needs_native, same

bnn = torch.ops.bnn

seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 70)),
    st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
)


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def spread(of_channel: Tensor, x: Tensor) -> Tensor:
    return of_channel.view(1, -1, *(1 for _ in x.shape[2:]))


def unpacked(bits: Tensor, like: Tensor) -> Tensor:
    """Truth values of packed rows in (..., C) order, with the channels moved to where `like` has them."""
    last = like.movedim(1, -1)
    return unpack(bits, last[0].numel(), torch.bool).view(last.shape).movedim(-1, 1)


def norm_inputs(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input of several scales, a bias and a gradient."""
    scale = 10.0 ** (torch.arange(shape[1]) % 5 - 2)
    y = randn(*shape, seed=seed)
    return (y + 1) * spread(scale, y), 0.5 * randn(shape[1], seed=seed + 1), randn(*shape, seed=seed + 2)


def some_levels(channels: int) -> Tensor:
    return torch.tensor([[-1.5], [-0.5], [0.5], [1.5]]) + 0.25 * randn(4, channels, seed=77).clamp(-1, 1)


class TestNormSign:
    @given(shape=shapes, seed=seeds)
    def test_forward_follows_the_formula(self, shape: tuple[int, ...], seed: int) -> None:
        y, bias, _ = norm_inputs(shape, seed)
        bits, inside, mean, deviation = bnn.norm_sign(y, bias, 1e-5)
        wide, dims = y.double(), channel_dims(y)
        torch.testing.assert_close(mean, wide.mean(dims).float())
        centred = wide - spread(mean.double(), y)
        torch.testing.assert_close(deviation, math.sqrt(math.pi / 2) * centred.abs().mean(dims).float())
        x = centred / spread(deviation.double() + 1e-5, y) + spread(bias.double(), y)
        # A value at an edge may fall on either side of it.
        assert torch.equal(unpacked(bits, y) | (x.abs() < 1e-4), (x >= 0) | (x.abs() < 1e-4))
        at_edge = (x.abs() - 1).abs() < 1e-4
        assert torch.equal(unpacked(inside, y) | at_edge, (x.abs() <= 1) | at_edge)

    @given(shape=shapes, seed=seeds)
    def test_backward_follows_the_formula(self, shape: tuple[int, ...], seed: int) -> None:
        y, bias, grad = norm_inputs(shape, seed)
        bits, inside, _, deviation = bnn.norm_sign(y, bias, 1e-2)
        denominator = deviation + 1e-2
        levels = some_levels(shape[1])
        grad_y, grad_bias = bnn.norm_sign_backward(grad, bits, inside, denominator, levels)
        dims = channel_dims(y)
        within, plus = unpacked(inside, y), unpacked(bits, y)
        passed = grad.double() * within
        v = passed / spread(denominator.double(), y)
        below, minus, small, above = (spread(level.double(), y) for level in levels)
        q = torch.where(plus, torch.where(within, small, above), torch.where(within, minus, below))
        expected = v - spread(v.mean(dims), y) - spread((v * q).mean(dims), y) * q
        torch.testing.assert_close(grad_y.double(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad_bias.double(), passed.sum(dims), rtol=1e-5, atol=1e-5)

    @given(shape=shapes, dtype=dtypes, last=st.booleans(), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, shape: tuple[int, ...], dtype: torch.dtype, last: bool, seed: int
    ) -> None:
        y, bias, grad = norm_inputs(shape, seed)
        y, grad = y.to(dtype), grad.to(dtype)
        if last:
            y, grad = (x.movedim(1, -1).contiguous().movedim(-1, 1) for x in (y, grad))
        bits, inside, _, deviation = check("norm_sign", y, bias, 1e-5)
        check("norm_sign_backward", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]))

    @pytest.mark.parametrize("shape", [(2, 128, 17, 16), (3, 33, 21, 19), (1000, 5), (700, 64), (2, 3, 60, 5), (5, 1)])
    def test_native_of_many_runs_and_of_short_rows(self, isa: str, shape: tuple[int, ...]) -> None:
        y, grad = ((randn(*shape, seed=seed) * 64).round() / 64 for seed in (0, 1))  # whose sums are exact
        bits, inside, _, deviation = check("norm_sign", y, torch.zeros(shape[1]), 1e-5)
        check("norm_sign_backward", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]))

    def test_three_dimensions(self, isa: str) -> None:
        check("norm_sign", randn(4, 6, 10), randn(6), 1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        y = randn(6, 5).to(dtype)
        results = check("norm_sign", y, randn(5), 1e-5)
        assert results[2].dtype == torch.promote_types(dtype, torch.float32)

    def test_a_tie_and_an_edge_are_plus_one_and_inside(self) -> None:
        y = torch.tensor([[-1.0], [1.0], [0.0], [0.0], [2.0], [-2.0]])  # mean 0, mean magnitude 1
        bits, inside, mean, deviation = bnn.norm_sign(y, torch.zeros(1), 0.0)
        assert mean.item() == 0
        assert deviation.item() == pytest.approx(math.sqrt(math.pi / 2), rel=1e-7)
        assert bits.flatten().tolist() == [0, 1, 1, 1, 1, 0]
        assert inside.flatten().tolist() == [1, 1, 1, 1, 0, 0]
        bits, inside, *_ = bnn.norm_sign(y, torch.ones(1), 0.0)  # where y is 0, x is 1
        assert bits.flatten().tolist() == [1, 1, 1, 1, 1, 0]
        assert inside.flatten().tolist() == [1, 0, 1, 1, 0, 1]

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_what_is_not_finite_is_refused(self, value: float, dtype: torch.dtype) -> None:
        for position in (0, 77, 299):
            y = randn(3, 4, 5, 5).to(dtype)
            y.view(-1)[position] = value
            with pytest.raises(NonFiniteError, match="NaN or infinite"):
                bnn.norm_sign(y, torch.zeros(4), 1e-5)

    def test_an_empty_batch_has_no_statistics_and_an_empty_gradient(self) -> None:
        with pytest.raises(NonFiniteError):
            bnn.norm_sign(torch.empty(0, 4), torch.zeros(4), 1e-5)
        empty = torch.empty(0, 1, dtype=torch.uint8)
        grad_y, grad_bias = bnn.norm_sign_backward(torch.empty(0, 4), empty, empty, torch.ones(4), torch.ones(4, 4))
        assert grad_y.shape == (0, 4)
        assert grad_bias.tolist() == [0] * 4

    def test_a_gradient_that_does_not_pass_may_be_anything(self) -> None:
        bits, inside = pack(torch.ones(3, 1)), torch.tensor([[1], [0], [1]], dtype=torch.uint8)
        grad = torch.tensor([[1.0], [torch.nan], [3.0]])
        _, grad_bias = bnn.norm_sign_backward(grad, bits, inside, torch.ones(1), torch.ones(4, 1))
        assert grad_bias.item() == 4


# --- threads and wrong arguments -----------------------------------------------------------------------------------


def uneven(*shape: int) -> Tensor:
    """Values of many scales that cancel: what is left of their sum is the rounding, which depends on the order."""
    half = randn(*shape) * 10 ** (5 * randn(*shape, seed=1))
    return torch.cat([half, -half.flip(0)])


UNEVEN = (uneven(2, 40, 30, 31), uneven(900, 40))
ONES = pack(torch.ones(1800, 40))


@needs_native
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "run",
    [
        lambda: bnn.norm_sign(UNEVEN[0], randn(40), 1e-5),
        lambda: bnn.norm_sign_backward(UNEVEN[1], ONES, ONES, torch.ones(40), torch.ones(4, 40)),
    ],
    ids=["norm_sign", "norm_sign_backward"],
)
def test_the_number_of_threads_changes_nothing(run: Callable[[], Any]) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run())
    same(results[1], results[0])
    same(results[2], results[0])


ROW, FLOATS = torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("norm_sign", (FLOATS, torch.zeros(3), 1e-5), "bias must have 4 values"),
        ("norm_sign_backward", (FLOATS, ROW, ROW[:, :0], torch.ones(4), torch.ones(4)), "inside must be uint8"),
        ("norm_sign_backward", (FLOATS, ROW, ROW, torch.ones(4), torch.ones(1)), "levels are 4 for each of 4"),
    ],
)
def test_native_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)
