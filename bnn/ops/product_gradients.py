"""Gradients of the products with ±1 values, in integers.

A gradient of a product is first rounded to integers, `q * scale`, by `bnn.ops.rounding` or `bnn.ops.norms`: `q` is
int8 of the product's shape, whatever its width, and `scale` float32 without dimensions. Its products with ±1 values
are sums of whole numbers, exact in int32 up to 16 million terms, so that every kernel gives the same bits in any order
of the work. Packed operands, `x_shape`, `weight_shape` and `window` are those of `bnn.ops.products`. Gradients of
images and of kernels are channels last.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from bnn.ops.geometry import Window
from bnn.ops.memory import empty, empty_channels_last
from bnn.ops.operation import operation
from bnn.ops.packing import empty_images, empty_rows, pack, unpack, unpack_images
from bnn.ops.products import part_images, pixels_of
from bnn.random.lowbias32 import random_bits, random_bits_at


@operation(
    "(Tensor q, Tensor scale, Tensor weight, int features, ScalarType dtype) -> Tensor",
    shape=lambda q, scale, weight, features, dtype: q.new_empty((len(q), features), dtype=dtype),
)
def linear_backward_input(q: Tensor, scale: Tensor, weight: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    """Gradient of the input of `linear`: scale * (q [N, O] times weight), `dtype` [N, K], float32 or bfloat16."""
    return _scaled(q.double() @ unpack(weight, features, torch.float64), scale).to(dtype)


@operation(
    "(Tensor q, Tensor scale, Tensor weight, int features, Tensor codes, float[] slopes, Tensor? base,"
    " ScalarType dtype, Tensor? outside=None) -> Tensor",
    shape=lambda q, scale, weight, features, codes, slopes, base, dtype, outside=None: q.new_empty(
        (len(q), features), dtype=dtype
    ),
)
def linear_backward_input_slopes(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    features: int,
    codes: Tensor,
    slopes: Sequence[float],
    base: Tensor | None,
    dtype: torch.dtype,
    outside: Tensor | None = None,
) -> Tensor:
    """`base` [N, K] plus `linear_backward_input` by a slope of each element, as `conv2d_backward_input_slopes`."""
    products = _scaled(q.double() @ unpack(weight, features, torch.float64), scale)
    products *= _slopes_of(codes, slopes, features)
    outside = None if outside is None else unpack(outside, features, torch.bool)
    return _added(base, outside, products).to(dtype)


@operation(
    "(Tensor q, Tensor scale, Tensor x, int features, ScalarType dtype=float) -> Tensor",
    shape=lambda q, scale, x, features, dtype=torch.float32: q.new_empty((q.shape[1], features), dtype=dtype),
)
def linear_backward_weight(
    q: Tensor, scale: Tensor, x: Tensor, features: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Gradient of the weight of `linear`: scale * (q [N, O] transposed times x), `dtype` [O, K]."""
    return _scaled(q.double().t() @ unpack(x, features, torch.float64), scale).to(dtype)


@operation(
    "(Tensor q, Tensor x, int features, int seed, int first_row=0) -> Tensor",
    shape=lambda q, x, features, seed, first_row=0: empty_rows(q, q.shape[1], features),
)
def linear_backward_weight_sign(q: Tensor, x: Tensor, features: int, seed: int, first_row: int = 0) -> Tensor:
    """Packed signs [O, K] of `linear_backward_weight`, so that no float of the weight's size exists.

    Args:
        q: int8 [N, O].
        x: packed.
        features: K.
        seed: of the signs of sums that are exactly 0: a hash of `seed` and of the element's index in [O, K] is even or
            odd. Such a weight is pushed neither way on average, as long as every step has its own seed.
        first_row: of a larger weight, from which these O rows are: their zeros have the signs that they would there.
    """
    return _packed_signs(q.double().t() @ unpack(x, features, torch.float64), seed, first_row)


@operation(
    "(Tensor q, Tensor scale, Tensor weight, int[] weight_shape, int[] x_shape, int[] window, ScalarType dtype)"
    " -> Tensor",
    shape=lambda q, scale, weight, weight_shape, x_shape, window, dtype: empty_images(q, x_shape, dtype),
)
def conv2d_backward_input(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: Sequence[int],
    x_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """Gradient of the input of `conv2d`: scale * (transposed convolution of q and weight).

    Args:
        q: int8 [N, O, H', W'].
        scale: float32 [].
        weight: packed.
        weight_shape: (O, C / groups, kh, kw).
        x_shape: (N, C, H, W).
        window: of the convolution.
        dtype: float32 or bfloat16.

    Returns:
        `dtype` [N, C, H, W].
    """
    products = _scaled(_input_products(q, weight, weight_shape, x_shape, window), scale)
    return products.to(dtype).contiguous(memory_format=torch.channels_last)


@operation(
    "(Tensor q, Tensor scale, Tensor weight, int[] weight_shape, int[] x_shape, int[] window, Tensor codes,"
    " float[] slopes, Tensor? base, ScalarType dtype, Tensor? outside=None) -> Tensor",
    shape=lambda q, scale, weight, weight_shape, x_shape, window, codes, slopes, base, dtype, outside=None: (
        empty_images(q, x_shape, dtype)
    ),
)
def conv2d_backward_input_slopes(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: Sequence[int],
    x_shape: Sequence[int],
    window: Sequence[int],
    codes: Tensor,
    slopes: Sequence[float],
    base: Tensor | None,
    dtype: torch.dtype,
    outside: Tensor | None = None,
) -> Tensor:
    """The gradient that `conv2d_backward_input` gives by a slope of each element, added to another gradient.

    `base + (scale * sum) * slopes[code]`, in float32, rounded to `dtype` once, at the end: what leaves a residual unit
    whose sign has a stepped slope.

    Args:
        q: as for `conv2d_backward_input`; so are `scale`, `weight`, `weight_shape`, `x_shape`, `window` and `dtype`.
        codes: uint8 [planes, N, ceil(C H W / 8)]: one or two planes of packed rows in (H, W, C) order. A code is the
            bit of the first plane plus twice that of the second.
        slopes: of each code: 2 or 4.
        base: `dtype` [N, C, H, W], or None where nothing is added.
        dtype: of the result.
        outside: packed rows in (H, W, C) order: the elements of `base` that count 0; None for none.
    """
    products = _scaled(_input_products(q, weight, weight_shape, x_shape, window), scale)
    n, c, h, w = x_shape
    products *= _slopes_of(codes, slopes, c * h * w).view(n, h, w, c).permute(0, 3, 1, 2)
    outside = None if outside is None else unpack_images(outside, x_shape) > 0
    return _added(base, outside, products).to(dtype).contiguous(memory_format=torch.channels_last)


@operation(
    "(Tensor q, Tensor scale, Tensor x, int[] x_shape, int[] weight_shape, int[] window, ScalarType dtype=float)"
    " -> Tensor",
    shape=lambda q, scale, x, x_shape, weight_shape, window, dtype=torch.float32: empty_images(q, weight_shape, dtype),
)
def conv2d_backward_weight(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gradient of the weight of `conv2d`, `dtype` [O, C / groups, kh, kw]; padding is a true zero."""
    products = _weight_products(q, x, x_shape, weight_shape, window)
    return _scaled(products, scale).to(dtype).contiguous(memory_format=torch.channels_last)


@operation(
    "(Tensor q, Tensor scale, Tensor x, int[] x_shape, int[] weight_shape, int[] window, int seed,"
    " ScalarType dtype=float) -> Tensor",
    shape=lambda q, scale, x, x_shape, weight_shape, window, seed, dtype=torch.float32: empty_images(
        q, weight_shape, dtype
    ),
)
def conv2d_backward_weight_ternary(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """`conv2d_backward_weight` by a gradient of -1, 0 and 1, drawn at random, times a value of each output.

    With a and b the sums of |q| and of q^2 of an output, over all examples and pixels, and p = floor(2^15 a / b), an
    integer q becomes sign(q) where the upper 16 bits of its random number are below p |q|, else 0; the value is
    scale * (2^16 / p), or 0 where all of the output's gradient is. So the mean stays right but for |q| above 2 b / a,
    which is clipped; of normally distributed numbers that is 2.5 deviations. Random numbers are those of `random_bits`
    by the element's index in the order of memory, (N, H', W', O).

    Source: TernGrad, Wen et al. 2017, arXiv 1705.07878, sec. 3, with its clipping.
    """
    ternary, values = ternary_of(q, scale, seed)
    products = _weight_products(ternary, x, x_shape, weight_shape, window).int().float() * values.view(-1, 1, 1, 1)
    return products.to(dtype).contiguous(memory_format=torch.channels_last)


def ternary_of(q: Tensor, scale: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The gradient of -1, 0 and 1 that `conv2d_backward_weight_ternary` draws, int8, and float32 [O], its values."""
    sizes = q.movedim(1, -1).long().abs()
    rows = sizes.flatten(0, -2)
    odds = (rows.sum(0) << 15) // rows.square().sum(0).clamp(min=1)
    random = random_bits(seed, sizes.numel(), q.device).view(sizes.shape) >> 16
    ternary = q.sign() * (random < sizes * odds).movedim(-1, 1)
    return ternary, torch.where(odds > 0, scale * (65536 / odds.clamp(min=1).float()), 0)


@operation(
    "(Tensor q, Tensor x, int[] x_shape, int[] weight_shape, int[] window, int seed, int first_row=0) -> Tensor",
    shape=lambda q, x, x_shape, weight_shape, window, seed, first_row=0: empty_rows(
        q, weight_shape[0], math.prod(weight_shape[1:])
    ),
)
def conv2d_backward_weight_sign(
    q: Tensor,
    x: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    seed: int,
    first_row: int = 0,
) -> Tensor:
    """Packed signs of `conv2d_backward_weight`, in rows of (kh, kw, C / groups) order.

    `seed` and `first_row` are of the signs of sums that are 0, as in `linear_backward_weight_sign`.
    """
    products = _weight_products(q, x, x_shape, weight_shape, window)
    return _packed_signs(products.permute(0, 2, 3, 1).flatten(1), seed, first_row)


@operation(
    "(Tensor q, Tensor x, int[] weight_shape, int[] window) -> Tensor",
    shape=lambda q, x, weight_shape, window: empty_images(x, weight_shape),
)
def real_conv2d_backward_weight(q: Tensor, x: Tensor, weight_shape: Sequence[int], window: Sequence[int]) -> Tensor:
    """Gradient of the weight of `real_conv2d` over the scale of `q`, `x.dtype` [O, C / groups, kh, kw].

    `x` are real images, float [N, C, H, W]. With `q` of `x.dtype` it is that of `float_conv2d`.
    """
    weight, total = x.new_empty(()).expand(weight_shape), empty_channels_last(weight_shape, x.dtype, x.device).zero_()
    images = part_images(max(q[:1].numel(), x[:1].numel()))
    for q_part, x_part in zip(torch.split(q, images), torch.split(x, images), strict=True):
        total += _weight_gradient(q_part.to(x.dtype), x_part, weight, Window(*window))
    return total


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """By torch; as a product of matrices where the convolution is one."""
    if window.is_of_pixels(weight.shape):
        return (pixels_of(grad).t() @ pixels_of(x)).view(weight.shape)
    return _convolution_backward(grad, x, weight, window, of_input=False)


def float_conv2d_backward_input(grad: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Gradient of the input of `float_conv2d` by torch, [N, C, H, W] of `grad`'s dtype, which is the weight's.

    Args:
        grad: [N, O, H', W'].
        x: the input, of which the shape is read.
        weight: float [O, C / groups, kh, kw].
        window: of the convolution.
    """
    if not window.is_of_pixels(weight.shape):
        return _convolution_backward(grad, x, weight, window, of_input=True)
    out = empty((len(x), *x.shape[2:], x.shape[1]), grad.dtype, grad.device)
    torch.mm(pixels_of(grad), weight.flatten(1), out=out.flatten(0, 2))
    return out.movedim(-1, 1)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, window: Sequence[int], *, of_input: bool) -> Tensor:
    stride, padding, dilation, groups = Window(*window).for_torch
    options = (None, stride, padding, dilation, False, (0, 0), groups, (of_input, not of_input, False))
    gradients = torch.ops.aten.convolution_backward(grad, x, weight, *options)
    return cast(Tensor, gradients[0 if of_input else 1])


def _input_products(
    q: Tensor, weight: Tensor, weight_shape: Sequence[int], x_shape: Sequence[int], window: Sequence[int]
) -> Tensor:
    x = q.new_empty((1,), dtype=torch.float64).expand(x_shape)
    kernels = unpack_images(weight, weight_shape).double()
    return _convolution_backward(q.double(), x, kernels, window, of_input=True)


def _slopes_of(codes: Tensor, slopes: Sequence[float], n: int) -> Tensor:
    """The slope of each code, float32 [rows, n]."""
    index = sum(unpack(plane, n, torch.bool).long() << i for i, plane in enumerate(codes))
    return torch.tensor(slopes, dtype=torch.float32, device=codes.device)[index]


def _added(base: Tensor | None, outside: Tensor | None, products: Tensor) -> Tensor:
    if base is None:
        return products
    return (base.float() if outside is None else torch.where(outside, 0, base.float())) + products


def _weight_products(
    q: Tensor, x: Tensor, x_shape: Sequence[int], weight_shape: Sequence[int], window: Sequence[int]
) -> Tensor:
    weight = q.new_empty((1,), dtype=torch.float64).expand(weight_shape)
    return _convolution_backward(q.double(), unpack_images(x, x_shape).double(), weight, window, of_input=False)


def _scaled(products: Tensor, scale: Tensor) -> Tensor:
    return products.int().float() * scale  # by way of integers, which have no -0


def _packed_signs(products: Tensor, seed: int, first_row: int) -> Tensor:
    first = first_row * products.shape[1]
    index = torch.arange(first, first + products.numel(), device=products.device)
    coins = random_bits_at(index, seed).view(products.shape) >> 31
    return pack(torch.where(products == 0, coins > 0, products > 0))
