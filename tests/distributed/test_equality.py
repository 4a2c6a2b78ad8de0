"""Several processes train what one trains, bit for bit."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bnn.distributed import Count, Exact, Ranks, exchange_of
from bnn.errors import DistributedError
from bnn.presets import prepare
from bnn.training import TrainingStep
from bnn.weights import is_accumulator
from tests.distributed import steps
from tests.distributed.processes import results_of

# Mode, way of training, network, slice size of a batch of 24, and steps.
QUICK = ("exact edge network 0 3", "exact edge-min mlp 10 3", "count signs network 12 3", "count standard mlp 12 3")
CASES = (
    "exact edge network 0",
    "exact signs network 0",
    "exact edge-min network 10",
    "exact edge-signs network 10",
    "exact edge-min mlp 0",
    "exact edge residual 0",
    "exact edge-min residual 10",
    "exact edge-min resnete 0",
    "exact edge-min groups 10",
    "exact edge-signs groups 0",
    "count signs network 6",
    "count standard network 6",
    "count standard mlp 6",
    "count gxnor gxnor 6",
    "count junctions gxnor 6",
)


def of_one_process(cases: Sequence[str]) -> dict[str, Tensor]:
    found = {}
    for case in cases:
        found |= {f"{case}: {name}": tensor for name, tensor in steps.trained(*case.split()).items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_ranks_is_one_process_after_twenty_steps(tmp_path, ranks):
    # Slices that ranks have whole are as many for each.
    cases = [f"{case} 20" for case in CASES if ranks != 3 or case.startswith("exact")]
    one = of_one_process(cases)
    for found in results_of(steps.many, *cases, ranks=ranks, folder=tmp_path):
        assert found.keys() == one.keys()
        assert not [name for name, tensor in one.items() if not torch.equal(found[name], tensor)]


SUMS = ("count edge-min mlp 0 3", "count edge-signs mlp 0 3", "count edge mlp 0 3")


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory) -> list[dict[str, Tensor]]:
    return results_of(steps.many, *QUICK, *SUMS, ranks=2, folder=tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_two_ranks_are_one_process(of_two_ranks):
    one = of_one_process(QUICK)
    for found in of_two_ranks:
        assert not [name for name, tensor in one.items() if not torch.equal(found[name], tensor)]


@pytest.mark.slow
@pytest.mark.parametrize("case", SUMS)
def test_the_steps_by_gradients_of_ranks_are_those_by_their_sum_in_one_process(case, of_two_ranks):
    # Where a rank has several slices, these presets step as often; here once.
    one = prepare(case.split()[1], steps.NETWORKS["mlp"], input_shape=steps.SHAPE)
    for parameter in one.model.parameters():
        if is_accumulator(parameter):
            parameter._hooks.clear()  # those that step in backward
    one.exchange, one.slice_size = Count(), 12
    torch.manual_seed(0)
    for x, labels in steps.batches(3):
        one.take(x, labels)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(of_two_ranks[0][f"{case}: model {name}"], tensor), name


@pytest.mark.parametrize("mode", ["exact", "count", "vote"])
def test_every_row_of_a_batch_is_one_rank_s_and_a_batch_that_ranks_do_not_divide_is_refused(mode):
    exchange = exchange_of(mode, Ranks())
    exchange.ranks.size = 3
    rows = []
    for exchange.ranks.rank in range(3):
        rows += exchange.rows(24, 5).tolist()
    assert sorted(rows) == list(range(24))
    with pytest.raises(DistributedError, match="3 ranks do not divide a batch of 25: take a batch of 24"):
        exchange.parts(25, 1)


@pytest.mark.parametrize(
    ("size", "batch", "most", "slices"),
    [(1, 100, 43, 3), (2, 100, 43, 2), (2, 100, 41, 4), (4, 100, 43, 4), (2, 96, 48, 2)],
)
def test_ranks_take_as_few_slices_as_a_fifth_beyond_the_largest_allows(size, batch, most, slices):
    exchange = Count()
    exchange.ranks.size = size
    step = TrainingStep(
        model=nn.Linear(1, 1), optimizer=torch.optim.SGD([torch.zeros(1)]), slice_size=most, exchange=exchange
    )
    assert step.slice_count(batch) == slices
    assert max(part.examples for part in exchange.parts(batch, slices)) <= most * 1.2


def test_a_network_with_convolutions_outside_of_blocks_shares_no_slice():
    step = prepare("standard", steps.network, input_shape=steps.SHAPE)
    step.exchange = Exact()
    with pytest.raises(DistributedError, match="outside of the blocks that keep bits; take --exchange count"):
        step.take(*next(steps.batches(1)))
    wide = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(128, 5))
    step = TrainingStep(model=wide, optimizer=torch.optim.SGD(wide.parameters(), lr=0.1), exchange=Exact())
    with pytest.raises(DistributedError, match="0 is a Conv2d outside"):
        step.take(*next(steps.batches(1)))
