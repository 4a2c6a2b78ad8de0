"""The passes of a batch norm: the native kernels against the specifications."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import OPERATIONS
from bnn.quantizers import ApproxSign
from tests.contracts import randn
from tests.ops.batch_norms import (
    IMAGES,
    LARGE,
    ONES,
    PLANE,
    check_norm_clamp,
    check_statistics,
    codes_of,
    edge_lists,
    gradient_inputs,
    in_memory_order,
    norm_clamp,
    norm_of,
    of_channels,
    product_dtypes,
    quarters,
    seeds,
    shapes,
    slope_lists,
    statistics,
    stream_dtypes,
    terms_of,
    whole,
)
from tests.ops.comparison import check, examples, needs_native, same

bnn = torch.ops.bnn


def check_forward(y: Tensor, shortcut: Tensor, edges: Sequence[float], seed: int) -> None:
    factor, offset, _ = of_channels(y.shape[1], seed)
    if y.numel() > y.shape[1]:
        check_statistics(y, norm_of(y.shape[1], seed))
        check_statistics(y, norm_of(y.shape[1], seed, plain=True))
    for added in (None, shortcut):
        for bounds in ((-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)):
            check_norm_clamp(y, factor, offset, added, *bounds)
    for affine in ((None, None), (factor, offset)):
        check("sign_codes", y, *affine, list(edges))


def check_backward(grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, seed: int) -> None:
    operands, channels = (grad, codes, list(slopes), y), y.shape[1]
    moments = torch.stack((quarters([channels], seed), 0.1 + randn(channels, seed=seed).abs()))
    norm = norm_of(channels, seed)
    check("norm_gradient_terms", *operands, moments, None, None, norm.eps)
    terms, bound, _ = check("norm_gradient_terms", *operands, moments, norm.scale, norm.gamma, norm.eps)
    check("norm_gradient", *operands, terms)
    for most in (1, 127):
        check("norm_gradient_integers", *operands, terms, bound, most, seed, seed % 5)
    check("row_moments", y)
    check("row_norm_gradients", *operands, moments[0])
    check("pass_slopes", *operands[:3])


@pytest.mark.usefixtures("isa")
class TestNative:
    @given(
        shape=shapes,
        dtype=product_dtypes,
        stream=stream_dtypes,
        edges=edge_lists,
        last=st.booleans(),
        seed=seeds,
    )
    @examples
    def test_forward(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        stream: torch.dtype,
        edges: tuple[float, ...],
        last: bool,
        seed: int,
    ) -> None:
        y, shortcut = in_memory_order(last, whole(shape, seed).to(dtype), randn(*shape, seed=seed).to(stream))
        check_forward(y, shortcut, edges, seed)

    @given(shape=shapes, dtype=product_dtypes, stream=stream_dtypes, slopes=slope_lists, last=st.booleans(), seed=seeds)
    @examples
    def test_backward(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        stream: torch.dtype,
        slopes: tuple[float, ...],
        last: bool,
        seed: int,
    ) -> None:
        grad, codes, _, y = gradient_inputs(shape, slopes, seed)
        grad, y = in_memory_order(last, grad.to(stream), y.to(dtype))
        check_backward(grad, codes, slopes, y, seed)

    @pytest.mark.parametrize("shape", LARGE)
    def test_many_runs_and_short_rows(self, shape: tuple[int, ...]) -> None:
        grad, codes, slopes, y = gradient_inputs(shape, ApproxSign().slope_steps.slopes, 5)
        check_forward(y.half(), randn(*shape).bfloat16(), ApproxSign().slope_steps.edges, 5)
        check_backward(grad.bfloat16(), codes, slopes, y.half(), 5)

    @pytest.mark.parametrize("shape", LARGE)
    def test_sums_of_real_numbers_are_near(self, shape: tuple[int, ...]) -> None:
        y, grad = randn(*shape), randn(*shape, seed=1)
        codes, slopes = codes_of(shape, (1.0, 0.0), 2), [1.0, 0.0]
        channels, norm = shape[1], norm_of(shape[1], 3)
        moments = torch.stack((randn(channels), torch.ones(channels)))
        of_terms = (grad, codes, slopes, y, moments, norm.scale, norm.gamma, norm.eps)
        pairs = [(bnn.norm_gradient_terms(*of_terms), OPERATIONS["norm_gradient_terms"](*of_terms))]
        if y.numel() > channels:
            pairs.append((statistics(y, norm), statistics(y, norm, OPERATIONS["batch_statistics"])))
        for got, expected in pairs:
            torch.testing.assert_close(list(got), list(expected), rtol=2**-22, atol=2**-22)

    @pytest.mark.parametrize("value", [0.0, -0.0, 1e-41, 6e4, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_values_at_the_borders_of_a_dtype(self, value: float, dtype: torch.dtype) -> None:
        y = whole((3, 11), 0).to(dtype)
        y[1, 3:9] = value
        shortcut = torch.full((3, 11), 3e38).bfloat16()
        affine = (torch.tensor([1.0, -1.0, 0.0, 1e30, -1e-30, 1.0, 1.0, -1.0, 1.0, -1.0, 2.0]), torch.full((11,), -0.0))
        for added in (None, shortcut, -shortcut):
            for bounds in ((-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)):
                check_norm_clamp(y, *affine, added, *bounds)
        check("sign_codes", y, None, None, [1.0])
        finite = torch.where(y.isfinite(), y, 0)
        check("sign_codes", finite, *affine, list(ApproxSign().slope_steps.edges))
        grad = torch.full((3, 11), value).bfloat16()
        codes = codes_of((3, 11), (1.0, 0.5, 0.25, 0.0), 4)
        check("pass_slopes", grad, codes, [1.0, 0.5, 0.25, 0.0])
        check("norm_gradient", grad, codes, [1.0, 0.5, 0.25, 0.0], y, terms_of(11, 0))

    @pytest.mark.parametrize("edges", [[1.0], [0.4], [0.0, 1e-40, 1.003], [1e-3, 1.0, 3e38]])
    def test_codes_of_every_bfloat16(self, edges: list[float]) -> None:
        y = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
        y = y[y.isfinite() | y.isinf()]
        check("sign_codes", torch.cat((y, y[:6])).view(-1, 8), None, None, edges)
        check("sign_codes", y[5 : 5 + 24 * 9].view(-1, 24), None, None, edges)  # the last of them less than a vector

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 5, 4, 4), (2, 5, 0, 4)])
    def test_empty(self, shape: tuple[int, ...]) -> None:
        y, codes = torch.empty(shape), codes_of(shape, (1.0, 0.0), 0)
        of, terms = [torch.ones(shape[1])] * 2, torch.ones(3, shape[1])
        check_norm_clamp(y, of[0], of[0], y, -1.0, 1.0)
        check("sign_codes", y, of[0], of[0], [1.0])
        check("sign_codes", y, None, None, [0.1, 0.2, 0.3])
        check("norm_gradient", y, codes, [1.0, 0.0], y, terms)
        check("norm_gradient_integers", y, codes, [1.0, 0.0], y, terms, torch.tensor(1.0), 127, 0)
        check("pass_slopes", y, codes, [1.0, 0.0])
        if not shape[1]:
            check("norm_gradient_terms", y, codes, [1.0, 0.0], y, torch.ones(2, 0), None, None, 1e-5)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_dtypes_go_to_the_specification(self, dtype: torch.dtype) -> None:
        y = whole((3, 5, 2, 2), 0).to(dtype)
        check_forward(y, randn(3, 5, 2, 2), [1.0], 0)
        codes = codes_of(y.shape, (1.0, 0.0), 2)
        check_backward(quarters(y.shape, 1), codes, [1.0, 0.0], y, 0)
        check_backward(quarters(y.shape, 1).double(), codes, [1.0, 0.0], y.float(), 0)

    def test_images_that_lie_apart_in_memory(self) -> None:
        y, grad = whole((4, 6, 10, 3), 0)[:, ::2, 1::2], quarters((3, 4, 5, 3), 1).transpose(0, 1)
        check_forward(y, grad, [1.0], 3)
        check_backward(grad, codes_of(y.shape, (1.0, 0.0), 2), [1.0, 0.0], y, 3)


@needs_native
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "run",
    [
        lambda: statistics(IMAGES, norm_of(40, 0)),
        lambda: norm_clamp(IMAGES, ONES, ONES, IMAGES, -1.0, 1.0),
        lambda: bnn.sign_codes(IMAGES, ONES, ONES, [0.5, 1.0, 2.0]),
        lambda: bnn.norm_gradient_terms(IMAGES, PLANE, [1.0, 0.0], IMAGES, torch.ones(2, 40), None, ONES, 1e-5),
        lambda: bnn.norm_gradient_integers(
            IMAGES, PLANE, [1.0, 0.0], IMAGES, torch.ones(3, 40), IMAGES.abs().amax(), 127, 5
        ),
        lambda: bnn.pass_slopes(IMAGES, PLANE, [1.0, 0.0]),
    ],
    ids=[
        "batch_statistics",
        "norm_clamp_",
        "sign_codes",
        "norm_gradient_terms",
        "norm_gradient_integers",
        "pass_slopes",
    ],
)
def test_the_number_of_threads_changes_nothing(run: Callable[[], Any]) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run())
    same(results[1], results[0])
    same(results[2], results[0])
