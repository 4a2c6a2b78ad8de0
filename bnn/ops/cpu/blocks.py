"""What a block of bits does each way, in one call of the kernels: they take less time than as many calls do.

Results are those of the operations, one after the other. Nothing of torch sees what lies between them, so that only
plain tensors are taken, outside of autograd and of torch's modes (`bnn.ops.operation.is_plain`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
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
    pooling,
)
from bnn.ops.cpu.batch_norm import FLOATS, STREAMS, check_codes, of_channels
from bnn.ops.cpu.native import call, instruction_set
from bnn.ops.cpu.product_gradients import slope_arguments
from bnn.ops.geometry import PoolWindow, Window
from bnn.ops.memory import LARGE_BYTES, channels_last, empty, empty_channels_last
from bnn.ops.operation import is_plain
from bnn.ops.packing import nan_error
from bnn.ops.pooling import check_choices, choices_shape, pooled_shape
from bnn.ops.products import check_exact
from bnn.ops.rounding import check_largest, not_finite
from bnn.random.lowbias32 import hash_key

_ONE_PIXEL = Window.of()
_NO_POOL = PoolWindow.of(1)
_NO_BITS, _NO_CODES = torch.empty((0, 0), dtype=torch.uint8), torch.empty((0, 0, 0), dtype=torch.uint8)


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
    pool: PoolWindow | None
    """Of the pooling behind a convolution; None where there is none."""


class Kept(NamedTuple):
    """What enters the norm, where backward does not form it again."""

    y: Tensor
    """float16 of a convolution, float32 of a linear layer."""
    choices: Tensor | None
    """Of its pooling."""


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


def serves_gradient(grad: Tensor, operands: Operands, dtype: torch.dtype, kept: Kept | None) -> bool:
    """Whether there is a call for the gradients of a block, which takes no more memory than its parts do.

    What lies in front of the gradient of the product lies where that of the input, of `dtype`, will be, unless it is
    small.
    """
    transient = _transient_bytes(grad.shape, operands, kept)
    return (
        is_plain(grad)
        and instruction_set() != "reference"
        and grad.dtype in STREAMS
        and grad.numel() > 0
        and (transient < LARGE_BYTES or transient <= dtype.itemsize * math.prod(operands.x_shape))
    )


def forward(
    operands: Operands,
    input_edges: Sequence[float],
    norm: BatchNorm,
    batches: Tensor,
    shortcut: Tensor | None,
    clamp_range: tuple[float, float],
    output_edges: Sequence[float],
    *,
    keeps_product: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Kept | None]:
    """The signs of the input, their product, its norm by the statistics of the batch, and what follows it.

    Args:
        operands: of the product.
        input_edges: of the codes of a real input.
        norm: its running statistics take those of the batch in.
        batches: int64 [], to which 1 is added.
        shortcut: what is added to the norm, or None.
        clamp_range: of a real result.
        output_edges: of the codes of a result of bits; empty where it is real.
        keeps_product: whether what enters the norm is wanted.

    Returns:
        What `sign_codes` gives of the input, empty where that is of bits; the memory of the product's dtype in which
        `norm_clamp_` has left the result, or packed bits; its codes; the moments of `batch_statistics`; and what enters
        the norm, if it is wanted.

    Raises:
        NonFiniteError: an input or a result is not a number.
        ValueError: shapes do not fit each other.
    """
    x, features = operands.x, math.prod(operands.x_shape[1:])
    form, weight = _form_and_weight(operands)
    shape = form.shape
    y, choices = empty_channels_last(shape, form.dtype), form.empty_choices()
    rows, channels, *size = shape
    if x.dtype is torch.uint8:
        bits, codes, x_dtype = packed_batch("x", x, operands.x_shape), x, -1
        made = _NO_BITS, _NO_CODES
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
    in_place = y if not keeps_product or output_edges else empty_channels_last(shape, form.dtype)
    out = empty_rows(rows, n) if output_edges else in_place
    has_nan = call(
        "block",
        *(x, x_dtype, input_edges, bits, codes),
        *(weight, y, *form.geometry, *form.of_pooling(choices)),
        *(*of_norm, *norm[3:], batches, moments, affine),
        *((0, 0) if shortcut is None else (shortcut, DTYPE_CODES[shortcut.dtype])),
        *(*clamp_range, output_edges, out, out_codes),
    )
    if has_nan:
        raise nan_error()
    return *made, out, out_codes, moments, Kept(y, choices) if keeps_product else None


def backward(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    operands: Operands,
    of_norm: tuple[Tensor, Tensor | None, Tensor | None, float],
    rounding: Rounding,
    of_input: InputGradient,
    of_weight: WeightGradient,
    kept: Kept | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a block's input, weight and norm, for which the product is formed again if it is not kept.

    Args:
        grad: of the result.
        codes: of the result.
        slopes: of its codes.
        operands: of the product, which is that of forward.
        of_norm: moments of the product, and scale, gamma and eps of `BatchNorm`.
        rounding: of the gradient of the product.
        of_input: how that of the input is formed.
        of_weight: how that of the weight is formed.
        kept: of forward.

    Returns:
        Of the input's shape, of the weight's shape, and float32 [3, O] of scale, gamma and beta.

    Raises:
        NonFiniteError: the gradient is not finite.
        ValueError: shapes do not fit each other.
    """
    check_largest(rounding.largest)
    form, weight = _form_and_weight(operands)
    shape = form.shape
    if grad.shape != shape:
        raise ValueError(f"the gradient must be {tuple(shape)} as the product, is {tuple(grad.shape)}")
    check_codes(codes, slopes, grad)
    x_shape, channels, dtype = operands.x_shape, shape[1], of_input.dtype
    moments, *factors, eps = of_norm
    terms, of_parameters = torch.empty((3, channels)), torch.empty((3, channels))
    q, of_x = empty_channels_last(form.before, torch.int8), empty_channels_last(x_shape, dtype)
    transient = _transient_bytes(shape, operands, kept)
    place = of_x if transient <= of_x.nbytes else torch.empty(transient, dtype=torch.uint8)
    if kept is None:
        y, choices, of_pooled = place, form.empty_choices(), place.data_ptr() + _product_bytes(shape)
    else:
        y, choices, of_pooled = channels_last(kept.y), kept.choices, place.data_ptr()
        _check_kept(kept, form, operands.pool)
    of_w = empty_channels_last(operands.weight_shape, of_weight.dtype)
    has_codes = len(of_input.codes) > 0
    of_slopes = slope_arguments(*of_input[1:], x_shape, dtype) if has_codes else (0, [], 0, 0)
    is_ternary, seed_of_ternary = of_weight.ternary_seed is not None, of_weight.ternary_seed or 0
    is_finite = call(
        "block_backward",
        *(channels_last(grad), DTYPE_CODES[grad.dtype], codes.contiguous(), slopes),
        *(packed_batch("x", operands.x, x_shape), weight, y, *form.geometry),
        *(*form.of_pooling(choices), kept is not None),
        of_channels("moments", moments, 2, channels),
        *(optional_per_channel("the norm", of, channels) for of in factors),
        *(eps, terms, of_parameters),
        *(of_pooled, q, rounding.largest, hash_key(rounding.seed)),
        *(of_x, of_x.itemsize, *of_slopes),
        *(of_w, of_w.itemsize, is_ternary, hash_key(seed_of_ternary)),
    )
    if not is_finite:
        raise not_finite()
    return of_x, of_w, of_parameters


def _product_bytes(shape: Sequence[int]) -> int:
    return math.prod(shape) * (2 if len(shape) == 4 else 4)


def _transient_bytes(shape: Sequence[int], operands: Operands, kept: Kept | None) -> int:
    """Of the product that is formed again, and of its gradient behind a pooling; `shape` is that of both."""
    return (_product_bytes(shape) if kept is None else 0) + (0 if operands.pool is None else math.prod(shape))


class _Form(NamedTuple):
    """What is known of a product by shapes and windows alone, as calls take it."""

    shape: torch.Size
    """Of what enters the norm."""
    before: torch.Size
    """In front of the pooling."""
    dtype: torch.dtype
    weight_shape: tuple[int, ...]
    """Of kernels; those of a linear layer are of one pixel."""
    geometry: tuple[Any, ...]
    pool: tuple[Any, ...]
    """Geometry of the pooling."""
    choices_shape: tuple[int, int, int] | None
    """None where there is no pooling."""

    def empty_choices(self) -> Tensor | None:
        """Not yet written; None where there is no pooling."""
        return None if self.choices_shape is None else empty(self.choices_shape, torch.uint8)

    def of_pooling(self, choices: Tensor | None) -> tuple[Any, ...]:
        """What a call takes of the pooling."""
        return (0, 0, *self.pool) if choices is None else (choices, len(choices), *self.pool)


def _check_kept(kept: Kept, form: _Form, pool: PoolWindow | None) -> None:
    """Refuses what is not of the product."""
    if kept.y.dtype is not form.dtype or kept.y.shape != form.shape:
        raise ValueError(
            f"what is kept must be {form.dtype} {tuple(form.shape)}, is {kept.y.dtype} {tuple(kept.y.shape)}"
        )
    if pool is not None and kept.choices is not None:
        check_choices(kept.y, kept.choices, form.before, pool)
    elif (pool is None) is not (kept.choices is None):
        raise ValueError("what is kept has choices if it is pooled, and else none")


def _form_and_weight(operands: Operands) -> tuple[_Form, Tensor]:
    """What is known of a product, and the packed weight, checked."""
    _, x_shape, weight, weight_shape, window, pool = operands
    form = _form(tuple(x_shape), tuple(weight_shape), window, pool)
    return form, packed_images("weight", weight, form.weight_shape)


@lru_cache(maxsize=1024)  # layers ask again at every step
def _form(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], window: Window | None, pool: PoolWindow | None
) -> _Form:
    is_linear, at = window is None, _ONE_PIXEL if window is None else window
    if is_linear:
        x_shape, weight_shape = (*x_shape, 1, 1), (*weight_shape, 1, 1)
    before, geometry = convolution(x_shape, weight_shape, at)
    check_exact(math.prod(weight_shape[1:]))
    pooled, of_pool = pooling(before, _NO_POOL if pool is None else pool)
    dimensions = 2 if is_linear else 4
    return _Form(
        shape=torch.Size(pooled[:dimensions]),
        before=torch.Size(before[:dimensions]),
        dtype=torch.float32 if is_linear else torch.float16,
        weight_shape=weight_shape,
        geometry=(*geometry, before[1], at.groups, is_linear),
        pool=of_pool,
        choices_shape=None if pool is None else choices_shape(pooled_shape(before, pool), pool),
    )
