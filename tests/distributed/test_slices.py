"""Into how many slices a batch is cut."""

import pytest

from bnn.distributed import exchange_of
from bnn.distributed.ranks import Ranks


@pytest.mark.parametrize(
    ("mode", "ranks", "slices"), [("exact", 2, 3), ("count", 1, 3), ("count", 2, 2), ("vote", 4, 4)]
)
def test_votes_take_few_slices_of_a_fifth_more_and_exact_those_of_one_process(mode, ranks, slices):
    group = Ranks()
    group.size = ranks
    assert exchange_of(mode, group).slices(100, 43) == slices
