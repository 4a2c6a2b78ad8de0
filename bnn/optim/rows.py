"""Parameters as rows, some of which are worked on at a time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bnn.bits import BitTensor, slice_rows

# Elements that are worked on at a time: small enough for the cache, large enough to make the calls worth it.
_CHUNK_ELEMENTS = 1 << 17


def is_small(x: Tensor) -> bool:
    """Whether all of `x` is worked on at a time."""
    return x.numel() <= _CHUNK_ELEMENTS


def rows_of(x: Tensor) -> Tensor:
    """`x` as [rows, ...]: a vector or scalar is one row."""
    return x if x.dim() > 1 else x.view(1, -1)


def row_chunks(x: Tensor) -> Iterator[slice]:
    """Slices over the rows of [rows, ...], of 2^17 elements or one row each, whichever is more."""
    rows_each = max(1, _CHUNK_ELEMENTS // max(1, math.prod(x.shape[1:])))
    for start in range(0, x.shape[0], rows_each):
        yield slice(start, start + rows_each)


def float_rows(x: Tensor, rows: slice) -> Tensor:
    """Some rows of [rows, ...] as float32; of a dense float32 tensor a view."""
    if isinstance(x, BitTensor):
        return slice_rows(x, rows).dense(torch.float32)
    return x[rows].float()
