"""A weight that nobody trains or keeps: rows of a Hadamard matrix."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.weights.frozen import FrozenStore


class HadamardStore(FrozenStore):
    """Rows 1 to `out` of the Hadamard matrix of the next power of two, cut to `in` columns; ±1, orthogonal if uncut.

    Element (i, j) is (-1)^(number of ones in the bits of i and j) (Sylvester). Row 0, all ones, is left out: behind a
    rectifier it would be the largest for every input. Nothing is trained, has a gradient or optimizer state; a
    checkpoint has the bits. Source: Hoffer et al. 2018 (Fix your classifier), arXiv 1801.04540.

    Args:
        shape: [out, in], or [out, in / groups, kh, kw], whose filters are rows.

    Raises:
        ValueError: the matrix of the input's size has fewer rows.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        out, columns = shape[0], math.prod(shape[1:])
        most = size_of(columns) - 1
        if out > most:
            raise ValueError(
                f"a Hadamard matrix for {columns} inputs tells at most {most} classes apart, got {out}: widen the layer"
                " before"
            )
        super().__init__(BitTensor.from_dense(hadamard_rows(out, columns).view(*shape)), levels=2)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Nothing: the rows are what they are."""


def size_of(columns: int) -> int:
    """The rows of the smallest Hadamard matrix of a power of two that has so many columns."""
    return 1 << max(0, columns - 1).bit_length()


def hadamard_rows(out: int, columns: int) -> Tensor:
    """Rows 1 to `out`: float32 [out, columns]."""
    common = torch.arange(1, out + 1)[:, None] & torch.arange(columns)
    parity = torch.zeros_like(common)
    for bit in range(size_of(columns).bit_length()):
        parity ^= (common >> bit) & 1
    return 1.0 - 2.0 * parity
