"""Batch norms of images between blocks, by this package's operations."""

import copy
import pickle

import pytest
import torch
from torch import nn

from bnn.layers.narrow_norm import narrow_norm
from tests.contracts import randn, saved_bytes


def pair(**options):
    """A norm of torch, and its copy by the operations."""
    norm = nn.BatchNorm2d(12, **options)
    if norm.affine:
        norm.weight.data, norm.bias.data = randn(12), randn(12, seed=1)
    narrow = copy.deepcopy(norm)
    narrow_norm(narrow)
    return norm, narrow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": 0.3, "eps": 1e-2}])
def test_takes_the_step_of_torchs_norm_in_the_inputs_dtype(dtype, options):
    results = []
    for norm in pair(**options):
        x = randn(4, 12, 7, 9, seed=2).to(dtype).requires_grad_()
        y = norm(x)
        y.backward(randn(4, 12, 7, 9, seed=3).to(dtype))
        of_parameters = [parameter.grad for parameter in norm.parameters()]
        results.append([y.detach(), x.grad, *of_parameters, norm.running_mean, norm.running_var])
        assert (y.dtype, x.grad.dtype, norm.num_batches_tracked) == (dtype, dtype, 1)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 2**-7, "atol": 1e-3}
    torch.testing.assert_close(*results, **tolerance)


def test_keeps_its_input_and_makes_no_gradient_that_is_not_asked_for():
    _, norm = pair()
    x = randn(4, 12, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    with saved_bytes() as saved:
        y = norm(x)
    assert sum(saved.values()) == x.nbytes + 3 * 12 * 4  # and gamma, and mean and deviation
    norm.bias.requires_grad_(False)
    norm(x).float().sum().backward()
    assert x.grad is None
    assert norm.bias.grad is None
    assert norm.weight.grad is not None
    assert y.grad_fn is not None


@pytest.mark.parametrize("options", [{"momentum": None}, {"track_running_stats": False}])
def test_other_norms_and_evaluation_are_torchs(options):
    x = randn(4, 12, 7, 9)
    for norm, narrow in (pair(**options), tuple(norm.eval() for norm in pair())):
        assert torch.equal(narrow(x), norm(x))
    with pytest.raises(ValueError, match="more than 1 value"):
        pair()[1](randn(1, 12, 1, 1))
    assert pair()[1](torch.zeros(0, 12, 5, 5)).shape == (0, 12, 5, 5)


def test_a_copy_has_parameters_of_its_own():
    _, norm = pair()
    for other in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        other(randn(4, 12, 7, 9))
        assert other.num_batches_tracked == 1
        assert other.state_dict().keys() == nn.BatchNorm2d(12).state_dict().keys()
    assert norm.num_batches_tracked == 0
