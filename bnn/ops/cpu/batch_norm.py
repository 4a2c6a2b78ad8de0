"""The passes of a batch norm on the CPU, without a copy of what has its channels last.

Sums over a channel are added up in another order than the specification's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import batch_norm as specification
from bnn.ops.batch_norm import EDGE_COUNTS, check_edges, check_place, check_slopes
from bnn.ops.cpu.arguments import (
    DTYPE_CODES,
    empty_planes,
    empty_rows,
    optional_per_channel,
    per_channel,
)
from bnn.ops.cpu.native import call, kernel
from bnn.ops.memory import channels_last, empty_channels_last
from bnn.ops.packing import nan_error, packed_bytes
from bnn.ops.rounding import check_finite, check_largest
from bnn.random.lowbias32 import hash_key

STREAMS = (torch.float32, torch.bfloat16)
FLOATS = (*STREAMS, torch.float16)


@kernel
def batch_statistics(
    y: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    running = (running_mean, running_var)
    if not has_kernel(y, FLOATS) or any(x.dtype is not torch.float32 or not x.is_contiguous() for x in running):
        return specification.batch_statistics(y, scale, gamma, beta, eps, *running, momentum)
    channels = y.shape[1]
    of_norm = (
        optional_per_channel(name, x, channels) for name, x in (("scale", scale), ("gamma", gamma), ("beta", beta))
    )
    for x in running:
        per_channel("running statistics", x, channels)
    moments, affine = (torch.empty((2, channels)) for _ in range(2))
    call(
        "batch_statistics",
        channels_last(y),
        *of_norm,
        eps,
        *running,
        momentum,
        moments,
        affine,
        *rows_of(y),
        DTYPE_CODES[y.dtype],
    )
    return moments, affine


@kernel
def norm_clamp_(y: Tensor, factor: Tensor, offset: Tensor, shortcut: Tensor | None, low: float, high: float) -> Tensor:
    check_place(y)
    if not has_kernel(y, FLOATS) or (shortcut is not None and shortcut.dtype not in STREAMS):
        return specification.norm_clamp_(y, factor, offset, shortcut, low, high)
    if shortcut is not None and shortcut.shape != y.shape:
        raise ValueError(f"the shortcut must be {tuple(y.shape)} as the norm, is {tuple(shortcut.shape)}")
    channels, codes = y.shape[1], empty_planes(1, len(y), y.shape[1:].numel())
    out_dtype = torch.float32 if y.dtype is torch.float32 else torch.bfloat16
    call(
        "norm_clamp",
        y,
        per_channel("factor", factor, channels),
        per_channel("offset", offset, channels),
        0 if shortcut is None else channels_last(shortcut),
        y,
        codes,
        low,
        high,
        *rows_of(y),
        *(DTYPE_CODES[of] for of in (y.dtype, out_dtype if shortcut is None else shortcut.dtype, out_dtype)),
    )
    return codes


@kernel
def sign_codes(
    y: Tensor, factor: Tensor | None, offset: Tensor | None, edges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    if not has_kernel(y, FLOATS) or (factor is None) != (offset is None):
        return specification.sign_codes(y, factor, offset, edges)
    check_edges(edges)
    channels = y.shape[1]
    affine = (optional_per_channel(name, x, channels) for name, x in (("factor", factor), ("offset", offset)))
    rows, n = len(y), y.shape[1:].numel()
    bits, codes = empty_rows(rows, n), empty_planes(EDGE_COUNTS[len(edges)], rows, n)
    if call("sign_codes", channels_last(y), *affine, edges, bits, codes, *rows_of(y), DTYPE_CODES[y.dtype]):
        raise nan_error()
    return bits, codes


@kernel
def norm_gradient_terms(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    moments: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if grad.dtype not in STREAMS or not has_kernel(y, FLOATS):
        return specification.norm_gradient_terms(grad, codes, slopes, y, moments, scale, gamma, eps)
    operands, shape = gradient_operands(grad, codes, slopes, y)
    channels = y.shape[1]
    of_norm = (optional_per_channel(name, x, channels) for name, x in (("scale", scale), ("gamma", gamma)))
    terms, bound, of_parameters = torch.empty((3, channels)), torch.empty(()), torch.empty((3, channels))
    moments = of_channels("moments", moments, 2, channels)
    call("norm_gradient_terms", *operands, moments, *of_norm, eps, terms, bound, of_parameters, *shape)
    return terms, bound, of_parameters


@kernel
def norm_gradient(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    terms: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    if any(of not in STREAMS for of in (grad.dtype, dtype)) or not has_kernel(y, FLOATS):
        return specification.norm_gradient(grad, codes, slopes, y, terms, dtype)
    operands, shape = gradient_operands(grad, codes, slopes, y)
    out = empty_channels_last(y.shape, dtype)
    call("norm_gradient", *operands, of_channels("terms", terms, 3, y.shape[1]), out, *shape, DTYPE_CODES[dtype])
    return out


@kernel
def norm_gradient_integers(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    terms: Tensor,
    bound: Tensor,
    largest: int,
    seed: int,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    if grad.dtype not in STREAMS or not has_kernel(y, FLOATS):
        return specification.norm_gradient_integers(grad, codes, slopes, y, terms, bound, largest, seed, first_row)
    check_largest(largest)
    operands, shape = gradient_operands(grad, codes, slopes, y)
    terms = of_channels("terms", terms, 3, y.shape[1])
    q, scale = empty_channels_last(y.shape, torch.int8), torch.empty(())
    key = hash_key(seed)
    if not call("norm_gradient_integers", *operands, terms, bound.item(), q, scale, *shape, largest, key, first_row):
        check_finite(bound)
    return q, scale


@kernel
def pass_slopes(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    if not has_kernel(grad, STREAMS):
        return specification.pass_slopes(grad, codes, slopes)
    check_codes(codes, slopes, grad)
    out = empty_channels_last(grad.shape, grad.dtype)
    call("pass_slopes", channels_last(grad), codes, slopes, out, *rows_of(grad), DTYPE_CODES[grad.dtype])
    return out


def has_kernel(x: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether the kernels take a tensor, which should be of one of some dtypes."""
    return x.dtype in dtypes and x.numel() > 0


def gradient_operands(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor
) -> tuple[tuple[Tensor, Tensor, Sequence[float], Tensor], tuple[int, int, int, int, int]]:
    """The arguments of a gradient, checked, with the channels last; rows, pixels, channels and the dtypes."""
    if grad.shape != y.shape:
        raise ValueError(f"the gradient must be {tuple(y.shape)} as the product, is {tuple(grad.shape)}")
    check_codes(codes, slopes, y)
    operands = (channels_last(grad), codes.contiguous(), slopes, channels_last(y))
    return operands, (*rows_of(y), DTYPE_CODES[grad.dtype], DTYPE_CODES[y.dtype])


def check_codes(codes: Tensor, slopes: Sequence[float], x: Tensor) -> None:
    """Refuses codes that are not those of the elements of `x`."""
    check_slopes(codes, slopes)
    rows, *row = x.shape
    expected = rows, packed_bytes(math.prod(row))
    if codes.shape[1:] != expected:
        raise ValueError(f"planes of codes must be {expected}, are {tuple(codes.shape[1:])}")


def of_channels(name: str, x: Tensor, count: int, channels: int) -> Tensor:
    """`x`, contiguous, if it is float32 with `count` values a channel."""
    if x.dtype is not torch.float32 or x.shape != (count, channels):
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{name} must be float32 {(count, channels)}, are {kind} {tuple(x.shape)}")
    return x.contiguous()


def rows_of(x: Tensor) -> tuple[int, int, int]:
    """Rows, pixels of each and channels of [N, C, ...]."""
    rows, channels, *size = x.shape
    return rows, math.prod(size), channels
