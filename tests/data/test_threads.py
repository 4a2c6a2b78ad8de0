"""Threads that read images leave those that train theirs."""

import torch

from bnn.data.threads import reading_threads


def test_operations_take_one_thread_there_and_as_many_as_before_here():
    before = torch.get_num_threads()
    with reading_threads(2) as threads:
        assert set(threads.map(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == before
