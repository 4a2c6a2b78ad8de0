"""Gradients of the packed products in integers: schemas, shape rules and the specification in plain torch.

A gradient is first rounded to int8, `q * scale`, by `bnn.ops.int8`. Its products with ±1 values are sums of whole
numbers, exact in int32 up to 16 million terms, so that every kernel gives the same bits in any order of the work.

Packed operands and their shapes are those of `bnn.ops`; `q` is int8 and `scale` float32 without dimensions. Gradients
of images and of kernels are channels last.
"""

from typing import cast

import torch
from torch import Tensor

from bnn.ops import packed_bytes
from bnn.ops.int8 import random_bits
from bnn.ops.reference import _image, pack, unpack

SCHEMAS = {
    # int8 [N, O], packed [O, ceil(K/8)] -> dtype [N, K]
    "linear_backward_input": "(Tensor q, Tensor scale, Tensor weight, int features, ScalarType dtype) -> Tensor",
    # int8 [N, O], packed [N, ceil(K/8)] -> float32 [O, K]; packed signs [O, ceil(K/8)]
    "linear_backward_weight": "(Tensor q, Tensor scale, Tensor x, int features) -> Tensor",
    "linear_backward_weight_sign": "(Tensor q, Tensor x, int features, int seed) -> Tensor",
    # int8 [N, O, H', W'], packed weight -> dtype [N, C, H, W]
    "conv2d_backward_input": (
        "(Tensor q, Tensor scale, Tensor weight, int[] weight_shape, int[] x_shape,"
        " int[2] stride, int[2] padding, int[2] dilation, int groups, ScalarType dtype) -> Tensor"
    ),
    # int8 [N, O, H', W'], packed x -> float32 [O, C/groups, kh, kw]; packed signs in (kh, kw, C/groups) order
    "conv2d_backward_weight": (
        "(Tensor q, Tensor scale, Tensor x, int[] x_shape, int[] weight_shape,"
        " int[2] stride, int[2] padding, int[2] dilation, int groups) -> Tensor"
    ),
    "conv2d_backward_weight_sign": (
        "(Tensor q, Tensor x, int[] x_shape, int[] weight_shape,"
        " int[2] stride, int[2] padding, int[2] dilation, int groups, int seed) -> Tensor"
    ),
}

for _name, _schema in SCHEMAS.items():
    torch.library.define(f"bnn::{_name}", _schema)


# --- products ------------------------------------------------------------------------------------------------------


def linear_backward_input(q: Tensor, scale: Tensor, weight: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    """Gradient of the input of `bnn.ops.reference.linear`: scale * (q times weight).

    Args:
        q: int8 [N, O].
        scale: float32 [].
        weight: packed [O, ceil(K / 8)].
        features: K.
        dtype: float32 or bfloat16.

    Returns:
        `dtype` [N, K].
    """
    return _scaled(q.double() @ unpack(weight, features, torch.float64), scale).to(dtype)


def linear_backward_weight(q: Tensor, scale: Tensor, x: Tensor, features: int) -> Tensor:
    """Gradient of the weight of `bnn.ops.reference.linear`: scale * (q transposed times x).

    Args:
        q: int8 [N, O].
        scale: float32 [].
        x: packed [N, ceil(K / 8)].
        features: K.

    Returns:
        float32 [O, K].
    """
    return _scaled(q.double().t() @ unpack(x, features, torch.float64), scale)


def linear_backward_weight_sign(q: Tensor, x: Tensor, features: int, seed: int) -> Tensor:
    """Packed signs of `linear_backward_weight`, so that no float of the weight's size exists.

    Args:
        q: int8 [N, O].
        x: packed [N, ceil(K / 8)].
        features: K.
        seed: of the signs of sums that are exactly 0: a hash of `seed` and of the element's index in [O, K] is even or
            odd. Such a weight is pushed neither way on average, as long as every step has its own seed.

    Returns:
        packed [O, ceil(K / 8)].
    """
    return _packed_signs(q.double().t() @ unpack(x, features, torch.float64), seed)


def conv2d_backward_input(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    x_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient of the input of `bnn.ops.reference.conv2d`: scale * (transposed convolution of q and weight).

    Args:
        q: int8 [N, O, H', W'].
        scale: float32 [].
        weight: packed, rows in (kh, kw, C / groups) order; `weight_shape` is (O, C / groups, kh, kw).
        weight_shape: see `weight`.
        x_shape: (N, C, H, W).
        stride: as in the convolution, as are the arguments that follow.
        padding: zeros on each side.
        dilation: distance of the taps.
        groups: groups of channels.
        dtype: float32 or bfloat16.

    Returns:
        `dtype` [N, C, H, W], channels last.
    """
    x = q.new_empty((1,), dtype=torch.float64).expand(x_shape)
    window = (None, stride, padding, dilation, False, [0, 0], groups)
    products = torch.ops.aten.convolution_backward(
        q.double(), x, _image(weight, weight_shape).double(), *window, [True, False, False]
    )[0]
    return _scaled(products, scale).to(dtype).contiguous(memory_format=torch.channels_last)


def conv2d_backward_weight(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Gradient of the weight of `bnn.ops.reference.conv2d`; padding is a true zero.

    Args:
        q: int8 [N, O, H', W'].
        scale: float32 [].
        x: packed, rows in (H, W, C) order; `x_shape` is (N, C, H, W).
        x_shape: see `x`.
        weight_shape: (O, C / groups, kh, kw).
        stride: as in the convolution, as are the arguments that follow.
        padding: zeros on each side.
        dilation: distance of the taps.
        groups: groups of channels.

    Returns:
        float32 [O, C / groups, kh, kw], channels last.
    """
    products = _weight_products(q, x, x_shape, weight_shape, stride, padding, dilation, groups)
    return _scaled(products, scale).contiguous(memory_format=torch.channels_last)


def conv2d_backward_weight_sign(
    q: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    seed: int,
) -> Tensor:
    """Packed signs of `conv2d_backward_weight`, so that no float of the weight's size exists.

    Args:
        q: int8 [N, O, H', W'].
        x: as in `conv2d_backward_weight`.
        x_shape, weight_shape, stride, padding, dilation, groups: as there, too.
        seed: of the signs of sums that are 0, as in `linear_backward_weight_sign`.

    Returns:
        packed, rows in (kh, kw, C / groups) order.
    """
    products = _weight_products(q, x, x_shape, weight_shape, stride, padding, dilation, groups)
    return _packed_signs(products.permute(0, 2, 3, 1).flatten(1), seed)


def _weight_products(
    q: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    weight = q.new_empty((1,), dtype=torch.float64).expand(weight_shape)
    window = (None, stride, padding, dilation, False, [0, 0], groups)
    image = _image(x, x_shape).double()
    products = torch.ops.aten.convolution_backward(q.double(), image, weight, *window, [False, True, False])[1]
    return cast(Tensor, products)


def _scaled(products: Tensor, scale: Tensor) -> Tensor:
    return products.int().float() * scale  # by way of integers, which have no -0


def _packed_signs(products: Tensor, seed: int) -> Tensor:
    coins = random_bits(seed, products.numel(), products.device).view(products.shape) >> 31
    return pack(torch.where(products == 0, coins > 0, products > 0))


# --- shape rules, which also serve the meta device -----------------------------------------------------------------


def _linear_backward_input_shape(q: Tensor, scale: Tensor, weight: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    return q.new_empty((q.shape[0], features), dtype=dtype)


def _linear_backward_weight_shape(q: Tensor, scale: Tensor, x: Tensor, features: int) -> Tensor:
    return q.new_empty((q.shape[1], features), dtype=torch.float32)


def _linear_backward_weight_sign_shape(q: Tensor, x: Tensor, features: int, seed: int) -> Tensor:
    return q.new_empty((q.shape[1], packed_bytes(features)), dtype=torch.uint8)


def _conv2d_backward_input_shape(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    x_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    return q.new_empty(x_shape, dtype=dtype).to(memory_format=torch.channels_last)


def _conv2d_backward_weight_shape(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return q.new_empty(weight_shape, dtype=torch.float32).to(memory_format=torch.channels_last)


def _conv2d_backward_weight_sign_shape(
    q: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    seed: int,
) -> Tensor:
    row = weight_shape[1] * weight_shape[2] * weight_shape[3]
    return q.new_empty((weight_shape[0], packed_bytes(row)), dtype=torch.uint8)


for _shape_rule in (
    _linear_backward_input_shape,
    _linear_backward_weight_shape,
    _linear_backward_weight_sign_shape,
    _conv2d_backward_input_shape,
    _conv2d_backward_weight_shape,
    _conv2d_backward_weight_sign_shape,
):
    torch.library.register_fake("bnn::" + _shape_rule.__name__[1:].removesuffix("_shape"), _shape_rule)

for _kernel in (
    linear_backward_input,
    linear_backward_weight,
    linear_backward_weight_sign,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_backward_weight_sign,
):
    torch.library.impl(f"bnn::{_kernel.__name__}", "CompositeExplicitAutograd")(_kernel)
