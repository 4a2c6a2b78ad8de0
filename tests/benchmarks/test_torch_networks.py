"""The plain PyTorch contestants are the networks of `bnn.models`: same weights, same outputs, same gradients."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnn.models
from benchmarks.contestants import torch_networks
from bnn.layers import BinaryLayer
from bnn.weights import LatentStore

SHAPES = {
    "mlp": (1, 5, 5),
    "binarynet": (3, 8, 8),
    "cnv": (3, 32, 32),
    "resnet18": (3, 8, 8),
    "resnete18": (3, 40, 32),
}


def parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """In the order of the layers, the weight of a binary layer before its scale."""
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            yield module.store.weight
        if not isinstance(module, LatentStore):
            yield from module.parameters(recurse=False)


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and the gradient of every parameter."""
    output = model(x)
    F.cross_entropy(output, torch.tensor([0, 2, 1, 2])).backward()
    return output.detach(), [parameter.grad for parameter in parameters(model)]


@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_network_of_the_package(name, generator):
    shape = SHAPES[name]
    mine = getattr(bnn.models, name)(input_shape=shape, classes=3)
    plain = getattr(torch_networks, name)(shape, 3)
    with torch.no_grad():
        for theirs, ours in zip(parameters(plain), parameters(mine), strict=True):
            ours.copy_(torch.randn(ours.shape, generator=generator) * 0.5)
            theirs.copy_(ours)
    # Sums in another order could turn a sign near 0: doubles leave no value near enough.
    x = torch.randn((4, *shape), generator=generator, dtype=torch.float64)
    expected, expected_gradients = step(plain.double(), x)
    output, gradients = step(mine.double(), x)
    torch.testing.assert_close(output, expected)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, reference)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_plain_signs_at_the_edges():
    x = torch.tensor([-1.5, -1.0, -0.25, 0.0, 1.0, 1.5], requires_grad=True)
    for sign, expected in (
        (torch_networks.Sign, [0, 1, 1, 1, 1, 0]),
        (torch_networks.ApproxSign, [0, 0, 1.5, 2, 0, 0]),
    ):
        y = sign.apply(x)
        assert y.tolist() == [-1, -1, -1, 1, 1, 1]
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == expected
