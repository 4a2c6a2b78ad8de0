"""Gradients of the products with ±1 values on the CPU.

Beside the result a call takes at most 1 MiB for weights as bytes, or those of 32 channels, and for each thread 1 MiB
and the gradients that reach 128 input pixels; of a ternary gradient two bits an element.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import product_gradients as specification
from bnn.ops.cpu.arguments import Geometry, convolution, packed_batch, packed_images
from bnn.ops.cpu.native import call, kernel
from bnn.ops.cpu.products import sums_floats
from bnn.ops.geometry import Window
from bnn.ops.memory import channels_last, empty_channels_last
from bnn.ops.packing import packed_bytes
from bnn.random.lowbias32 import hash_key

# Partial sums of a weight's gradient for real images: 16 MiB.
_MAX_REAL_WEIGHTS = 1 << 18
_ONE_TAP = Window.of()  # of a convolution that is a product of matrices


@kernel
def linear_backward_input(q: Tensor, scale: Tensor, weight: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    weight_shape, x_shape = _one_pixel(q, features)
    out = conv2d_backward_input(q[:, :, None, None], scale, weight, weight_shape, x_shape, _ONE_TAP, dtype)
    return out.flatten(1)


@kernel
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
    weight_shape, x_shape = _one_pixel(q, features)
    base = None if base is None else base[:, :, None, None]
    q = q[:, :, None, None]
    args = (q, scale, weight, weight_shape, x_shape, _ONE_TAP, codes, slopes, base, dtype, outside)
    return conv2d_backward_input_slopes(*args).flatten(1)


@kernel
def linear_backward_weight(
    q: Tensor, scale: Tensor, x: Tensor, features: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    weight_shape, x_shape = _one_pixel(q, features)
    return conv2d_backward_weight(q[:, :, None, None], scale, x, x_shape, weight_shape, _ONE_TAP, dtype).flatten(1)


@kernel
def linear_backward_weight_sign(q: Tensor, x: Tensor, features: int, seed: int, first_row: int = 0) -> Tensor:
    weight_shape, x_shape = _one_pixel(q, features)
    return conv2d_backward_weight_sign(q[:, :, None, None], x, x_shape, weight_shape, _ONE_TAP, seed, first_row)


@kernel
def conv2d_backward_input(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: Sequence[int],
    x_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    return _backward_input(q, scale, weight, weight_shape, x_shape, window, dtype, 0, (), 0, 0)


@kernel
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
    of_slopes = slope_arguments(codes, slopes, base, outside, x_shape, dtype)
    return _backward_input(q, scale, weight, weight_shape, x_shape, window, dtype, *of_slopes)


@kernel
def conv2d_backward_weight(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    _check_dtype(dtype)
    q, geometry = _gradient(q, x_shape, weight_shape, window)
    x = packed_images("x", x, x_shape)
    out = empty_channels_last(weight_shape, dtype)
    outputs, groups = weight_shape[0], Window(*window).groups
    call("conv2d_backward_weight", q, scale.item(), x, out, *geometry, outputs, groups, out.itemsize)
    return out


@kernel
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
    _check_dtype(dtype)
    q, geometry = _gradient(q, x_shape, weight_shape, window)
    x = packed_images("x", x, x_shape)
    out = empty_channels_last(weight_shape, dtype)
    options = (weight_shape[0], Window(*window).groups, out.itemsize, hash_key(seed))
    call("conv2d_backward_weight_ternary", q, scale.item(), x, out, *geometry, *options)
    return out


@kernel
def conv2d_backward_weight_sign(
    q: Tensor,
    x: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    seed: int,
    first_row: int = 0,
) -> Tensor:
    q, geometry = _gradient(q, x_shape, weight_shape, window)
    x = packed_images("x", x, x_shape)
    out = q.new_zeros((weight_shape[0], packed_bytes(math.prod(weight_shape[1:]))), dtype=torch.uint8)
    outputs, groups = weight_shape[0], Window(*window).groups
    call("conv2d_backward_weight_sign", q, x, out, *geometry, outputs, groups, hash_key(seed), first_row)
    return out


@kernel
def real_conv2d_backward_weight(q: Tensor, x: Tensor, weight_shape: Sequence[int], window: Sequence[int]) -> Tensor:
    is_real, of = q.dtype is torch.float32, Window(*window)
    few = math.prod(weight_shape) <= _MAX_REAL_WEIGHTS and of.groups == 1
    if x.dtype is not torch.float32 or not (sums_floats(weight_shape, of) if is_real else few):
        return specification.real_conv2d_backward_weight(q, x, weight_shape, window)
    q, geometry = _gradient(q, x.shape, weight_shape, window, torch.float32 if is_real else torch.int8)
    out = empty_channels_last(weight_shape, x.dtype)
    name = "float_conv2d_backward_weight" if is_real else "real_conv2d_backward_weight"
    call(name, q, channels_last(x), out, *geometry, weight_shape[0])
    return out


def _backward_input(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: Sequence[int],
    x_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype,
    *slopes: Tensor | Sequence[float] | int,
) -> Tensor:
    _check_dtype(dtype)
    q, geometry = _gradient(q, x_shape, weight_shape, window)
    weight = packed_images("weight", weight, weight_shape)
    out = empty_channels_last(x_shape, dtype)
    outputs, groups = weight_shape[0], Window(*window).groups
    call("conv2d_backward_input", q, scale.item(), weight, out, *geometry, outputs, groups, out.itemsize, *slopes)
    return out


def slope_arguments(
    codes: Tensor,
    slopes: Sequence[float],
    base: Tensor | None,
    outside: Tensor | None,
    x_shape: Sequence[int],
    dtype: torch.dtype,
) -> tuple[Tensor, Sequence[float], Tensor | int, Tensor | int]:
    """What a call takes of the slopes of an input's codes, and of what is added to its gradient, checked."""
    planes = {2: 1, 4: 2}.get(len(slopes))
    if codes.dtype is not torch.uint8 or codes.shape != (planes, x_shape[0], packed_bytes(math.prod(x_shape[1:]))):
        raise ValueError(
            f"codes must be one or two planes of packed rows for {list(x_shape)}, with 2 or 4 slopes;"
            f" are {str(codes.dtype).removeprefix('torch.')} {tuple(codes.shape)} with {len(slopes)}"
        )
    if base is not None:
        if base.dtype is not dtype or list(base.shape) != list(x_shape):
            raise ValueError(f"base must be {dtype} {list(x_shape)}, is {base.dtype} {list(base.shape)}")
        base = channels_last(base)
    at_outside = 0 if outside is None else packed_batch("outside", outside, x_shape)
    return codes.contiguous(), slopes, 0 if base is None else base, at_outside


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"the gradient's dtype must be float32 or bfloat16, is {dtype}")


def _one_pixel(q: Tensor, features: int) -> tuple[list[int], list[int]]:
    """Shapes of weight and input of the convolution that a product of matrices is."""
    if q.dim() != 2:
        raise ValueError(f"q must be a matrix, has the shape {tuple(q.shape)}")
    return [q.shape[1], features, 1, 1], [q.shape[0], features, 1, 1]


def _gradient(
    q: Tensor,
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Sequence[int],
    dtype: torch.dtype = torch.int8,
) -> tuple[Tensor, Geometry]:
    """`q` in (N, H', W', O) order, checked, and the geometry of its convolution."""
    shape, geometry = convolution(x_shape, weight_shape, window)
    if q.dtype is not dtype or tuple(q.shape) != shape:
        raise ValueError(f"q must be int8 {shape}, is {str(q.dtype).removeprefix('torch.')} {tuple(q.shape)}")
    return channels_last(q), geometry
