"""Steps of accumulators by packed signs."""

from functools import partial

import pytest
import torch

from bnn.bits import BitTensor
from bnn.optim import SGD, Adam
from bnn.weights import Accumulator


@pytest.mark.parametrize("shape", [(6, 20), (4, 3, 3, 3)])
def test_packed_signs_move_accumulators_by_the_rate(shape, generator):
    start = torch.randint(-100, 100, shape, generator=generator).to(torch.int8)
    gradient = BitTensor.from_dense(torch.randn(shape, generator=generator))
    if len(shape) == 4:
        start, gradient = (x.contiguous(memory_format=torch.channels_last) for x in (start, gradient))
    parameter = Accumulator(start.clone())
    parameter.grad = gradient
    SGD([parameter], lr=3 / 128).step()
    assert torch.equal(parameter.detach(), (start - 3 * gradient.dense(torch.int8)))


def test_packed_signs_in_another_memory_order_give_the_same(generator):
    start = torch.zeros((4, 3, 3, 3), dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    gradient = BitTensor.from_dense(torch.randn((4, 3, 3, 3), generator=generator))
    parameter = Accumulator(start.clone())
    parameter.grad = gradient
    SGD([parameter], lr=3 / 128).step()
    assert torch.equal(parameter.detach(), -3 * gradient.dense(torch.int8))


def test_adam_without_decays_is_the_same_step(generator):
    start = torch.randint(-100, 100, (6, 20), generator=generator).to(torch.int8)
    gradient = BitTensor.from_dense(torch.randn((6, 20), generator=generator))
    stepped = []
    for optimizer in (SGD, partial(Adam, betas=(0.0, 0.0))):
        parameter = Accumulator(start.clone())
        parameter.grad = gradient
        stepping = optimizer([parameter], lr=2.5 / 128, seed=3)
        stepping.step()
        stepped.append(parameter.detach())
        assert stepping.state[parameter].keys() == {"step"}
    assert torch.equal(*stepped)


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.99)])
def test_adam_with_a_decay_of_zero_is_that_of_torch(betas, generator):
    parameters = [torch.nn.Parameter(torch.ones(5, 4)) for _ in range(2)]
    optimizers = [Adam(parameters[:1], betas=betas), torch.optim.Adam(parameters[1:], betas=betas, foreach=False)]
    for _ in range(3):
        gradient = torch.randn((5, 4), generator=generator)
        for parameter, optimizer in zip(parameters, optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(parameters[0], parameters[1])


def test_adam_with_decays_keeps_its_moments_of_packed_signs(generator):
    start = torch.randint(-50, 50, (6, 20), generator=generator).to(torch.int8)
    signs = [torch.randn((6, 20), generator=generator).sign() for _ in range(3)]
    stepped = []
    for form in (BitTensor.from_dense, torch.clone):
        parameter = Accumulator(start.clone())
        optimizer = Adam([parameter], lr=8 / 128)
        for gradient in signs:
            parameter.grad = form(gradient)
            optimizer.step()
        assert {"exp_avg", "exp_avg_sq"} <= optimizer.state[parameter].keys()
        stepped.append(parameter.detach())
    assert torch.equal(*stepped)
