"""The backward pass of a real convolution and its norm: the kernels against the chain of operations and float64."""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import OPERATIONS, Window
from tests.contracts import randn
from tests.ops.batch_norms import codes_of, slope_lists, slopes_of
from tests.ops.comparison import of_set

bnn = torch.ops.bnn
EPS = 1e-3


class Case(NamedTuple):
    """Operands, in the order of the operation's arguments."""

    grad: Tensor
    codes: Tensor
    slopes: list[float]
    x: Tensor
    weight: Tensor
    window: Window
    moments: Tensor
    scale: Tensor | None
    gamma: Tensor | None

    def run(self, *, with_input: bool = False) -> list[Tensor]:
        return list(bnn.normed_conv2d_backward(*self, EPS, with_input))


def case(
    shape: list[int],
    weight_shape: list[int],
    window: Window,
    *,
    slopes: tuple[float, ...] = (1.0, 0.0),
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.bfloat16, torch.float32),
    plain: bool = False,
    seed: int = 0,
) -> Case:
    """Random operands of the dtypes of gradient and input, and the moments of their product."""
    x, weight = randn(*shape, seed=seed).to(dtypes[1]), randn(*weight_shape, seed=seed + 1)
    y = bnn.float_conv2d(x, weight, window, torch.float16)
    grad, outputs = randn(*y.shape, seed=seed + 2).to(dtypes[0]), y.shape[1]
    scale, gamma = (None, None) if plain else (randn(outputs, seed=seed + 3), randn(outputs, seed=seed + 4))
    running = (torch.zeros(outputs), torch.ones(outputs))
    moments, _ = bnn.batch_statistics(y, scale, gamma, None, EPS, *running, 0.1)
    return Case(grad, codes_of(y.shape, slopes, seed + 5), list(slopes), x, weight, window, moments, scale, gamma)


def by_operations(of: Case) -> list[Tensor]:
    """The gradients of the weight and of the norm by a whole product."""
    grad, codes, slopes, x, weight, window, moments, scale, gamma = of
    y = bnn.float_conv2d(x, weight, window, torch.float16)
    terms, _, of_parameters = bnn.norm_gradient_terms(grad, codes, slopes, y, moments, scale, gamma, EPS)
    of_product = bnn.norm_gradient(grad, codes, slopes, y, terms)
    return [bnn.real_conv2d_backward_weight(of_product, x.float(), weight.shape, window), of_parameters]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel, stride, padding = (
        [draw(st.integers(low, high)) for _ in range(2)] for low, high in ((1, 3), (1, 2), (0, 2))
    )
    of_pixels = draw(st.booleans())
    if of_pixels:
        kernel, stride, padding = [1, 1], [1, 1], [0, 0]
    size = [k + draw(st.integers(1, 20)) for k in kernel]
    shape, outputs = [draw(st.integers(1, 3)), draw(st.integers(1, 9)), *size], 8 * draw(st.integers(1, 10))
    dtypes = (
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
    )
    window = Window.of(stride=stride, padding=padding)
    options: dict[str, Any] = {"slopes": draw(slope_lists), "dtypes": dtypes, "plain": draw(st.booleans())}
    return case(shape, [outputs, shape[1], *kernel], window, seed=draw(st.integers(0, 2**31 - 1)), **options)


@given(of=cases())
@settings(max_examples=40, deadline=None)
def test_gives_the_bits_of_the_operations_with_a_whole_product(isa: str, of: Case) -> None:
    of_x, *got = of.run()
    assert len(of_x) == 0
    assert all(map(torch.equal, got, by_operations(of)))


# Rows that fill runs of 256 pixels, that do not, and of more than 16 such runs; pixels alone, in whole and cut runs.
@pytest.mark.parametrize(
    ("shape", "weight_shape", "window"),
    [
        ([2, 3, 64, 64], [64, 3, 3, 3], Window.of(padding=1)),
        ([2, 3, 45, 223], [24, 3, 7, 7], Window.of(stride=2, padding=3)),
        ([1, 1, 9, 4500], [8, 1, 3, 3], Window.of(padding=1)),
        ([2, 70, 16, 16], [136, 70, 1, 1], Window.of()),
        ([3, 256, 7, 7], [512, 256, 1, 1], Window.of()),
    ],
)
def test_large_products_too(isa: str, shape: list[int], weight_shape: list[int], window: Window) -> None:
    of = case(shape, weight_shape, window)
    assert all(map(torch.equal, of.run()[1:], by_operations(of)))


@given(of=cases())
@settings(max_examples=20, deadline=None)
def test_the_gradients_are_those_of_float64(isa: str, of: Case) -> None:
    # The norm takes the scale of a product away: of the gradient of a single weight little but rounding is left.
    assume(of.weight[0].numel() > 1)
    x, weight = (operand.double().requires_grad_() for operand in (of.x, of.weight))
    y = F.conv2d(x, weight, None, *of.window.for_torch)
    factors = [torch.ones(len(weight)) if factor is None else factor for factor in (of.scale, of.gamma)]
    scale, gamma = (factor.double().requires_grad_() for factor in factors)
    normed = F.batch_norm(y * scale.view(-1, 1, 1), None, None, gamma, None, training=True, eps=EPS)
    grad = of.grad.double() * slopes_of(of.codes, of.slopes, of.grad)
    expected = torch.autograd.grad(normed, (x, weight, gamma), grad)
    of_x, of_weight, of_parameters = of.run(with_input=True)
    # The product is rounded to 11 bits, the gradient of the input to 8.
    for got, right in zip((of_x, of_weight, of_parameters[1]), expected, strict=True):
        torch.testing.assert_close(got.double(), right, rtol=0.02, atol=0.02 * float(right.abs().max()) + 1e-6)


@given(of=cases())
@settings(max_examples=20, deadline=None)
def test_the_gradient_of_the_input_is_that_of_the_product(isa: str, of: Case) -> None:
    """Which is as exact as torch's, within what float32 and the input's dtype hold."""
    grad, codes, slopes, x, weight, window, moments, scale, gamma = of
    y = bnn.float_conv2d(x, weight, window, torch.float16)
    terms, _, _ = bnn.norm_gradient_terms(grad, codes, slopes, y, moments, scale, gamma, EPS)
    of_product = bnn.norm_gradient(grad, codes, slopes, y, terms).double()
    right = torch.nn.grad.conv2d_input(x.shape, weight.double(), of_product, *window.for_torch)
    of_x, *_ = of.run(with_input=True)
    assert of_x.is_contiguous(memory_format=torch.channels_last)
    tolerance = 1e-5 if x.dtype is torch.float32 else 2**-8
    torch.testing.assert_close(of_x.double(), right, rtol=tolerance, atol=1e-5 * float(right.abs().max()) + 1e-9)


@pytest.mark.parametrize(
    ("weight_shape", "window"),
    [([72, 40, 1, 1], Window.of()), ([24, 40, 3, 2], Window.of(stride=2, padding=(0, 1), dilation=2))],
)
def test_no_result_depends_on_the_threads_nor_on_the_instruction_set(
    isa: str, threads: None, weight_shape: list[int], window: Window
) -> None:
    of = case([5, 40, 13, 11], weight_shape, window, dtypes=(torch.bfloat16, torch.bfloat16))
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(of.run(with_input=True))
    for result in [*results[1:], of_set("generic", partial(of.run, with_input=True))]:
        assert all(map(torch.equal, result, results[0]))
    expected = OPERATIONS["normed_conv2d_backward"](*of, EPS, True)
    for got, right in zip(results[0], expected, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-2, atol=1e-3 * float(right.abs().max()))


def test_images_too_large_for_the_memory_of_a_thread_are_worked_off_all_the_same() -> None:
    of = case([1, 3, 300, 300], [8, 3, 3, 3], Window.of(padding=1))
    for got, right in zip(of.run(with_input=True), OPERATIONS["normed_conv2d_backward"](*of, EPS, True), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.zeros(2, 8, 5, 5)}, "the gradient must be"),
        ({"codes": torch.zeros(1, 2, 3, dtype=torch.uint8)}, "planes of codes must be"),
        ({"slopes": [1.0]}, "slopes"),
        ({"moments": torch.zeros(2, 7)}, "moments must be"),
    ],
)
def test_operands_that_do_not_fit_are_refused(isa: str, change: dict[str, Any], message: str) -> None:
    of = case([2, 3, 6, 6], [8, 3, 3, 3], Window.of(padding=1))
    with pytest.raises(ValueError, match=message):
        of._replace(**change).run()
