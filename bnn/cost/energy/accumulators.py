"""Sums of products in narrow accumulators, simulated: what they come to, and how often they overflow or underflow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bnn.cost.energy.ledger import Ledger


class Accumulated(NamedTuple):
    """Sums over the last dimension."""

    sums: Tensor
    """float64 [...]."""
    overflows: int
    """Additions whose result was beyond the largest number."""
    underflows: int
    """Products that became 0."""
    valid: Tensor
    """Truth values of the products' shape: which neither overflowed nor underflowed. Below 12 bits the gradient had
    better pass these alone (Blumenfeld et al. 2024)."""


class Accumulator(Protocol):
    """Adds products one by one."""

    def accumulate(self, products: Tensor) -> Accumulated:
        """The sums over the last dimension of products [..., K]."""
        ...


@dataclass(frozen=True)
class FloatAccumulator:
    """Floats of few bits: every product, and the sum after every addition, is cut off towards 0.

    Exponents go from 1 - bias to 2^exponent_bits - bias; below, the result is 0, and beyond it is the largest number. A
    chunk is summed on its own, and the sums of the chunks are added in the same way. Source: Blumenfeld, Hubara and
    Soudry 2024, arXiv 2401.14110, whose format of 12 bits this is.

    Raises:
        ValueError: a width or the chunk is out of its range: mantissas of 1 to 23 bits, exponents of 1 to 8, chunks of
            at least 1.
    """

    mantissa_bits: int = 7
    exponent_bits: int = 4
    product_bias: int = 12
    bias: int = 10
    chunk: int = 16

    def __post_init__(self) -> None:
        if not (1 <= self.mantissa_bits <= 23 and 1 <= self.exponent_bits <= 8 and self.chunk >= 1):
            raise ValueError(
                f"an accumulator has 1 to 23 bits of mantissa, 1 to 8 of exponent and chunks of at least 1, got {self}"
            )

    def accumulate(self, products: Tensor) -> Accumulated:
        """See `Accumulator`."""
        given = products.double()
        terms, _ = self._cut(given, self.product_bias)
        lost = (terms == 0) & (given != 0)
        valid, overflows, total = ~lost, 0, torch.zeros(given.shape[:-1], dtype=torch.float64)
        for start in range(0, given.shape[-1], self.chunk):
            part = torch.zeros_like(total)
            for k in range(start, min(start + self.chunk, given.shape[-1])):
                part, over = self._cut(part + terms[..., k], self.bias)
                valid[..., k] &= ~over
                overflows += int(over.sum())
            total, over = self._cut(total + part, self.bias)
            valid[..., start : start + self.chunk] &= ~over[..., None]
            overflows += int(over.sum())
        return Accumulated(total, overflows, int(lost.sum()), valid)

    def _cut(self, x: Tensor, bias: int) -> tuple[Tensor, Tensor]:
        """Numbers of the format, and where they are the largest for want of larger ones."""
        _, exponent = torch.frexp(x)  # that of a mantissa in [1/2, 1)
        step = torch.exp2((exponent - 1 - self.mantissa_bits).double())
        cut = (x / step).trunc() * step
        cut = torch.where(cut.abs() < 2.0 ** (1 - bias), 0.0, cut)
        largest = (2 - 2.0**-self.mantissa_bits) * 2.0 ** (2**self.exponent_bits - bias)
        return cut.clamp(-largest, largest), cut.abs() > largest


@dataclass(frozen=True)
class IntegerAccumulator:
    """Whole numbers of two's complement; those beyond the range become its end, or wrap around.

    Where it wraps, a sum is right whenever the end result fits, whatever lay between.

    Raises:
        ValueError: a width is out of its range.
    """

    bits: int
    saturates: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 48:
            raise ValueError(f"an integer accumulator has 2 to 48 bits, got {self.bits}")

    def accumulate(self, products: Tensor) -> Accumulated:
        """See `Accumulator`."""
        terms = products.double()
        low, high = -(2.0 ** (self.bits - 1)), 2.0 ** (self.bits - 1) - 1
        total, overflows = torch.zeros(terms.shape[:-1], dtype=torch.float64), 0
        valid = torch.ones_like(terms, dtype=torch.bool)
        for k in range(terms.shape[-1]):
            total = total + terms[..., k]
            over = (total < low) | (total > high)
            valid[..., k] = ~over
            overflows += int(over.sum())
            total = total.clamp(low, high) if self.saturates else (total - low) % (high - low + 1) + low
        return Accumulated(total, overflows, 0, valid)


def bits_of_sums(largest: float) -> int:
    """Width that holds whole numbers up to a magnitude, ceil(log2(2 largest + 1)); a sum of K products of ±1 has K.

    Args:
        largest: at least 0.
    """
    return max(1, math.ceil(math.log2(2 * largest + 1)))


def narrowed(ledger: Ledger, bits: Mapping[str, int]) -> Ledger:
    """The ledger with other widths of the accumulators of some layers' forward products, such as measured ones.

    Args:
        ledger: as of `bnn.cost.energy.count_step`.
        bits: by the layer's name.
    """
    counts = Counter[object]()
    for event, count in ledger.counts.items():
        if (event.op, event.phase) == ("multiply-accumulate", "forward") and event.where in bits:
            event = replace(event, bits=(*event.bits[:2], bits[event.where]))
        counts[event] += count
    return Ledger(counts)  # type: ignore[arg-type]
