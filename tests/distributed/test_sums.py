"""Sums over ranks against what they are defined as; several ranks are simulated by threads that meet."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.distributed import Ranks
from bnn.distributed.sums import in_order, majority, of_examples, sum_of_ranks
from bnn.errors import NonFiniteError
from bnn.ops import functions


class Threads(Ranks):
    """A rank that is a thread of this process."""

    def __init__(self, rank: int, size: int, board: list, barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def _all(self, value):
        self._board[self.rank] = value
        self._barrier.wait(30)
        values = list(self._board)
        self._barrier.wait(30)
        return values

    def sum_(self, x: Tensor) -> Tensor:
        return x.copy_(torch.stack(self._all(x.clone())).sum(0))

    def gather(self, x: Tensor) -> Tensor:
        return torch.stack(self._all(x))

    def swap(self, x: Tensor) -> Tensor:
        return torch.stack([of_other[self.rank] for of_other in self._all(x)])

    def _largest(self, value: float, *, leaves: bool) -> tuple[float, bool]:
        values = self._all((value, leaves))
        return max(value for value, _ in values), any(leaves for _, leaves in values)


def on_ranks(size: int, function) -> list:
    """What `function(ranks)` gives on each of some ranks."""
    board, barrier, results = [None] * size, threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = function(Threads(rank, size, board, barrier))
        except NonFiniteError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6), st.integers(1, 6))
def test_a_sum_of_examples_is_the_same_for_every_split_and_right(values, cut):
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    whole = of_examples(Ranks(), x, examples=6)
    split = on_ranks(2, lambda ranks: of_examples(ranks, x[:cut] if ranks.rank == 0 else x[cut:], examples=6))
    assert all(torch.equal(result, whole) for result in split)
    assert abs(float(whole) - sum(values)) <= 1e-12 * max(map(abs, values))


def test_a_value_that_is_not_finite_is_known_to_all():
    x = torch.tensor([[1.0], [torch.nan]])
    for found in on_ranks(2, lambda ranks: of_examples(ranks, x[ranks.rank :][:1], examples=2)):
        assert isinstance(found, NonFiniteError)


def test_sums_in_order_are_those_of_a_loop(generator):
    parts = torch.randn(6, 7, 3, generator=generator) * torch.logspace(0, 7, 6)[:, None, None]
    expected = parts[0].clone()
    for part in parts[1:]:
        expected += part
    for size in (1, 2, 3):
        of_rank = parts.split(6 // size)
        for (found,) in on_ranks(
            size, lambda ranks, of_rank=of_rank: in_order(ranks, [[x] for x in of_rank[ranks.rank]])
        ):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3, 3), (16, 1024, 33)])
def test_the_sum_of_the_ranks_tensors_is_that_of_a_loop_in_their_layout(shape, dtype, generator):
    parts = [
        torch.randn(shape, generator=generator).to(dtype).movedim(1, -1).contiguous().movedim(-1, 1) for _ in range(3)
    ]
    expected = parts[0] + parts[1] + parts[2]
    for found in on_ranks(
        3, lambda ranks: sum_of_ranks(ranks, parts[ranks.rank].clone(memory_format=torch.preserve_format))
    ):
        assert found.stride() == expected.stride()
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_majority_decides_and_a_coin_where_there_is_none(size, generator):
    values = torch.randn(size, 40, 27, generator=generator)
    votes = values.sign().sum(0)
    found = on_ranks(size, lambda ranks: majority(ranks, functions.pack(values[ranks.rank]), seed=3))
    assert all(torch.equal(result, found[0]) for result in found)
    signs = functions.unpack(found[0], 27, torch.float32)
    assert torch.equal(signs[votes != 0], votes.sign()[votes != 0])
    assert torch.equal(functions.pack(signs), found[0])  # nothing is set past a row's end
    if size == 2:
        assert abs(float(signs[votes == 0].mean())) < 0.2
