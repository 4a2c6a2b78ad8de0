"""Bytes that an exchange sends, as docs/scale.md says; nothing is sent here."""

import math
from contextlib import suppress

import pytest
import torch

from bnn.bits import BitTensor
from bnn.distributed import Exact, Part, Ranks, exchange_of
from bnn.errors import NonFiniteError
from bnn.layers.joint import JointPasses
from bnn.ops import functions
from bnn.quantizers.gradients import BFloat16Gradient, SignGradient

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


@pytest.mark.parametrize("examples", [32, 512])
@pytest.mark.parametrize("size", [2, 4, 16])
@pytest.mark.parametrize("gradient", [torch.float32, torch.bfloat16, "signs"])
def test_exact_sends_the_bytes_of_the_table(gradient, size, examples, generator):
    exchange, own = Exact(Counting(size)), examples // size
    exchange.begin_part(Part(0, range(own), examples))
    x = BitTensor.from_dense(torch.randn(own, COLUMNS, generator=generator))
    weight = BitTensor.from_dense(torch.randn(ROWS, COLUMNS, generator=generator))
    quantizer = {
        torch.float32: None,
        torch.bfloat16: BFloat16Gradient(),
        "signs": SignGradient(packed=True, scale="none", generator=generator),
    }[gradient]
    q = torch.ones(own, ROWS, dtype=torch.int8)
    JointPasses(exchange).weight_gradient(q, torch.ones(()), x, weight, None, quantizer, None)
    a_weight = {torch.float32: 4, torch.bfloat16: 2, "signs": 1 / 8}[gradient]
    has_few_products = examples <= 256
    of_q, of_gradient = (ROWS, 0) if has_few_products else (ROWS / size, WEIGHTS * a_weight / size)
    assert exchange.ranks.sent_bytes == (size - 1) * (own * (of_q + COLUMNS / 8) + of_gradient)


@pytest.mark.parametrize("size", [2, 4, 16])
def test_exact_sends_the_sums_of_each_row(size):
    exchange = Exact(Counting(size))
    exchange.begin_part(Part(0, range(32 // size), 32))
    sums, sizes = torch.ones(32 // size, 2, COLUMNS, dtype=torch.float64), torch.ones(32 // size, 2, COLUMNS)
    with suppress(NonFiniteError):  # nothing comes from the others
        exchange.channel_sums(sums)
    with suppress(NonFiniteError):
        exchange.channel_sums(sums, sizes)
    assert exchange.ranks.sent_bytes == 32 / size * (size - 1) * (2 + 4) * 8 * COLUMNS
