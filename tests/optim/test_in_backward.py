import functools

import pytest
import torch
from torch import nn

from bnn.layers import BinaryLinear
from bnn.optim import SGD, Adam, Bop, step_in_backward
from bnn.weights import AccumulatorStore

MAKE = {
    "Adam": functools.partial(Adam, state_dtype=torch.int8),
    "SGD": functools.partial(SGD, lr=0.1, momentum=0.9, state_dtype=torch.bfloat16),
    "Bop": Bop,
    "torch's Adam": torch.optim.Adam,
    "torch's fused SGD": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
}


def model(*, accumulators: bool = False) -> nn.Module:
    torch.manual_seed(0)
    stores = {"store": AccumulatorStore} if accumulators else {}
    return nn.Sequential(
        nn.Linear(6, 16),
        BinaryLinear(16, 16, bias=True, **stores),
        nn.BatchNorm1d(16),
        BinaryLinear(16, 3, **stores),
    )


def backward(network: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn((8, 6), generator=generator), torch.randint(3, (8,), generator=generator)
    nn.functional.cross_entropy(network(x), y).backward()


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("kind", "accumulators"),
    [(kind, False) for kind in MAKE] + [("Adam", True), ("SGD", True)],
)
def test_equals_steps_after_backward_bit_for_bit(kind, accumulators):
    ordinary, inside = model(accumulators=accumulators), model(accumulators=accumulators)
    ordinary_optimizer, inside_optimizer = MAKE[kind](ordinary.parameters()), MAKE[kind](inside.parameters())
    start = model(accumulators=accumulators)
    step_in_backward(inside_optimizer)
    for step in range(5):
        backward(ordinary, step)
        ordinary_optimizer.step()
        ordinary_optimizer.zero_grad()
        backward(inside, step)
        # What an ordinary loop does has no effect any more.
        inside_optimizer.step()
        inside_optimizer.zero_grad()
    assert_same(ordinary, inside)
    assert not torch.equal(start[1].store.weight, inside[1].store.weight)


@pytest.mark.parametrize("accumulators", [False, True])
def test_no_more_than_one_gradient_exists_at_a_time(accumulators):
    network = model(accumulators=accumulators)
    optimizer = SGD(network.parameters(), lr=0.1)
    with_gradient = []
    for parameter in network.parameters():  # before the step, which frees the gradient
        parameter.register_post_accumulate_grad_hook(
            lambda _: with_gradient.append([name for name, p in network.named_parameters() if p.grad is not None])
        )
    step_in_backward(optimizer)
    backward(network, 0)
    assert sorted(with_gradient) == sorted([name] for name, _ in network.named_parameters())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("accumulators", [False, True])
def test_ends_when_removed_and_when_left(accumulators):
    network = model(accumulators=accumulators)
    optimizer = SGD(network.parameters(), lr=0.1)
    handle = step_in_backward(optimizer)
    handle.remove()
    backward(network, 0)
    assert all(p.grad is not None for p in network.parameters())
    with step_in_backward(optimizer):
        assert all(p.grad is None for p in network.parameters()), "no gradient of before is stepped along"
        backward(network, 1)
        assert all(p.grad is None for p in network.parameters())
    backward(network, 2)
    assert all(p.grad is not None for p in network.parameters())


def test_frozen_parameters_stay():
    network = model()
    network[0].requires_grad_(False)
    before = network[0].weight.clone()
    step_in_backward(SGD(network.parameters(), lr=0.1))
    backward(network, 0)
    assert torch.equal(network[0].weight, before)
