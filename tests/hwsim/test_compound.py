"""Cells of several filaments: their levels, the law of a step, and a network that learns on them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.data import digits
from bnn.layers import BinaryLinear
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from hwsim.compound import CompoundStore


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at_level(k: int, cells: int, filaments: int = 4) -> CompoundStore:
    """Cells of which the first k filaments are formed."""
    store = CompoundStore((1, cells), filaments=filaments)
    store._keep(slice(None), torch.arange(filaments)[:, None, None].expand(-1, 1, cells) < k)
    return store


@pytest.mark.parametrize("filaments", [1, 2, 4, 16])
def test_levels_are_even_from_minus_one_to_one(filaments):
    store = CompoundStore((50, 300), filaments=filaments)
    store.initialize(generator())
    seen = store.value().unique()
    assert bool(torch.isclose(seen[:, None], torch.tensor(store.levels)).any(dim=1).all())
    assert (store.levels[0], store.levels[-1], len(store.levels)) == (-1.0, 1.0, filaments + 1)
    # As many heads in M throws of a coin.
    assert float(store.value().mean()) == pytest.approx(0, abs=0.03)
    assert float(store.value().var()) == pytest.approx(1 / filaments, rel=0.05)


@pytest.mark.parametrize(("k", "steps"), [(0, 0.1), (1, 0.3), (3, 0.3), (2, 1.0), (4, -0.2), (2, -2.0)])
def test_a_step_is_binomial_over_the_filaments_that_are_left(k, steps):
    cells = 40_000
    store = at_level(k, cells)
    store.program(torch.full((1, cells), steps * store.spacing), generator())
    moved = ((store.value() + 1) / store.spacing).round() - k
    left = 4 - k if steps > 0 else k
    p = float(1 - torch.exp(torch.tensor(-abs(steps) / left)))
    sign = 1 if steps > 0 else -1
    assert float(moved.mean()) * sign == pytest.approx(left * p, rel=0.05)
    assert float(moved.var()) == pytest.approx(left * p * (1 - p), rel=0.05)
    assert bool((moved * sign >= 0).all())


def test_at_an_end_nothing_is_left_to_switch():
    store = at_level(4, 100)
    store.program(torch.full((1, 100), 1.0), generator())
    assert bool((store.value() == 1).all())
    assert store.totals == {"writes": 1, "pulses": 0, "switches": 0, "write_energy_J": 0}


def test_energy_of_a_pulse():
    store = at_level(2, 1000)
    store.program(torch.full((1, 1000), 0.25), generator())
    # Half a level with two filaments left: a quarter of 1 ns at 1 V, through two of 10 kΩ and two of 1 MΩ.
    assert store.totals["write_energy_J"] == pytest.approx(1000 * 0.25e-9 * (2e-4 + 2e-6), rel=0.01)
    assert store.totals["pulses"] == 1000


def test_the_generator_decides():
    stores = [at_level(2, 500) for _ in range(3)]
    for store, seed in zip(stores, (1, 1, 2), strict=True):
        store.program(torch.full((1, 500), 0.2), generator(seed))
    assert torch.equal(stores[0].planes, stores[1].planes)
    assert not torch.equal(stores[0].planes, stores[2].planes)


@pytest.mark.parametrize(
    ("options", "message"), [({"filaments": 0}, "1 to 16"), ({"voltage_V": 0.0}, "above 0, got 0")]
)
def test_refuses_what_is_not_physical(options, message):
    with pytest.raises(ValueError, match=message):
        CompoundStore((2, 3), **options)


def test_a_network_of_five_levels_learns_digits():
    data = digits(None)
    store, ternary = partial(CompoundStore, filaments=4), Ternary(threshold=0.5)
    model = nn.Sequential(
        BinaryLinear(64, 128, store=store, input_quantizer=None),
        nn.BatchNorm1d(128),
        BinaryLinear(128, 10, store=store, input_quantizer=ternary),
        nn.BatchNorm1d(10),
    )
    for number, layer in enumerate(module for module in model if hasattr(module, "store")):
        layer.store.initialize(generator(number))
    optimizer = DST(Adam(model.parameters(), lr=1e-2, betas=(0.99, 0.999), seed=0))
    x = data.train.images.float().flatten(1) / data.train.images.max() * 2 - 1
    for epoch in range(3):
        for rows in torch.randperm(len(x), generator=generator(epoch)).split(50):
            F.cross_entropy(model(x[rows]), data.train.labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    test = data.test.images.float().flatten(1) / data.train.images.max() * 2 - 1
    with torch.no_grad():
        accuracy = float((model(test).argmax(dim=1) == data.test.labels).float().mean())
    assert accuracy > 0.85
