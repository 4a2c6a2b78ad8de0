"""A parameter that autograd does not know."""

import pytest
import torch

from bnn.bits import BitTensor
from bnn.optim import SGD, Adam
from bnn.weights import Accumulator


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_takes_gradients_of_bits_and_of_floats(dtype):
    parameter = Accumulator(torch.zeros(3, 5, dtype=dtype))
    assert not parameter.requires_grad
    calls = []
    handle = parameter.register_post_accumulate_grad_hook(calls.append)
    signs = BitTensor.from_dense(torch.ones(3, 5))
    parameter.accumulate(signs)
    assert parameter.grad is signs
    handle.remove()
    parameter.accumulate(torch.full((3, 5), 2.0))
    assert torch.equal(parameter.grad, torch.full((3, 5), 3.0))
    assert calls == [parameter]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_optimizers_step_it_by_signs_and_keep_it_within_one(dtype, optimizer):
    parameter = Accumulator(torch.tensor([[0.5, -0.5, 0.9, -0.9]] * 2, dtype=dtype))
    parameter.accumulate(BitTensor.from_dense(torch.tensor([[1.0, -1.0, -1.0, 1.0]] * 2)))
    optimizer([parameter], lr=0.25).step()
    expected = torch.tensor([[0.25, -0.25, 1.0, -1.0]] * 2)
    torch.testing.assert_close(parameter.detach().float(), expected, rtol=1e-3, atol=1e-3)
