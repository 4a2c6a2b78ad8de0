"""Sums over the ranks, each in an order or arithmetic that makes the result the same every time, and majorities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.distributed.ranks import Ranks
from bnn.ops import functions
from bnn.ops.layout import in_memory_order

_FLOAT64_BITS = 52
_CHUNK_ELEMENTS = 1 << 21  # that are on their way at a time: less than most weights take a call each


def in_order(ranks: Ranks, of_parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The sums of some tensors over the parts of all ranks: those of a loop over these, bit for bit.

    Every rank sums a share of the elements.

    Args:
        ranks: the ranks.
        of_parts: the tensors of each part of this rank, of the same shapes.
    """
    sums = list(of_parts[0])
    for dtype in dict.fromkeys(x.dtype for x in sums):
        chosen = [i for i, x in enumerate(sums) if x.dtype is dtype]
        shares = [_shares(torch.cat([part[i].reshape(-1) for i in chosen]), ranks.size) for part in of_parts]
        first, *others = ranks.swap(torch.stack(shares, dim=1)).flatten(0, 1)
        total = first.clone()
        for other in others:
            total += other
        sizes = [sums[i].numel() for i in chosen]
        for i, flat in zip(chosen, torch.split(ranks.gather(total).view(-1)[: sum(sizes)], sizes), strict=True):
            sums[i] = flat.view(sums[i].shape)
    return sums


def sum_of_ranks(ranks: Ranks, x: Tensor) -> Tensor:
    """The sum of the ranks' tensors in the order of these, as a loop over them forms it, in the place of `x`.

    Every rank sums a share of the elements, some at a time, so that little memory is needed beside `x`.
    """
    x, rows = in_memory_order(x)
    for part in torch.split(rows.view(-1), _CHUNK_ELEMENTS):
        total, *others = ranks.swap(_shares(part, ranks.size))
        for other in others:
            total += other
        part.copy_(ranks.gather(total).view(-1)[: len(part)])
    return x


def of_examples(ranks: Ranks, x: Tensor, *, examples: int) -> Tensor:
    """The sum over the examples of all ranks, the same however these are distributed.

    A value is split into two whole numbers of units that all ranks share, 2^-45 and 2^-90 of the largest magnitude for
    100 examples; sums of whole numbers are exact in any order. Idea: Demmel and Nguyen 2013, "Fast reproducible
    floating-point summation", ARITH 21.

    Args:
        ranks: the ranks.
        x: float [examples of this rank, ...].
        examples: of all ranks.

    Returns:
        float64 [...].

    Raises:
        NonFiniteError: a value of a rank is not finite.
    """
    x = x.double()
    bound = ranks.agree(float(x.abs().amax()) if x.numel() else 0.0)
    if bound == 0:
        return x.new_zeros(x.shape[1:])
    bits = _FLOAT64_BITS - examples.bit_length()
    unit = math.ldexp(1.0, math.frexp(bound)[1] - bits)
    rest = x / unit
    whole = rest.round()
    rest.sub_(whole).mul_(2.0**bits).round_()
    sums = ranks.sum_(torch.stack((whole.sum(0), rest.sum(0))))
    return (sums[0] + sums[1] * 2.0**-bits) * unit


def majority(ranks: Ranks, packed: Tensor, *, seed: int) -> Tensor:
    """The packed signs that most ranks have, of which each rank counts a share; a coin where they are divided."""
    shares = packed.new_zeros((ranks.size, -(-packed.numel() // ranks.size)))
    shares.view(-1)[: packed.numel()] = packed.view(-1)
    votes, *others = functions.unpack(ranks.swap(shares), 8 * shares.shape[1], torch.int8)
    for other in others:
        votes += other
    # Ties are many, and a byte of coins serves eight.
    generator = torch.Generator(packed.device).manual_seed(seed + ranks.rank)
    coins = torch.empty((1, shares.shape[1]), dtype=torch.uint8, device=packed.device).random_(generator=generator)
    most = functions.pack((votes > 0)[None]) | functions.pack((votes == 0)[None]) & coins
    return ranks.gather(most).view(-1)[: packed.numel()].view(packed.shape)


def _shares(flat: Tensor, count: int) -> Tensor:
    """[count, n / count], with zeros at the end."""
    missing = -len(flat) % count
    if not missing:
        return flat.view(count, -1)
    return torch.cat((flat, flat.new_zeros(missing))).view(count, -1)
