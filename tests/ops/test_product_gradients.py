"""The integer gradients: the specification against float64, and its refusals."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops import Window, product_gradients
from bnn.ops.packing import pack, unpack
from tests.ops.comparison import (
    generator,
    needs_native,
    random_bits,
    random_codes,
    random_integers,
    rows_of,
)

# --- products ------------------------------------------------------------------------------------------------------


def signs(*shape: int, seed: int) -> Tensor:
    return torch.where(torch.rand(shape, generator=generator(seed)) < 0.5, 1.0, -1.0).double()


def test_the_specification_is_the_gradient_of_the_convolution() -> None:
    x, weight = signs(2, 6, 7, 5, seed=0).requires_grad_(), signs(4, 3, 3, 2, seed=1).requires_grad_()
    window = Window.of(stride=(2, 1), padding=(1, 3), dilation=(1, 2), groups=2)
    out = F.conv2d(x, weight, None, *window.for_torch)
    q, scale = random_integers(*out.shape, seed=2), torch.tensor(0.25)
    grad_x, grad_weight = torch.autograd.grad(out, (x, weight), 0.25 * q.double())
    args = (list(x.shape), list(weight.shape), window)
    of_weight = product_gradients.conv2d_backward_weight(q, scale, rows_of(x.detach()), *args)
    packed = rows_of(weight.detach())
    of_input = product_gradients.conv2d_backward_input(q, scale, packed, args[1], args[0], window, torch.float32)
    assert torch.equal(of_input.double(), grad_x)
    assert torch.equal(of_weight.double(), grad_weight)
    sums = grad_weight.permute(0, 2, 3, 1).flatten(1)
    packed_signs = product_gradients.conv2d_backward_weight_sign(q, rows_of(x.detach()), *args, 0)
    assert torch.equal(unpack(packed_signs, 18, torch.float64)[sums != 0], sums.sign()[sums != 0])


def test_the_specification_is_the_gradient_of_the_product() -> None:
    q, x, weight = random_integers(5, 7, seed=0), signs(5, 19, seed=1), signs(7, 19, seed=2)
    scale = torch.tensor(0.5)
    of_input = product_gradients.linear_backward_input(q, scale, pack(weight), 19, torch.float32)
    assert torch.equal(of_input.double(), 0.5 * q.double() @ weight)
    of_weight = product_gradients.linear_backward_weight(q, scale, pack(x), 19)
    assert torch.equal(of_weight.double(), 0.5 * q.double().t() @ x)


def test_the_specification_with_slopes_is_the_gradient_of_a_residual_unit() -> None:
    x_shape, weight_shape, window = [2, 3, 5, 4], [6, 3, 3, 3], Window.of(padding=1)
    q, weight = random_integers(2, 6, 5, 4, seed=0), random_bits(6, 27, 1)
    codes, slopes = random_codes(2, 2, 60, 2), [0.0, 0.5, 1.0, 2.0]
    base = torch.randn(x_shape, generator=generator(3), dtype=torch.float32)
    args = (q, torch.tensor(0.25), weight, weight_shape, x_shape, window)
    got = product_gradients.conv2d_backward_input_slopes(*args, codes, slopes, base, torch.float32)
    slope = 0.5 * unpack(codes[0], 60, torch.bool).double()  # 0, 0.5 of the first plane, and twice as much and 1 more
    high = unpack(codes[1], 60, torch.bool)
    slope = torch.where(high, 1 + 2 * slope, slope).view(2, 5, 4, 3).permute(0, 3, 1, 2)
    products = product_gradients.conv2d_backward_input(*args, torch.float32)
    torch.testing.assert_close(got.double(), base.double() + products.double() * slope, rtol=1e-6, atol=1e-6)


def test_a_ternary_gradient_has_the_mean_of_the_integers_but_where_it_is_clipped() -> None:
    rows = torch.tensor([[9] + 9 * [1] + 10 * [-1], 5 * [3, -2, 1, 0], 20 * [0], 10 * [-128, 127]], dtype=torch.int8)
    times = 5_000
    ternary, values = product_gradients.ternary_of(
        rows.t().reshape(20, 4, 1, 1).repeat(times, 1, 1, 1), torch.tensor(0.5), 3
    )
    assert set(ternary.unique().tolist()) == {-1, 0, 1}
    # Twice the sum of squares over that of magnitudes, but for the unit of the odds.
    largest = torch.tensor([2 * 100 / 28, 2 * 14 / 6, 0.0, 2 * 325_130 / 2550])
    torch.testing.assert_close(values, 0.5 * largest, rtol=4e-3, atol=0)
    means = ternary.view(times, 20, 4).float().mean(0).t() * values[:, None]
    expected = 0.5 * rows.float().clamp(-largest[:, None], largest[:, None])  # of all but the first, the row itself
    assert (means - expected).abs().amax(1).le(4 * values / times**0.5).all()


def test_a_product_by_a_ternary_gradient_is_that_of_its_integers() -> None:
    x_shape, weight_shape, window = [3, 5, 6, 7], [4, 5, 3, 3], Window.of(padding=1)
    q, x = random_integers(3, 4, 6, 7, seed=0), random_bits(3, 5 * 6 * 7, 1)
    args = (x, x_shape, weight_shape, window)
    ternary, values = product_gradients.ternary_of(q, torch.tensor(0.25), 9)
    sums = product_gradients.conv2d_backward_weight(ternary, torch.tensor(1.0), *args)
    got = product_gradients.conv2d_backward_weight_ternary(q, torch.tensor(0.25), *args, 9)
    assert torch.equal(got, sums * values.view(-1, 1, 1, 1))
    other = product_gradients.conv2d_backward_weight_ternary(q, torch.tensor(0.25), *args, 10)
    assert not torch.equal(got, other)


def test_the_sign_of_zero_is_fair_and_depends_on_the_seed() -> None:
    q, x = torch.zeros(4, 64, dtype=torch.int8), torch.zeros(4, 100, dtype=torch.uint8)
    signs = [
        unpack(torch.ops.bnn.linear_backward_weight_sign(q, x, 800, seed), 800, torch.float64)
        for seed in (0, 1, 2**32, -1)
    ]
    count = signs[0].numel()
    for i, a in enumerate(signs):
        assert abs(a.mean()) < 5 * count**-0.5
        for b in signs[:i]:
            assert abs((a * b).mean()) < 5 * count**-0.5  # independent
    assert torch.equal(
        torch.ops.bnn.linear_backward_weight_sign(q, x, 800, 1),
        product_gradients.linear_backward_weight_sign(q, x, 800, 1),
    )


# --- wrong arguments --------------------------------------------------------------------------------------------------

X, W = random_bits(2, 4 * 5 * 6, 0), random_bits(6, 2 * 3 * 2, 1)
Q, SCALE = random_integers(2, 6, 3, 8, seed=2), torch.tensor(0.1)
SHAPES = ([2, 4, 5, 6], [6, 2, 3, 2])
WINDOW = Window.of(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)


@needs_native
@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("linear_backward_input", (Q, SCALE, W, 12, torch.float32), "must be a matrix"),
        ("linear_backward_input", (Q[:, :, 0, 0], SCALE, W, 25, torch.float32), "4 bytes a row for 25"),
        (
            "linear_backward_input",
            (Q[:, :, 0, 0], SCALE, W, 12, torch.float16),
            "must be float32 or bfloat16",
        ),
        ("linear_backward_weight", (Q[:, :, 0, 0].float(), SCALE, X, 117), "q must be int8"),
        ("conv2d_backward_weight", (Q[:1], SCALE, X, *SHAPES, WINDOW), "q must be int8"),
        ("conv2d_backward_weight_ternary", (Q, SCALE, X[:1], *SHAPES, WINDOW, 5), "cannot be packed as"),
        ("conv2d_backward_weight", (Q, SCALE, X[:1], *SHAPES, WINDOW), "cannot be packed as"),
        ("conv2d_backward_weight", (Q, SCALE, X, *SHAPES, WINDOW._replace(groups=1)), "in 1 groups does not fit"),
        (
            "conv2d_backward_input",
            (Q, SCALE, W[:5], *SHAPES[::-1], WINDOW, torch.float32),
            "cannot be packed",
        ),
        (
            "conv2d_backward_input_slopes",
            (Q, SCALE, W, *SHAPES[::-1], WINDOW, X[None], [0.0, 1.0, 2.0, 3.0], None, torch.float32),
            "one or two planes",
        ),
        (
            "conv2d_backward_input_slopes",
            (Q, SCALE, W, *SHAPES[::-1], WINDOW, X[None, :1], [0.0, 1.0], None, torch.float32),
            "one or two planes",
        ),
        (
            "conv2d_backward_input_slopes",
            (Q, SCALE, W, *SHAPES[::-1], WINDOW, X[None], [0.0, 1.0], torch.zeros(SHAPES[0]), torch.bfloat16),
            "base must be",
        ),
        ("conv2d_backward_weight_sign", (Q, X, *SHAPES, WINDOW._replace(stride_height=0), 5), "must be positive"),
    ],
)
def test_wrong_arguments_are_told(name: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(torch.ops.bnn, name)(*args)
