"""Keys of the streams, written out, and the independence of what they give."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from bnn.random.hashing import random_integer, random_integers, shuffled
from bnn.random.streams import (
    augmentation_numbers,
    draw_seed,
    epoch_order,
    generator_like,
    hold_out_order,
    rounding_seed,
    transition_seed,
)

N = 10_000
POSITIONS = torch.arange(N)


def test_keys_are_those_of_all_trainings_so_far():
    assert torch.equal(hold_out_order(50, seed=7), shuffled(50, 7))
    assert torch.equal(epoch_order(50, seed=7, epoch=3), shuffled(50, 0, 7, 3))
    for number in (0, 1, 2):
        numbers = augmentation_numbers(POSITIONS, number=number, seed=7, epoch=3)
        assert torch.equal(numbers, random_integers(POSITIONS, 1 + number, 7, 3))
    assert rounding_seed(seed=7, index=3, step=5) == random_integer(5, 7, 3)
    assert transition_seed(seed=7, index=3, step=5) == random_integer(5, 7, 3, 1)


def ranks(order: Tensor) -> Tensor:
    """The index of each example in an order."""
    return order.argsort()


def streams_of_data() -> dict[str, Tensor]:
    """What each purpose draws for the same examples; keys of small numbers, which are alike most."""
    found = {}
    for seed in (0, 1):
        found[f"held out, seed {seed}"] = ranks(hold_out_order(N, seed=seed))
        for epoch in (0, 1):
            key = {"seed": seed, "epoch": epoch}
            found[f"order, {key}"] = ranks(epoch_order(N, **key))
            for number in (0, 1, 2):
                found[f"augmentation {number}, {key}"] = augmentation_numbers(POSITIONS, number=number, **key)
    return found


def streams_of_steps() -> dict[str, Tensor]:
    """What each purpose draws for the same steps."""
    found = {}
    for seed in (0, 1):
        for index in (0, 1):
            for name, seed_of in (("roundings", rounding_seed), ("transitions", transition_seed)):
                seeds = [seed_of(seed=seed, index=index, step=step) for step in range(N)]
                found[f"{name}, seed {seed}, index {index}"] = torch.tensor(seeds)
    return found


kinds = pytest.mark.parametrize("streams", [streams_of_data, streams_of_steps])


@kinds
def test_streams_are_independent(streams):
    """Ranks of the numbers, so that orders compare with the numbers that they come from."""
    found = {name: ranks(numbers.argsort(stable=True)).double() for name, numbers in streams().items()}
    matrix = torch.corrcoef(torch.stack(list(found.values())))
    for (i, one), (j, other) in combinations(enumerate(found), 2):
        assert abs(matrix[i, j]) < 4.5 / N**0.5, f"{one} and {other}"


@kinds
def test_neighbouring_numbers_of_a_stream_are_independent(streams):
    for name, numbers in streams().items():
        x = numbers.double()
        for lag in (1, 2):
            assert abs(torch.corrcoef(torch.stack([x[:-lag], x[lag:]]))[0, 1]) < 4.5 / N**0.5, name


def test_no_two_steps_have_the_same_seed():
    keys = [
        {"seed": seed, "index": index, "step": step} for seed in range(6) for index in range(6) for step in range(1, 9)
    ]
    seeds = [seed_of(**key) for key in keys for seed_of in (rounding_seed, transition_seed)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_generator_is_that_of_its_seed(device):
    generator = generator_like(torch.empty(3, device=device), 2**63 - 1)
    assert (generator.device.type, generator.initial_seed()) == ("cpu", 2**63 - 1)


def test_drawn_seeds_follow_the_generator_and_move_it(generator):
    other = torch.Generator().manual_seed(0)
    seeds = [draw_seed(generator) for _ in range(50)]
    assert seeds == [draw_seed(other) for _ in range(50)]
    assert len(set(seeds)) == 50
    assert 0 <= min(seeds) < 2**61 < max(seeds) < 2**62


def test_an_order_is_made_on_its_device():
    assert epoch_order(5, seed=0, epoch=0, device="meta").is_meta
