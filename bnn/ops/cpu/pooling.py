"""Max-pooling on the CPU."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import memory
from bnn.ops import pooling as specification
from bnn.ops.cpu.arguments import DTYPE_CODES, convolution, empty_rows, packed_images, pooling
from bnn.ops.cpu.native import call, kernel
from bnn.ops.geometry import Window
from bnn.ops.memory import channels_last, empty_channels_last
from bnn.ops.pooling import check_choices, choices_shape, pooled_shape

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_GRADIENT_DTYPES = (torch.bfloat16, torch.float32, torch.float64)


@kernel
def max_pool2d(x: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    x = packed_images("x", x, x_shape)
    shape, geometry = pooling(x_shape, pool)
    out = empty_rows(shape[0], math.prod(shape[1:]))
    call("max_pool2d", x, out, *geometry)
    return out


@kernel
def max_pool2d_backward(grad: Tensor, x: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    if grad.dtype not in _GRADIENT_DTYPES:
        return specification.max_pool2d_backward(grad, x, x_shape, pool)
    x = packed_images("x", x, x_shape)
    shape, geometry = pooling(x_shape, pool)
    if tuple(grad.shape) != shape:
        raise ValueError(f"grad must be {shape}, is {tuple(grad.shape)}")
    grad = channels_last(grad)
    out = empty_channels_last(x_shape, grad.dtype)
    call("max_pool2d_backward", grad, x, out, *geometry, grad.itemsize)
    return out


@kernel
def max_pool2d_choices(x: Tensor, pool: Sequence[int]) -> tuple[Tensor, Tensor]:
    if x.dtype not in _FLOATS:
        return specification.max_pool2d_choices(x, pool)
    shape = pooled_shape(x.shape, pool)
    _, geometry = pooling(x.shape, pool)
    values, choices = empty_channels_last(shape, x.dtype), _empty_choices(shape, pool)
    x = channels_last(x)
    call("max_pool2d_choices", x, values, choices, *geometry, len(choices), DTYPE_CODES[x.dtype])
    return values, choices


@kernel
def max_pool2d_scatter(grad: Tensor, choices: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    if grad.dtype not in DTYPE_CODES:
        return specification.max_pool2d_scatter(grad, choices, x_shape, pool)
    check_choices(grad, choices, x_shape, pool)
    _, geometry = pooling(x_shape, pool)
    grad, choices = channels_last(grad), choices.contiguous()
    out = empty_channels_last(x_shape, grad.dtype)
    call("max_pool2d_scatter", grad, choices, out, *geometry, len(choices), DTYPE_CODES[grad.dtype])
    return out


@kernel
def conv2d_max_pool2d(
    x: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Sequence[int],
    pool: Sequence[int],
) -> tuple[Tensor, Tensor]:
    # The products of one image a thread exist at a time.
    products, geometry = convolution(x_shape, weight_shape, window)
    x, weight = packed_images("x", x, x_shape), packed_images("weight", weight, weight_shape)
    shape = pooled_shape(products, pool)
    _, pool_geometry = pooling(products, pool)
    values, choices = empty_channels_last(shape, torch.float16), _empty_choices(shape, pool)
    groups = Window(*window).groups
    call("conv2d_max_pool2d", x, weight, values, choices, *geometry, *pool_geometry, groups, len(choices))
    return values, choices


def _empty_choices(pooled: Sequence[int], pool: Sequence[int]) -> Tensor:
    return memory.empty(choices_shape(pooled, pool), torch.uint8)
