"""Sums over the ranks, and signs of them, each in an order or arithmetic that makes the result the same every time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.distributed.ranks import Ranks
from bnn.ops import functions
from bnn.random.lowbias32 import random_bits_at

_FLOAT64_BITS = 52


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
    whole = (x / unit).round_()
    rest = (x / unit - whole).mul_(2.0**bits).round_()
    sums = ranks.sum_(torch.stack((whole.sum(0), rest.sum(0))))
    return (sums[0] + sums[1] * 2.0**-bits) * unit


def signs_of_sums(ranks: Ranks, sums: Tensor, *, largest: int, seed: int) -> Tensor:
    """The packed signs of the sums over the ranks of whole numbers, of which each rank forms a share.

    Args:
        ranks: the ranks.
        sums: of this rank, float [rows, n] of whole numbers.
        largest: a bound of what a sum over all ranks can be; it says how many bytes a number takes on its way.
        seed: of the signs of sums that are 0: a hash of `seed` and of the element's index in [rows, n] is even or odd,
            as in `bnn.ops.product_gradients`.

    Returns:
        Packed [rows, ceil(n / 8)].
    """
    rows, n = sums.shape
    columns = -(-n // 8) * 8
    dtype = next(dtype for dtype in (torch.int8, torch.int16, torch.int32, torch.int64) if largest <= _most(dtype))
    whole = sums.to(dtype)
    if columns != n:  # the bits past a row's end are clear
        whole = torch.cat((whole, whole.new_full((rows, columns - n), -1)), dim=1)
    shares = _shares(whole.view(-1), 8 * ranks.size).view(ranks.size, -1)
    total, *others = ranks.swap(shares.view(torch.uint8)).view(dtype)
    for other in others:
        total += other  # within `largest`, as is each sum on the way
    zeros = (total == 0).nonzero()[:, 0]
    places = zeros + ranks.rank * len(total)
    coins = random_bits_at(places // columns * n + places % columns, seed) >> 31
    positive = total > 0
    positive[zeros] = coins > 0
    packed = ranks.gather(functions.pack(positive[None])).view(-1)
    return packed[: rows * columns // 8].view(rows, columns // 8)


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


def _most(dtype: torch.dtype) -> int:
    return torch.iinfo(dtype).max


def _shares(flat: Tensor, count: int) -> Tensor:
    """[count, n / count], with zeros at the end."""
    missing = -len(flat) % count
    if not missing:
        return flat.view(count, -1)
    return torch.cat((flat, flat.new_zeros(missing))).view(count, -1)
