"""SGD of accumulators by packed signs."""

import pytest
import torch

from bnn.bits import BitTensor
from bnn.fixed_point import FixedPoint
from bnn.optim import SGD


@pytest.mark.parametrize("shape", [(6, 20), (4, 3, 3, 3)])
def test_packed_signs_move_accumulators_by_the_rate(shape, generator):
    start = torch.randint(-100, 100, shape, generator=generator).to(torch.int8)
    gradient = BitTensor.from_dense(torch.randn(shape, generator=generator))
    if len(shape) == 4:
        start, gradient = (x.contiguous(memory_format=torch.channels_last) for x in (start, gradient))
    parameter = FixedPoint(start.clone())
    parameter.grad = gradient
    SGD([parameter], lr=3 / 128).step()
    assert torch.equal(parameter.detach(), (start - 3 * gradient.dense(torch.int8)))


def test_packed_signs_in_another_memory_order_give_the_same(generator):
    start = torch.zeros((4, 3, 3, 3), dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    gradient = BitTensor.from_dense(torch.randn((4, 3, 3, 3), generator=generator))
    parameter = FixedPoint(start.clone())
    parameter.grad = gradient
    SGD([parameter], lr=3 / 128).step()
    assert torch.equal(parameter.detach(), -3 * gradient.dense(torch.int8))
