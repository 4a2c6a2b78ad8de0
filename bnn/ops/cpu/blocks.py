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
    packed_images,
    packed_rows,
    per_channel,
)
from bnn.ops.cpu.batch_norm import STREAMS, gradient_operands
from bnn.ops.cpu.native import call, instruction_set
from bnn.ops.geometry import Shape, Window
from bnn.ops.memory import channels_last, empty_channels_last
from bnn.ops.operation import is_plain
from bnn.ops.packing import nan_error
from bnn.ops.products import check_exact
from bnn.ops.rounding import check_finite, check_largest
from bnn.random.lowbias32 import hash_key

_ONE_PIXEL = Window.of()


class BatchNorm(NamedTuple):
    """What `bnn.ops.batch_norm.batch_statistics` takes besides the product."""

    scale: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    running_mean: Tensor
    running_var: Tensor
    momentum: float


def serves(x: Tensor, norm: BatchNorm, shortcut: Tensor | None) -> bool:
    """Whether there is a call for a block of this input, real or packed bits, and of these dtypes."""
    return (
        is_plain(x)
        and instruction_set() != "reference"
        and (x.dtype in DTYPE_CODES or x.dtype is torch.uint8)
        and x.numel() > 0
        and (shortcut is None or shortcut.dtype in STREAMS)
        and all(of.dtype is torch.float32 and of.is_contiguous() for of in (norm.running_mean, norm.running_var))
    )


def serves_gradient(grad: Tensor) -> bool:
    """Whether there is a call for the gradient of a block's result."""
    return is_plain(grad) and instruction_set() != "reference" and grad.dtype in STREAMS and grad.numel() > 0


def forward(
    x: Tensor,
    x_shape: Sequence[int],
    input_edges: Sequence[float],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Window | None,
    norm: BatchNorm,
    shortcut: Tensor | None,
    clamp_range: tuple[float, float],
    output_edges: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The signs of the input, their product, its norm by the statistics of the batch, and what follows it.

    Args:
        x: real, of `x_shape`; or packed bits.
        x_shape: [N, C, H, W], or [N, K] of a linear layer.
        input_edges: of the codes of a real input.
        weight: packed bits.
        weight_shape: [O, C / groups, kh, kw] or [O, K].
        window: of the convolution; None of a linear layer.
        norm: its running statistics take those of the batch in.
        shortcut: what is added to the norm, or None.
        clamp_range: of a real result.
        output_edges: of the codes of a result of bits; empty where it is real.

    Returns:
        What `sign_codes` gives of the input, empty where that is of bits; the product of shape [N, O, ...] in whose place
        `norm_clamp_` has left the result, or packed bits; its codes; and the moments of `batch_statistics`.

    Raises:
        NonFiniteError: an input or a result is not a number.
        ValueError: shapes do not fit each other.
    """
    of_product, shape, y = _product(x_shape, weight, weight_shape, window)
    rows, features, channels = shape[0], math.prod(x_shape[1:]), shape[1]
    if x.dtype is torch.uint8:
        bits, codes, x_dtype = packed_rows("x", x, features), x, -1
        made = (x.new_empty((0, 0)), x.new_empty((0, 0, 0)))
    else:
        check_edges(input_edges)
        x, x_dtype = channels_last(x), DTYPE_CODES[x.dtype]
        made = bits, codes = empty_rows(rows, features), empty_planes(EDGE_COUNTS[len(input_edges)], rows, features)
    if shortcut is not None:
        if shortcut.shape != y.shape:
            raise ValueError(f"the shortcut must be {tuple(y.shape)} as the norm, is {tuple(shortcut.shape)}")
        shortcut = channels_last(shortcut)
    of_norm = [optional_per_channel("the norm", of, channels) for of in norm[:3]]
    for running in (norm.running_mean, norm.running_var):
        per_channel("running statistics", running, channels)
        increment_version(running)
    moments, affine = torch.empty((2, channels)), torch.empty((2, channels))
    planes = EDGE_COUNTS[len(output_edges)] if output_edges else 1
    out_codes = empty_planes(planes, rows, y.shape[1:].numel())
    out = empty_rows(rows, y.shape[1:].numel()) if output_edges else y
    has_nan = call(
        "block",
        x,
        x_dtype,
        input_edges,
        bits,
        codes,
        of_product[0],
        y,
        *of_product[1:],
        *of_norm,
        *norm[3:],
        moments,
        affine,
        0 if shortcut is None else shortcut,
        0 if shortcut is None else DTYPE_CODES[shortcut.dtype],
        *clamp_range,
        output_edges,
        out,
        out_codes,
    )
    if has_nan:
        raise nan_error()
    return *made, out, out_codes, moments


def integers(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    x: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Window | None,
    moments: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    eps: float,
    largest: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the product as integers with their scale, and the terms of the norm's parameters.

    The product is formed again. See `bnn.ops.batch_norm.norm_gradient_terms` and `norm_gradient_integers`.

    Raises:
        NonFiniteError: the gradient is not finite.
        ValueError: shapes do not fit each other.
    """
    check_largest(largest)
    of_product, _, y = _product(x_shape, weight, weight_shape, window)
    operands, of_grad = gradient_operands(grad, codes, slopes, y)
    channels = y.shape[1]
    of_norm = [optional_per_channel("the norm", of, channels) for of in (scale, gamma)]
    terms, bound, of_parameters = torch.empty((3, channels)), torch.empty(()), torch.empty((3, channels))
    q, q_scale = empty_channels_last(y.shape, torch.int8), torch.empty(())
    is_finite = call(
        "block_integers",
        operands[0],
        of_grad[3],
        *operands[1:3],
        packed_rows("x", x, math.prod(x_shape[1:])),
        of_product[0],
        y,
        *of_product[1:],
        moments,
        *of_norm,
        eps,
        terms,
        bound,
        of_parameters,
        q,
        q_scale,
        largest,
        hash_key(seed),
    )
    if not is_finite:
        check_finite(bound)
    return q, q_scale, of_parameters


def _product(
    x_shape: Sequence[int], weight: Tensor, weight_shape: Sequence[int], window: Window | None
) -> tuple[tuple[Any, ...], Shape, Tensor]:
    """The weight and the geometry as calls take them, the shape of the product as one of images, and memory for it."""
    is_linear = window is None
    if is_linear:
        x_shape, weight_shape = (*x_shape, 1, 1), (*weight_shape, 1, 1)
    at = _ONE_PIXEL if window is None else window
    shape, geometry = convolution(x_shape, weight_shape, at)
    check_exact(math.prod(weight_shape[1:]))
    weight = packed_images("weight", weight, weight_shape)
    y = empty_channels_last(shape[:2] if is_linear else shape, torch.float32 if is_linear else torch.float16)
    return (weight, *geometry, shape[1], at.groups, is_linear), shape, y
