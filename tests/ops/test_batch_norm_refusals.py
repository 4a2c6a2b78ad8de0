"""The passes of a batch norm: values at the edges of what they take, and what is refused."""

import math
from typing import Any

import pytest
import torch

from bnn.errors import NonFiniteError
from bnn.ops.packing import pack
from tests.contracts import randn
from tests.ops.batch_norms import (
    IMAGES,
    OF_GRAD_ALONE,
    ONES,
    code_of,
    codes_of,
    gradient_inputs,
    quarters,
    terms_of,
)
from tests.ops.comparison import check

bnn = torch.ops.bnn


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("position", [0, 77, 299])
def test_signs_of_nan_are_refused(isa: str, dtype: torch.dtype, position: int) -> None:
    y = randn(3, 4, 5, 5).to(dtype)
    y.view(-1)[position] = torch.nan
    for affine in ((None, None), (torch.ones(4), torch.zeros(4))):
        with pytest.raises(NonFiniteError, match="cannot take the sign of NaN"):
            bnn.sign_codes(y, *affine, [1.0])


def test_nan_that_a_factor_makes_is_refused(isa: str) -> None:
    with pytest.raises(NonFiniteError, match="cannot take the sign of NaN"):
        bnn.sign_codes(torch.zeros(2, 3), torch.tensor([1.0, math.inf, 1.0]), torch.zeros(3), [1.0])


def test_infinite_values_have_signs_and_the_last_code() -> None:
    y = torch.tensor([[math.inf, -math.inf, 3.0]])
    bits, codes = bnn.sign_codes(y, None, None, [0.5, 1.0, 2.0])
    assert code_of(bits[None], y).tolist() == [[1, 0, 1]]
    assert code_of(codes, y).tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_without_finite_bound_is_refused(isa: str, value: float) -> None:
    inputs = (*gradient_inputs((3, 8), (1.0, 0.0), 0), terms_of(8, 0))
    with pytest.raises(NonFiniteError, match="to integers"):
        bnn.norm_gradient_integers(*inputs, torch.tensor(value), 127, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("position", [0, 7, 8, 65])
def test_the_bound_of_a_gradient_that_is_not_finite_is_not(isa: str, value: float, position: int) -> None:
    grad, codes, slopes, y = gradient_inputs((6, 11), (1.0,), 0)
    grad.view(-1)[position] = value
    moments = torch.tensor([[0.0], [1.0]]).expand(2, 11)
    terms, bound, _ = bnn.norm_gradient_terms(grad, codes, slopes, y, moments, None, None, 1e-5)
    assert not bound.isfinite()
    assert [not x for x in terms.isfinite().all(0).tolist()] == [c == position % 11 for c in range(11)]


def test_a_gradient_too_small_to_scale_is_zero(isa: str) -> None:
    grad, codes, slopes, y = gradient_inputs((3, 8), (1.0, 0.0), 0)
    q, scale = check(
        "norm_gradient_integers", grad * 1e-44, codes, slopes, y, OF_GRAD_ALONE[:, :8], torch.tensor(1e-43), 127, 0
    )
    assert scale.item() == 0
    assert not q.any()


def test_a_gradient_beyond_its_bound_is_clamped(isa: str) -> None:
    y = torch.zeros(1, 9)
    grad, none = torch.linspace(-4, 4, 9)[None], codes_of((1, 9), (1.0,), 0)
    q, _ = check("norm_gradient_integers", grad, none, [1.0], y, OF_GRAD_ALONE[:, :9], torch.tensor(2.0), 2, 0)
    assert q.tolist() == [[-2, -2, -2, -1, 0, 1, 2, 2, 2]]


ROWS, FOUR, TERMS = torch.zeros(2, 4), torch.ones(4), torch.ones(3, 4)
OF_NORM = (TERMS[:2], None, None, 1e-5)
NO_CODES, CODES = codes_of((2, 4), (1.0,), 0), codes_of((2, 4), (1.0, 0.0), 0)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("norm_clamp_", (ROWS, FOUR[:3], FOUR, None, 0.0, 1.0), "factor must have 4 values"),
        ("norm_clamp_", (ROWS, FOUR, FOUR[:1], None, 0.0, 1.0), "offset must have 4 values"),
        ("norm_clamp_", (ROWS, FOUR, FOUR, ROWS[:1], 0.0, 1.0), r"shortcut must be \(2, 4\)"),
        ("norm_clamp_", (IMAGES, ONES, ONES, None, 0.0, 1.0), r"y must lie in \(N, ..., C\) order"),
        ("sign_codes", (ROWS, FOUR, FOUR[:2], [1.0]), "offset must have 4 values"),
        ("sign_codes", (ROWS, None, None, [0.5, 1.0]), "one or three ascending edges"),
        ("sign_codes", (ROWS, None, None, []), "one or three ascending edges"),
        ("sign_codes", (ROWS, None, None, [1.0, 0.5, 2.0]), "one or three ascending edges"),
        ("sign_codes", (ROWS.double(), None, None, [1.0, 0.5, 2.0]), "one or three ascending edges"),
        ("batch_statistics", (ROWS, FOUR[:3], None, None, 1e-5, FOUR, FOUR, 0.1), "scale must have 4 values"),
        ("batch_statistics", (ROWS, None, None, FOUR[:3], 1e-5, FOUR, FOUR, 0.1), "beta must have 4 values"),
        ("batch_statistics", (ROWS, None, None, None, 1e-5, FOUR, FOUR[:3], 0.1), "running statistics must have 4"),
        ("norm_gradient_terms", (ROWS, NO_CODES, [1.0, 0.0], ROWS, *OF_NORM), "codes of 0 planes have 1 slopes, got 2"),
        ("norm_gradient_terms", (ROWS, CODES, [1.0], ROWS, *OF_NORM), "codes of 1 planes have 2 slopes, got 1"),
        ("norm_gradient_terms", (ROWS[:1], CODES, [1.0, 0.0], ROWS, *OF_NORM), r"gradient must be \(2, 4\)"),
        (
            "norm_gradient_terms",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS, None, None, 1e-5),
            r"moments must be float32 \(2, 4\)",
        ),
        (
            "norm_gradient_terms",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS[:2], None, FOUR[:2], 1e-5),
            "gamma must have 4 values",
        ),
        (
            "norm_gradient",
            (ROWS, CODES[:, :1], [1.0, 0.0], ROWS, TERMS),
            r"planes of codes must be \(2, 1\)",
        ),
        ("norm_gradient", (ROWS, CODES, [1.0, 0.0], ROWS, TERMS[:, :2]), r"terms must be float32 \(3, 4\)"),
        ("norm_gradient", (ROWS, CODES.bool(), [1.0, 0.0], ROWS, TERMS), "codes must be uint8"),
        ("pass_slopes", (ROWS, CODES.expand(3, -1, -1), [1.0] * 8), "at most two planes"),
        ("pass_slopes", (ROWS.double(), CODES.expand(3, -1, -1), [1.0] * 8), "at most two planes"),
        ("pass_slopes", (ROWS, CODES[0], [1.0, 0.0]), "at most two planes"),
        (
            "norm_gradient_integers",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS, torch.tensor(1.0), 128, 0),
            r"in 1\.\.127, got 128",
        ),
    ],
)
def test_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        getattr(bnn, name)(*args)
    assert "\n" not in str(refused.value)


def test_codes_of_no_planes_stand_for_code_0_everywhere() -> None:
    grad = quarters((3, 5), 0)
    assert torch.equal(bnn.pass_slopes(grad, codes_of((3, 5), (1.0,), 0), [0.5]), grad / 2)
    assert torch.equal(bnn.pass_slopes(grad, pack(torch.zeros(3, 5).bool())[None], [0.5, 9.0]), grad / 2)
