"""Products with ±1 weights on the CPU."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import products as specification
from bnn.ops.cpu.arguments import DTYPE_CODES, convolution, packed_images, packed_rows
from bnn.ops.cpu.native import call, instruction_set, kernel
from bnn.ops.geometry import Window
from bnn.ops.memory import channels_last, empty_channels_last
from bnn.ops.products import check_exact

_INPUT_DTYPES = (torch.float32, torch.bfloat16)
_RESULT_DTYPES = (torch.float32, torch.float16)
_MOST_FLOAT_WEIGHTS = 1 << 14
_MOST_OF_PIXELS = 1 << 18


@kernel
def linear(x: Tensor, weight: Tensor, features: int) -> Tensor:
    check_exact(features)
    x, weight = packed_rows("x", x, features), packed_rows("weight", weight, features)
    out = x.new_empty((len(x), len(weight)), dtype=torch.float32)
    call("linear", x, weight, out, *out.shape, features)
    return out


@kernel
def conv2d(
    x: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    if dtype not in _RESULT_DTYPES:
        return specification.conv2d(x, x_shape, weight, weight_shape, window, dtype)
    shape, geometry = convolution(x_shape, weight_shape, window)
    check_exact(math.prod(weight_shape[1:]))
    x, weight = packed_images("x", x, x_shape), packed_images("weight", weight, weight_shape)
    out = empty_channels_last(shape, dtype)
    call("conv2d", x, weight, out, *geometry, weight_shape[0], Window(*window).groups, DTYPE_CODES[dtype])
    return out


@kernel
def real_conv2d(
    x: Tensor, weight: Tensor, weight_shape: Sequence[int], window: Sequence[int], dtype: torch.dtype
) -> Tensor:
    if not sums_pixels_alone(x, window) or dtype not in _RESULT_DTYPES:
        return specification.real_conv2d(x, weight, weight_shape, window, dtype)
    shape, geometry = convolution(x.shape, weight_shape, window)
    weight = packed_images("weight", weight, weight_shape)
    out = empty_channels_last(shape, dtype)
    x = channels_last(x)
    call("real_conv2d", x, weight, out, *geometry, weight_shape[0], DTYPE_CODES[dtype])
    return out


def sums_pixels_alone(x: Tensor, window: Sequence[int]) -> bool:
    """Whether `real_conv2d` is a kernel's, whose sums do not depend on how many images there are."""
    is_native = instruction_set() != "reference" and x.device.type == "cpu"
    return is_native and x.dtype is torch.float32 and Window(*window).groups == 1


@kernel
def float_conv2d(x: Tensor, weight: Tensor, window: Sequence[int], dtype: torch.dtype) -> Tensor:
    if (
        not sums_floats(weight.shape, Window(*window))
        or x.dtype not in _INPUT_DTYPES
        or weight.dtype is not torch.float32
        or dtype not in _RESULT_DTYPES
    ):
        return specification.float_conv2d(x, weight, window, dtype)
    shape, geometry = convolution(x.shape, weight.shape, window)
    out = empty_channels_last(shape, dtype)
    operands = (channels_last(x), channels_last(weight))
    call("float_conv2d", *operands, out, *geometry, shape[1], DTYPE_CODES[x.dtype], DTYPE_CODES[dtype])
    return out


def sums_floats(weight_shape: Sequence[int], window: Window) -> bool:
    """Whether there is a kernel for real images and weights: of few, as in a stem of 7x7 with 64 outputs.

    Torch is as fast with more, and faster where a convolution is a product of matrices, but loads 8 MiB of code for it.
    """
    most = _MOST_OF_PIXELS if window.is_of_pixels(weight_shape) else _MOST_FLOAT_WEIGHTS
    return window.groups == 1 and math.prod(weight_shape) <= most
