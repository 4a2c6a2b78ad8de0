"""The step of Adam by a gradient of floats: native equals the specification, which follows the formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import steps
from bnn.ops.packing import pack
from tests.ops.test_adam_by_signs import OPTIONS, copies, equal_bits, in_double, operands, spacing


def gradients(rows, n):
    """From 2^-30 to 2^6, and some zeros."""
    generator = torch.Generator().manual_seed(rows + 10 * n)
    size = 2 ** (torch.rand((rows, n), generator=generator) * 36 - 30)
    normal = torch.randn((rows, n), generator=generator)
    return torch.where(normal.abs() < 0.05, 0, size.copysign(normal))


@pytest.mark.usefixtures("isa", "threads")
@given(
    rows=st.integers(0, 5),
    n=st.integers(1, 700),
    lr=st.sampled_from([0.0, 1e-3, 3.0]),
    betas=st.tuples(st.floats(0, 0.9999), st.floats(0, 0.99999)),
    eps=st.sampled_from([2.0**-24, 0.1]),
    hysteresis=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**62),
    threads=st.sampled_from([1, 3]),
)
def test_native_equals_the_specification(rows, n, lr, betas, eps, hysteresis, seed, threads):
    *expected, _ = operands(rows, n)
    stepped, options = copies(expected), (lr, list(betas), eps, hysteresis, 7, seed)
    steps.adam_by_values(*expected, gradients(rows, n), *options)
    torch.set_num_threads(threads)
    torch.ops.bnn.adam_by_values(*stepped, gradients(rows, n), *options)
    assert equal_bits(stepped, expected)


def test_a_gradient_of_1_and_minus_1_is_that_of_its_signs():
    *by_signs, _ = operands(3, 501)
    by_values, signs = copies(by_signs), torch.where(gradients(3, 501) < 0, -1.0, 1.0)
    steps.adam_by_signs(*by_signs, pack(signs), *OPTIONS.values())
    steps.adam_by_values(*by_values, signs, *OPTIONS.values())
    assert equal_bits(by_values, by_signs)


def test_every_result_is_a_neighbour_of_the_formula_s():
    *tensors, _ = operands(4, 3000)
    exact = in_double(*tensors, gradients(4, 3000), **OPTIONS)
    steps.adam_by_values(*tensors, gradients(4, 3000), *OPTIONS.values())
    for x, truth in zip(tensors, exact, strict=True):
        assert ((x.double() - truth).abs() < 1.01 * spacing(truth)).all()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("value", [1e6, -1e18, math.inf, math.nan])
def test_what_float16_cannot_hold_is_found_afterwards(value):
    *tensors, _ = operands(1, 9)
    gradient = torch.full((1, 9), 0.5)
    gradient[0, 2] = value
    torch.ops.bnn.adam_by_values(*tensors, gradient, *OPTIONS.values())
    assert tensors[1].isnan().nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("gradient", [torch.zeros(2, 9), torch.zeros(2, 8).double(), torch.zeros(8, 2).t()])
def test_refuses_what_does_not_fit(gradient):
    tensors = [torch.zeros(2, 8).half() for _ in range(3)]
    with pytest.raises(ValueError, match=r"a gradient of weights \[2, 8\] is contiguous float32"):
        torch.ops.bnn.adam_by_values(*tensors, gradient, *OPTIONS.values())
