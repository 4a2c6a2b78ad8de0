"""The passes of a batch norm on the CPU, without a copy of what has its channels last.

Sums over a channel are added up in another order than the specification's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import batch_norm as specification
from bnn.ops.batch_norm import EDGE_COUNTS, check_edges, check_slopes, empty_codes
from bnn.ops.cpu.arguments import DTYPE_CODES, per_channel
from bnn.ops.cpu.native import call, kernel
from bnn.ops.memory import empty
from bnn.ops.packing import empty_rows, nan_error, packed_bytes
from bnn.ops.rounding import scale_of
from bnn.random.lowbias32 import hash_key

_PRODUCTS = (torch.float32, torch.float16)
_STREAMS = (torch.float32, torch.bfloat16)
_FLOATS = (*_PRODUCTS, torch.bfloat16)


@kernel
def channel_moments(y: Tensor) -> tuple[Tensor, Tensor]:
    if not _has_kernel(y, _PRODUCTS):
        return specification.channel_moments(y)
    last = y.movedim(1, -1).contiguous()
    mean, variance = (last.new_empty(last.shape[-1], dtype=torch.float32) for _ in range(2))
    call("channel_moments", last, mean, variance, *_rows(last), DTYPE_CODES[y.dtype])
    return mean, variance


@kernel
def norm_clamp(
    y: Tensor,
    factor: Tensor,
    offset: Tensor,
    shortcut: Tensor | None,
    low: float,
    high: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    shortcut_dtype = dtype if shortcut is None else shortcut.dtype
    if not _has_kernel(y, _PRODUCTS) or dtype not in _STREAMS or shortcut_dtype not in _STREAMS:
        return specification.norm_clamp(y, factor, offset, shortcut, low, high, dtype)
    last = y.movedim(1, -1).contiguous()
    if shortcut is not None:
        if shortcut.shape != y.shape:
            raise ValueError(f"the shortcut must be {tuple(y.shape)} as the norm, is {tuple(shortcut.shape)}")
        shortcut = shortcut.movedim(1, -1).contiguous()
    channels = last.shape[-1]
    out, codes = empty(last.shape, dtype), empty_codes(y, 1)
    operands = (last, per_channel("factor", factor, channels), per_channel("offset", offset, channels))
    dtypes = (DTYPE_CODES[y.dtype], DTYPE_CODES[shortcut_dtype], DTYPE_CODES[dtype])
    call("norm_clamp", *operands, 0 if shortcut is None else shortcut, out, codes, low, high, *_rows(last), *dtypes)
    return out.movedim(-1, 1), codes


@kernel
def sign_codes(
    y: Tensor, factor: Tensor | None, offset: Tensor | None, edges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    if not _has_kernel(y, _FLOATS) or (factor is None) != (offset is None):
        return specification.sign_codes(y, factor, offset, edges)
    check_edges(edges)
    last = y.movedim(1, -1).contiguous()
    channels = last.shape[-1]
    affine = (
        (0, 0)
        if factor is None or offset is None
        else (per_channel("factor", factor, channels), per_channel("offset", offset, channels))
    )
    bits, codes = empty_rows(y, len(y), math.prod(y.shape[1:])), empty_codes(y, EDGE_COUNTS[len(edges)])
    limits = torch.tensor(list(edges), dtype=torch.float32)
    if call("sign_codes", last, *affine, limits, len(edges), bits, codes, *_rows(last), DTYPE_CODES[y.dtype]):
        raise nan_error()
    return bits, codes


@kernel
def norm_gradient_sums(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if grad.dtype not in _STREAMS or not _has_kernel(y, _PRODUCTS):
        return specification.norm_gradient_sums(grad, codes, slopes, y, mean)
    operands, rows, dtypes = _operands(grad, codes, slopes, y)
    channels = rows[-1]
    sums, sizes = mean.new_empty((2, channels), dtype=torch.float64), mean.new_empty((2, channels))
    call("norm_gradient_sums", *operands, per_channel("mean", mean, channels), sums, sizes, *rows, *dtypes)
    # Results of an operation share no memory.
    return sums[0].clone(), sums[1].clone(), sizes[0].clone(), sizes[1].clone()


@kernel
def norm_gradient(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    of_grad: Tensor,
    of_y: Tensor,
    constant: Tensor,
) -> Tensor:
    if grad.dtype not in _STREAMS or not _has_kernel(y, _PRODUCTS):
        return specification.norm_gradient(grad, codes, slopes, y, of_grad, of_y, constant)
    operands, rows, dtypes = _operands(grad, codes, slopes, y)
    out = torch.empty_like(operands[-1], dtype=torch.float32)
    call("norm_gradient", *operands, _of_channels(rows[-1], of_grad, of_y, constant), out, *rows, *dtypes)
    return out.movedim(-1, 1)


@kernel
def norm_gradient_integers(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    of_grad: Tensor,
    of_y: Tensor,
    constant: Tensor,
    bound: Tensor,
    largest: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    if grad.dtype not in _STREAMS or not _has_kernel(y, _PRODUCTS):
        return specification.norm_gradient_integers(
            grad, codes, slopes, y, of_grad, of_y, constant, bound, largest, seed
        )
    operands, rows, dtypes = _operands(grad, codes, slopes, y)
    scale, inverse = scale_of(bound, largest)
    q = empty(operands[-1].shape, torch.int8)
    of = _of_channels(rows[-1], of_grad, of_y, constant)
    call("norm_gradient_integers", *operands, of, q, *rows, *dtypes, inverse.item(), largest, hash_key(seed))
    return q.movedim(-1, 1), scale


@kernel
def pass_slopes(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    if not _has_kernel(grad, _STREAMS):
        return specification.pass_slopes(grad, codes, slopes)
    last = grad.movedim(1, -1).contiguous()
    out = empty(last.shape, last.dtype)
    _check_codes(codes, slopes, last)
    call("pass_slopes", last, codes, _floats(slopes), len(codes), out, *_rows(last), DTYPE_CODES[grad.dtype])
    return out.movedim(-1, 1)


def _has_kernel(x: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    return x.dtype in dtypes and x.numel() > 0


def _operands(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, int, Tensor], tuple[int, int, int], tuple[int, int]]:
    """The arguments of a gradient, checked, with the channels last; rows, pixels and channels; the dtypes."""
    if grad.shape != y.shape:
        raise ValueError(f"the gradient must be {tuple(y.shape)} as the product, is {tuple(grad.shape)}")
    last = y.movedim(1, -1).contiguous()
    _check_codes(codes, slopes, last)
    operands = (grad.movedim(1, -1).contiguous(), codes.contiguous(), _floats(slopes), len(codes), last)
    return operands, _rows(last), (DTYPE_CODES[grad.dtype], DTYPE_CODES[y.dtype])


def _check_codes(codes: Tensor, slopes: Sequence[float], last: Tensor) -> None:
    check_slopes(codes, slopes)
    expected = (len(last), packed_bytes(math.prod(last.shape[1:])))
    if tuple(codes.shape[1:]) != expected:
        raise ValueError(f"planes of codes must be {expected}, are {tuple(codes.shape[1:])}")


def _of_channels(channels: int, *values: Tensor) -> Tensor:
    return torch.stack([per_channel("a factor", value, channels) for value in values])


def _floats(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)


def _rows(last: Tensor) -> tuple[int, int, int]:
    """Rows, pixels of each and channels of a tensor whose channels lie last."""
    return len(last), math.prod(last.shape[1:-1]), last.shape[-1]
