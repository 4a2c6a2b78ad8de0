"""Functions of a probability as tables over the odds p/(1 - p), for millions of junctions at a time.

A table has 128 points for each doubling of the odds, evenly spaced within it. The index of a point is found from the
bits of the odds as a float32: the exponent, and the first bits of the fraction. Several tables lie one after another.
"""

import torch
from torch import Tensor

_LOW, _HIGH = -32, 24  # powers of 2, the range of the odds
_BITS = 7
_SHIFT = 23 - _BITS
_FIRST = (_LOW + 127) << _BITS
POINTS = ((_HIGH - _LOW) << _BITS) + 1
"""Of one table."""


def probabilities() -> Tensor:
    """The probabilities of a table's points: float64 [POINTS], from 0 to 1."""
    points = torch.arange(POINTS, dtype=torch.float64)
    odds = torch.exp2((points / 2**_BITS).floor() + _LOW) * (1 + points.remainder(2**_BITS) / 2**_BITS)
    p: Tensor = odds / (1 + odds)
    p[0], p[-1] = 0, 1
    return p


def nearest_entries(p: Tensor, number: Tensor) -> Tensor:
    """Indices of the entries at the points nearest to probabilities, within 0.4 % of the odds.

    Args:
        p: float32, in 0..1.
        number: int32, in the shape of `p`: which table.

    Returns:
        int32 in the shape of `p`, into tables [tables * POINTS].
    """
    half = 1 << (_SHIFT - 1)
    return (_odds(p).view(torch.int32).add_(half) >> _SHIFT).sub_(_FIRST).add_(number, alpha=POINTS)


def nearest(tables: Tensor, p: Tensor, number: Tensor) -> Tensor:
    """Entries of tables [tables * POINTS] at those points, see `nearest_entries`."""
    entries = nearest_entries(p, number)
    return tables.index_select(0, entries.flatten()).view(p.shape)


def interpolated(tables: Tensor, p: Tensor, number: Tensor) -> Tensor:
    """Values of tables at probabilities, linear in the odds between points; arguments as of `nearest_entries`."""
    bits = _odds(p).view(torch.int32)
    point = (bits >> _SHIFT).sub_(_FIRST)
    low, high = (_entries(tables, (point + k).clamp_(max=POINTS - 1), number) for k in (0, 1))
    # Each product and sum on its own, as the native kernel has them.
    return high.sub_(low).mul_((bits & ((1 << _SHIFT) - 1)).float().mul_(2.0**-_SHIFT)).add_(low)


def _odds(p: Tensor) -> Tensor:
    return (p / (1 - p)).clamp_(2.0**_LOW, 2.0**_HIGH)


def _entries(tables: Tensor, point: Tensor, number: Tensor) -> Tensor:
    return tables.index_select(0, point.add(number, alpha=POINTS).flatten()).view(point.shape)
