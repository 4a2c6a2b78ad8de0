"""Bytes that an exchange sends, as docs/scale.md says; nothing is sent here."""

import math

import pytest
import torch

from bnn.bits import BitTensor
from bnn.distributed import Exact, Part, Ranks, exchange_of
from bnn.ops import functions

ROWS, COLUMNS = 48, 160
WEIGHTS = ROWS * COLUMNS


class Counting(Ranks):
    """One of several ranks that calls no collective."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def _call(self, collective) -> None:
        pass


def signs_of_a_slice(generator) -> BitTensor:
    packed = functions.pack(torch.randn(ROWS, COLUMNS, generator=generator))
    return BitTensor(packed, torch.Size((ROWS, COLUMNS)), (COLUMNS, 1), torch.float32)


def agreements(ranks: Ranks, count: int) -> float:
    """Bytes of so many agreements, of two float64 each."""
    return count * 2 * 16 * (ranks.size - 1) / ranks.size


@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize("mode", ["count", "vote"])
def test_votes_send_the_bytes_of_the_table(mode, size, generator):
    exchange = exchange_of(mode, Counting(size))
    exchange.begin_part(Part(0, range(4), 4))
    for _ in range(3):
        exchange.of_accumulator(signs_of_a_slice(generator), lambda gradient: None)
    assert exchange.ranks.sent_bytes == 0  # signs wait for the end
    exchange.end_part()
    a_weight = {"count": (size - 1) / 8, "vote": (size - 1) / (4 * size)}[mode]
    if mode == "vote":  # the share of a rank that counts is whole bytes
        a_weight += (size - 1) * (math.ceil(3 * WEIGHTS / 8 / size) * size - 3 * WEIGHTS / 8) * 2 / size / (3 * WEIGHTS)
    expected = 3 * WEIGHTS * a_weight + agreements(exchange.ranks, 1)
    assert exchange.ranks.sent_bytes == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize(("terms", "bytes_a_sum"), [(1, 2), (64, 4)])
def test_exact_sends_the_bytes_of_the_table(terms, bytes_a_sum, size, generator):
    exchange = Exact(Counting(size))
    exchange.begin_part(Part(0, range(32 // size), 32))
    exchange.signs_of(torch.zeros(ROWS, COLUMNS), terms=terms, seed=1)
    expected = WEIGHTS * (bytes_a_sum * (size - 1) / size + (size - 1) / (8 * size))
    assert exchange.ranks.sent_bytes == pytest.approx(expected + agreements(exchange.ranks, 1), abs=1)
