"""How the dimensions of a tensor lie in its memory, and its rows there: slices of the slowest dimension."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def memory_order(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Dimensions from the slowest to the fastest."""
    return sorted(range(len(shape)), key=lambda d: (-strides[d], d))


def rows_of(shape: Sequence[int], order: Sequence[int]) -> tuple[int, int]:
    """Number of packed rows and elements of each. Vectors and scalars are a single row."""
    rows = shape[order[0]] if len(shape) > 1 else 1
    return rows, math.prod(shape) // rows if rows else math.prod(shape[d] for d in order[1:])


@lru_cache(maxsize=1024)  # layers and optimizers ask for every weight at every step
def _dense_rows(shape: torch.Size, strides: tuple[int, ...]) -> tuple[int, int] | None:
    """`rows_of` of a tensor without gaps in its memory; None of another."""
    order = memory_order(shape, strides)
    elements = 1
    for d in reversed(order):
        if shape[d] > 1 and strides[d] != elements and 0 not in shape:
            return None
        elements *= shape[d]
    return rows_of(shape, order)


def in_memory_order(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` without gaps in its memory, which may take a copy, and a view of its elements there: [rows, n]."""
    if (dense := _dense_rows(x.shape, x.stride())) is None:
        x, dense = x.contiguous(), rows_of(x.shape, range(x.dim()))
    rows, n = dense
    return x, x.as_strided((rows, n), (n, 1))
