"""Memory of a host against what exchanges are defined as; ranks are threads, or processes that end."""

import gc
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn.distributed import host, join, leave
from bnn.distributed.host import share_memory
from tests.distributed.processes import results_of
from tests.distributed.test_sums import on_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux alone has such memory")


def shared(ranks, texts=None):
    return share_memory(texts or ranks.texts, lambda yes: ranks.agree(not yes) == 0, rank=ranks.rank, patience_s=20)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("half_bytes", [7, 64, 1 << 20])
def test_ranks_find_what_the_others_have_for_them(size, half_bytes, monkeypatch):
    monkeypatch.setattr(host, "_HALF_BYTES", half_bytes)

    def exchange(ranks):
        memory = shared(ranks)
        found = []
        for step in range(3):
            seed = torch.Generator().manual_seed(10 * step + ranks.rank)
            rows = [
                torch.randn(size, 5, generator=seed),
                torch.randint(-128, 128, (size, 2, 3), generator=seed).to(torch.int8),
            ]
            wholes = [torch.randn(4, generator=seed, dtype=torch.float64), torch.empty(0), torch.tensor(ranks.rank > 0)]
            found.append((rows, wholes, memory.send(rows, wholes)))
        return found

    of_ranks = on_ranks(size, exchange)
    for rank in range(size):
        for step in range(3):
            found = of_ranks[rank][step][2]
            for i in range(2):
                expected = torch.stack([of_ranks[other][step][0][i][rank] for other in range(size)])
                assert torch.equal(found[i], expected)
            for i in range(3):
                expected = torch.stack([of_ranks[other][step][1][i] for other in range(size)])
                assert torch.equal(found[2 + i], expected)
                assert found[2 + i].dtype is expected.dtype


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 7))
def test_pieces_cover_every_byte_once_and_in_order(sizes, half):
    found = [
        (part, byte, begin + at)
        for begin in range(0, sum(sizes), half)
        for part, of_part, of_half in host._overlaps(sizes, begin, begin + half)
        for byte, at in zip(range(of_part.start, of_part.stop), range(of_half.start, of_half.stop), strict=True)
    ]
    expected = [(part, byte) for part, size in enumerate(sizes) for byte in range(size)]
    assert found == [(part, byte, place) for place, (part, byte) in enumerate(expected)]
    assert all(of_half.stop <= half for _, _, of_half in host._overlaps(sizes, 0, half))


def test_ranks_of_other_hosts_share_nothing():
    def elsewhere(ranks):
        return shared(
            ranks, texts=lambda name: [name if ranks.rank == 0 else "a name of another host", *ranks.texts(name)[1:]]
        )

    assert on_ranks(3, elsewhere) == [None, None, None]


def test_ranks_of_other_users_share_nothing(monkeypatch):
    monkeypatch.setattr(host, "_is_of_this_user", lambda peer: False)
    assert on_ranks(2, shared) == [None, None]


def forbidden(*arguments):
    raise PermissionError("forbidden here")


@pytest.mark.parametrize("function", ["os.memfd_create", "os.ftruncate", "socket.socket"])
def test_systems_that_forbid_such_memory_share_nothing(function, monkeypatch):
    monkeypatch.setattr(function, forbidden)
    assert on_ranks(2, shared) == [None, None]


def test_systems_without_such_memory_share_nothing(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert on_ranks(2, shared) == [None, None]


def joined() -> dict[str, torch.Tensor]:
    ranks = join(patience_s=60)
    own = torch.arange(4.0) + ranks.rank
    found = {
        "shares": torch.tensor(ranks._host is not None),
        "sum": ranks.sum_(own.clone()),
        "whole sum": ranks.sum_(torch.full((2,), 100 + ranks.rank, dtype=torch.int32)),
        "largest": torch.tensor(ranks.agree(float(ranks.rank))),
        "gathered": ranks.gather(own),
        "swapped": ranks.swap(own.view(2, 2)),
    }
    leave()
    return found


def test_ranks_that_join_on_a_host_exchange_by_its_memory(tmp_path):
    for rank, found in enumerate(results_of(joined, ranks=2, folder=tmp_path)):
        assert found["shares"]
        assert found["sum"].tolist() == [1, 3, 5, 7]
        assert found["whole sum"].tolist() == [201, 201]
        assert found["largest"] == 1
        assert found["gathered"].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
        assert found["swapped"].tolist() == [[2 * rank, 2 * rank + 1], [2 * rank + 1, 2 * rank + 2]]


def test_a_rank_that_has_ended_is_missed_at_once():
    def exchange(ranks):
        memory = shared(ranks)
        if ranks.rank == 1:
            return None
        for _ in range(2):
            with pytest.raises(OSError, match=r"ended|reset|pipe"):
                memory.send([], [torch.ones(3)])
        return True

    assert on_ranks(2, exchange) == [True, None]


def test_nothing_is_left_behind():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))

    def exchange(ranks):
        assert shared(ranks).send([], [torch.ones(3)])[0].sum() == 6
        return True

    assert on_ranks(2, exchange) == [True, True]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
