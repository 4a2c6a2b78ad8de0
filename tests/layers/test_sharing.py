"""Layers between blocks, where several ranks have some rows of a slice each; the ranks are threads that meet."""

import copy

import pytest
import torch
from torch import nn

from bnn.distributed import Exact, Part, Ranks
from bnn.distributed.exchange import cut
from bnn.layers.sharing import obstacle_to_sharing, on_all_rows
from tests.distributed.test_sums import on_ranks

EXAMPLES = 7


@pytest.mark.parametrize("size", [2, 3])
def test_results_gradients_and_statistics_are_those_of_all_rows(size, generator):
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5))
    x = torch.randn(EXAMPLES, 6, generator=generator)
    of_result = torch.randn(EXAMPLES, 5, generator=generator)

    def trained(ranks: Ranks) -> dict[str, torch.Tensor]:
        exchange, own = Exact(ranks), copy.deepcopy(model)
        rows = cut(range(EXAMPLES), ranks.size)[ranks.rank]
        exchange.begin_part(Part(0, rows, EXAMPLES))
        inputs = x[rows.start : rows.stop].clone().requires_grad_()
        with on_all_rows(own, exchange):
            result = own(inputs)
        result.backward(of_result[rows.start : rows.stop])
        gradients = {f"gradient of {name}": parameter.grad for name, parameter in own.named_parameters()}
        return {**own.state_dict(), **gradients, "result": result.detach(), "input": inputs.grad}

    one = trained(Ranks())
    several = on_ranks(size, trained)
    for name, expected in one.items():
        if name in ("result", "input"):
            assert torch.equal(torch.cat([found[name] for found in several]), expected), name
        else:
            assert all(torch.equal(found[name], expected) for found in several), name


def test_what_else_has_parameters_is_named():
    assert obstacle_to_sharing(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2), nn.ReLU())) is None
    assert obstacle_to_sharing(nn.Sequential(nn.PReLU())) == "0 is a PReLU outside of the blocks that keep bits"
