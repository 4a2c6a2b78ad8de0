"""What a block of bits does each way, in one call of the kernels: they take less time than as many calls do.

Results are those of the operations, one after the other. Nothing of torch sees what lies between them, so that only
plain tensors are taken, outside of autograd and of torch's modes (`bnn.ops.operation.is_plain`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from bnn.ops.batch_norm import EDGE_COUNTS, check_edges
from bnn.ops.cpu.arguments import (
    DTYPE_CODES,
    convolution,
    empty_planes,
    empty_rows,
    optional_per_channel,
    packed_batch,
    packed_images,
    per_channel,
)
from bnn.ops.cpu.batch_norm import FLOATS, STREAMS, check_codes, of_channels
from bnn.ops.cpu.native import call, instruction_set
from bnn.ops.cpu.product_gradients import slope_arguments
from bnn.ops.geometry import Window
from bnn.ops.memory import LARGE_BYTES, channels_last, empty_channels_last
from bnn.ops.operation import is_plain
from bnn.ops.packing import nan_error
from bnn.ops.products import check_exact
from bnn.ops.rounding import check_largest, not_finite
from bnn.random.lowbias32 import hash_key

_ONE_PIXEL = Window.of()


class Operands(NamedTuple):
    """Of the product of a block."""

    x: Tensor
    """Packed bits; forward takes real values, too."""
    x_shape: Sequence[int]
    """[N, C, H, W], or [N, K] of a linear layer."""
    weight: Tensor
    """Packed bits."""
    weight_shape: Sequence[int]
    """[O, C / groups, kh, kw] or [O, K]."""
    window: Window | None
    """Of the convolution; None of a linear layer."""


class BatchNorm(NamedTuple):
    """What `bnn.ops.batch_norm.batch_statistics` takes besides the product."""

    scale: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    running_mean: Tensor
    running_var: Tensor
    momentum: float


class Rounding(NamedTuple):
    """Of the product's gradient to integers; see `bnn.ops.batch_norm.norm_gradient_integers`."""

    largest: int
    seed: int


class InputGradient(NamedTuple):
    """How the gradient of the input is formed: see `bnn.ops.product_gradients.conv2d_backward_input_slopes`."""

    dtype: torch.dtype
    """bfloat16 or float32."""
    codes: Tensor
    """Of the input; none of an input of bits, to whose gradient nothing is added."""
    slopes: Sequence[float]
    base: Tensor | None
    outside: Tensor | None


class WeightGradient(NamedTuple):
    """How the gradient of the weight is formed."""

    dtype: torch.dtype
    """bfloat16 or float32."""
    ternary_seed: int | None
    """Of `bnn.ops.product_gradients.conv2d_backward_weight_ternary`; None for a gradient of the integers."""


def serves(x: Tensor, norm: BatchNorm, shortcut: Tensor | None) -> bool:
    """Whether there is a call for a block of this input, real or packed bits, and of these dtypes."""
    return (
        is_plain(x)
        and instruction_set() != "reference"
        and x.dtype in (*FLOATS, torch.uint8)
        and x.numel() > 0
        and (shortcut is None or shortcut.dtype in STREAMS)
        and all(of.dtype is torch.float32 and of.is_contiguous() for of in (norm.running_mean, norm.running_var))
    )


def serves_gradient(grad: Tensor, x_shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether there is a call for the gradients of a block, which takes no more memory than its parts do.

    The product lies where the gradient of the input, of `dtype`, will be, unless it is small.
    """
    product_bytes = _product_bytes(grad.shape)
    return (
        is_plain(grad)
        and instruction_set() != "reference"
        and grad.dtype in STREAMS
        and grad.numel() > 0
        and (product_bytes < LARGE_BYTES or product_bytes <= dtype.itemsize * math.prod(x_shape))
    )


def forward(
    operands: Operands,
    input_edges: Sequence[float],
    norm: BatchNorm,
    batches: Tensor,
    shortcut: Tensor | None,
    clamp_range: tuple[float, float],
    output_edges: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The signs of the input, their product, its norm by the statistics of the batch, and what follows it.

    Args:
        operands: of the product.
        input_edges: of the codes of a real input.
        norm: its running statistics take those of the batch in.
        batches: int64 [], to which 1 is added.
        shortcut: what is added to the norm, or None.
        clamp_range: of a real result.
        output_edges: of the codes of a result of bits; empty where it is real.

    Returns:
        What `sign_codes` gives of the input, empty where that is of bits; the product in whose place `norm_clamp_` has
        left the result, or packed bits; its codes; and the moments of `batch_statistics`.

    Raises:
        NonFiniteError: an input or a result is not a number.
        ValueError: shapes do not fit each other.
    """
    x, features = operands.x, math.prod(operands.x_shape[1:])
    shape, product = _product(operands)
    y = empty_channels_last(shape, product.dtype)
    rows, channels, *size = shape
    if x.dtype is torch.uint8:
        bits, codes, x_dtype = packed_batch("x", x, operands.x_shape), x, -1
        made = (x.new_empty((0, 0)), x.new_empty((0, 0, 0)))
    else:
        check_edges(input_edges)
        if tuple(x.shape) != tuple(operands.x_shape):
            raise ValueError(f"x must be {tuple(operands.x_shape)}, is {tuple(x.shape)}")
        x, x_dtype = channels_last(x), DTYPE_CODES[x.dtype]
        made = bits, codes = empty_rows(rows, features), empty_planes(EDGE_COUNTS[len(input_edges)], rows, features)
    if shortcut is not None:
        if shortcut.shape != shape:
            raise ValueError(f"the shortcut must be {tuple(shape)} as the norm, is {tuple(shortcut.shape)}")
        shortcut = channels_last(shortcut)
    if output_edges:
        check_edges(output_edges)
    of_norm = [optional_per_channel("the norm", of, channels) for of in norm[:3]]
    for running in (norm.running_mean, norm.running_var):
        per_channel("running statistics", running, channels)
    if batches.dtype is not torch.int64 or batches.numel() != 1:
        raise ValueError(f"the count of batches must be one int64, is {batches.dtype} {tuple(batches.shape)}")
    increment_version((norm.running_mean, norm.running_var, batches))
    moments, affine = torch.empty((2, channels)), torch.empty((2, channels))
    n = channels * math.prod(size)
    out_codes = empty_planes(EDGE_COUNTS[len(output_edges)] if output_edges else 1, rows, n)
    out = empty_rows(rows, n) if output_edges else y
    has_nan = call(
        "block",
        *(x, x_dtype, input_edges, bits, codes),
        *(product.weight, y, *product.geometry),
        *(*of_norm, *norm[3:], batches, moments, affine),
        *((0, 0) if shortcut is None else (shortcut, DTYPE_CODES[shortcut.dtype])),
        *(*clamp_range, output_edges, out, out_codes),
    )
    if has_nan:
        raise nan_error()
    return *made, out, out_codes, moments


def backward(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    operands: Operands,
    of_norm: tuple[Tensor, Tensor | None, Tensor | None, float],
    rounding: Rounding,
    of_input: InputGradient,
    of_weight: WeightGradient,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a block's input, weight and norm, for which the product is formed again.

    Args:
        grad: of the result.
        codes: of the result.
        slopes: of its codes.
        operands: of the product, which is that of forward.
        of_norm: moments of the product, and scale, gamma and eps of `BatchNorm`.
        rounding: of the gradient of the product.
        of_input: how that of the input is formed.
        of_weight: how that of the weight is formed.

    Returns:
        Of the input's shape, of the weight's shape, and float32 [3, O] of scale, gamma and beta.

    Raises:
        NonFiniteError: the gradient is not finite.
        ValueError: shapes do not fit each other.
    """
    check_largest(rounding.largest)
    shape, product = _product(operands)
    if grad.shape != shape:
        raise ValueError(f"the gradient must be {tuple(shape)} as the product, is {tuple(grad.shape)}")
    check_codes(codes, slopes, grad)
    x_shape, channels, dtype = operands.x_shape, shape[1], of_input.dtype
    moments, *factors, eps = of_norm
    terms, of_parameters = torch.empty((3, channels)), torch.empty((3, channels))
    q, of_x = empty_channels_last(shape, torch.int8), empty_channels_last(x_shape, dtype)
    y = of_x if _product_bytes(shape) <= of_x.nbytes else empty_channels_last(shape, product.dtype)
    of_w = empty_channels_last(operands.weight_shape, of_weight.dtype)
    has_codes = len(of_input.codes) > 0
    of_slopes = slope_arguments(*of_input[1:], x_shape, dtype) if has_codes else (0, [], 0, 0)
    is_ternary, seed_of_ternary = of_weight.ternary_seed is not None, of_weight.ternary_seed or 0
    is_finite = call(
        "block_backward",
        *(channels_last(grad), DTYPE_CODES[grad.dtype], codes.contiguous(), slopes),
        *(packed_batch("x", operands.x, x_shape), product.weight, y, *product.geometry),
        of_channels("moments", moments, 2, channels),
        *(optional_per_channel("the norm", of, channels) for of in factors),
        *(eps, terms, of_parameters),
        *(q, rounding.largest, hash_key(rounding.seed)),
        *(of_x, of_x.itemsize, *of_slopes),
        *(of_w, of_w.itemsize, is_ternary, hash_key(seed_of_ternary)),
    )
    if not is_finite:
        raise not_finite()
    return of_x, of_w, of_parameters


def _product_bytes(shape: Sequence[int]) -> int:
    return math.prod(shape) * (2 if len(shape) == 4 else 4)


class _Product(NamedTuple):
    """As calls take it."""

    dtype: torch.dtype
    weight: Tensor
    geometry: tuple[Any, ...]


def _product(operands: Operands) -> tuple[torch.Size, _Product]:
    """The shape of a product, checked, and what calls take of it."""
    _, x_shape, weight, weight_shape, window = operands
    is_linear, at = window is None, _ONE_PIXEL if window is None else window
    if is_linear:
        x_shape, weight_shape = (*x_shape, 1, 1), (*weight_shape, 1, 1)
    shape, geometry = convolution(x_shape, weight_shape, at)
    check_exact(math.prod(weight_shape[1:]))
    weight = packed_images("weight", weight, weight_shape)
    of_calls = (*geometry, shape[1], at.groups, is_linear)
    dtype = torch.float32 if is_linear else torch.float16
    return torch.Size(shape[:2] if is_linear else shape), _Product(dtype, weight, of_calls)
