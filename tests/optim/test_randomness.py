"""Roundings and transitions of different seeds, parameters, steps and purposes have nothing to do with one another.

All elements of a tensor are equal here and so is what becomes of them, but for the rounding: two values come out, and
which of them an element got is what its stream drew.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.optim import DST, SGD, Adam
from bnn.optim.moments import Moment
from bnn.random.streams import rounding_seed, transition_seed
from bnn.weights import Accumulator, DiscreteStore

SHAPE = (40, 250)
BOUND = 4.5 / (SHAPE[0] * SHAPE[1]) ** 0.5


def of_int8() -> Tensor:
    return Accumulator(torch.full(SHAPE, 20, dtype=torch.int8))


def of_float16() -> Tensor:
    return Accumulator(torch.full(SHAPE, 0.3, dtype=torch.float16))


def of_bfloat16() -> Tensor:
    return nn.Parameter(torch.full(SHAPE, 0.3, dtype=torch.bfloat16))


def of_float32() -> Tensor:
    return nn.Parameter(torch.full(SHAPE, 0.3))


sgd = partial(SGD, lr=0.53 / 128)
# One case for each way through the optimizers: floats, codes, codes by signs, float16 by signs, and the state alone.
WAYS = {
    "floats": (of_bfloat16, sgd, False),
    "codes": (of_int8, sgd, False),
    "codes by signs": (of_int8, sgd, True),
    "float16 by signs": (of_float16, partial(Adam, lr=0.0333, state_dtype=torch.float16), True),
    "state of 8 bits": (of_float32, partial(Adam, state_dtype=torch.int8), False),
    "state of 16 bits": (of_float32, partial(SGD, lr=0.1, momentum=0.9, state_dtype=torch.bfloat16), False),
}


def drawn(way: str, *, seeds: tuple[int, ...] = (0,), groups: int = 1, steps: int = 1) -> dict[str, Tensor]:
    """Where each of two equal parameters got the larger of its two values, float32, by seed, parameter and step."""
    make, optimizer_of, by_signs = WAYS[way]
    found = {}
    for seed in seeds:
        params = [make(), make()]
        optimizer = optimizer_of(params if groups == 1 else [{"params": [p]} for p in params], seed=seed)
        for step in range(steps):
            for parameter in params:
                with torch.no_grad():
                    parameter.copy_(make())
                state = {name: x for name, x in optimizer.state[parameter].items() if isinstance(x, Tensor)}
                for tensor in state.values():
                    tensor.zero_()
                gradient = torch.full(SHAPE, 1.003)
                parameter.grad = BitTensor.from_dense(gradient) if by_signs else gradient.to(_gradient_dtype(parameter))
            optimizer.step()
            for place, parameter in enumerate(params):
                kept = parameter if parameter.dtype is not torch.float32 else _first_moment(optimizer, parameter)
                larger = kept.detach().float() == kept.detach().float().max()
                assert 0.02 < larger.float().mean() < 0.98, "two values come out"
                found[f"seed {seed}, parameter {place}, step {step}"] = larger.flatten().float()
    return found


def _gradient_dtype(parameter: Tensor) -> torch.dtype:
    return torch.float32 if parameter.dtype is torch.int8 else parameter.dtype


def _first_moment(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    return next(x for x in optimizer.state[parameter].values() if isinstance(x, Tensor))


@pytest.mark.parametrize("options", [{"seeds": (0, 1)}, {"groups": 2}, {"steps": 3}], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_seeds_parameters_and_steps_have_roundings_of_their_own(way, options):
    found = drawn(way, **options)
    matrix = torch.corrcoef(torch.stack(list(found.values())))
    for (i, one), (j, other) in combinations(enumerate(found), 2):
        assert abs(matrix[i, j]) < BOUND, f"{one} and {other}"


class Watched(DiscreteStore):
    """Keeps the seeds that its transitions draw from."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        super().__init__(SHAPE)

    def program(self, delta: Tensor, generator: torch.Generator) -> None:
        self.seeds.append(generator.initial_seed())
        super().program(delta, generator)


@pytest.fixture
def rounding_seeds(monkeypatch) -> list[int]:
    """The seeds that roundings of optimizer states draw from, as they come."""
    seeds: list[int] = []

    def write(moment: Moment, rows: slice, values: Tensor, generator: torch.Generator, plain: Callable = Moment.write):
        seeds.append(generator.initial_seed())
        plain(moment, rows, values, generator)

    monkeypatch.setattr(Moment, "write", write)
    return seeds


def test_transitions_draw_other_numbers_than_roundings_and_than_those_of_other_layers_and_steps(rounding_seeds):
    stores = [Watched(), Watched()]
    optimizer = DST(SGD([store.weight for store in stores], lr=0.1, momentum=0.9, state_dtype=torch.int8, seed=6))
    for _ in range(3):
        for store in stores:
            store.weight.grad = torch.ones(SHAPE)
        optimizer.step()
    keys = [{"seed": 6, "index": index, "step": step} for step in (1, 2, 3) for index in (0, 1)]
    assert rounding_seeds == [rounding_seed(**key) for key in keys]
    assert stores[0].seeds + stores[1].seeds == [transition_seed(**key) for key in keys[::2] + keys[1::2]]
    assert len({*rounding_seeds, *stores[0].seeds, *stores[1].seeds}) == 12


def test_equal_layers_make_other_transitions():
    moved = []
    for seed in (0, 1):
        stores = [DiscreteStore(SHAPE) for _ in range(2)]
        for store in stores:
            store.program(torch.full(SHAPE, -2.0), torch.Generator().manual_seed(0))
            store.weight.grad = torch.full(SHAPE, -1.0)
        DST(SGD([store.weight for store in stores], lr=0.1, seed=seed)).step()
        moved += [(store.value() > -1).flatten().float() for store in stores]
    matrix = torch.corrcoef(torch.stack(moved))
    assert (matrix - torch.eye(4)).abs().max() < BOUND
