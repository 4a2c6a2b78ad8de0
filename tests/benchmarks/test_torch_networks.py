"""The plain PyTorch contestants are the networks of `bnn.models`: same weights, same outputs, same gradients."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnn.models
from benchmarks import train_step
from benchmarks.contestants import torch_networks
from benchmarks.contestants.measure import Task
from bnn.layers import BinaryLayer
from bnn.quantizers import ReCU
from bnn.weights import LatentStore

SHAPES = {
    "mlp": (1, 5, 5),
    "binarynet": (3, 8, 8),
    "cnv": (3, 32, 32),
    "vgg_small": (3, 8, 8),
    "vgg7": (3, 8, 8),
    "resnet8": (3, 8, 8),
    "resnet18": (3, 8, 8),
    "resnet20": (3, 8, 8),
    "resnete18": (3, 40, 32),
    "birealnet18": (3, 40, 32),
}


def task(model: str, weights: str = "sign") -> Task:
    return Task(model, SHAPES[model], classes=3, batch=4, warmup=0, steps=1, threads=1, weights=weights)


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


def assert_equal(plain: nn.Module, mine: nn.Module, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """With the same weights both have the same output and gradients, none of which is 0."""
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


def quick(names, *, large=("resnet18", "resnete18", "birealnet18")):
    """The names, of which those of the largest networks are slow; resnet20 has the same units."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in large else name for name in names]


@pytest.mark.parametrize("name", quick(train_step.MODELS))
def test_equals_the_network_of_the_package(name, generator):
    mine = getattr(bnn.models, name)(input_shape=SHAPES[name], classes=3)
    assert_equal(torch_networks.network(task(name)), mine, SHAPES[name], generator)


@pytest.mark.parametrize("name", quick(train_step.OF_RECU, large=("resnet18", "vgg_small")))
def test_equals_the_network_of_the_package_with_recu(name, generator):
    plain = torch_networks.network(task(name, weights="recu"))
    mine = getattr(bnn.models, name)(input_shape=SHAPES[name], classes=3, store=partial(LatentStore, quantizer=ReCU()))
    # In training the public code divides the activations, too.
    assert_equal(plain.eval(), mine.eval(), SHAPES[name], generator)


def test_recu_divides_activations_in_training_alone(generator):
    layer = torch_networks.ReCUConv2d(2, 3, sign=torch_networks.ApproxSign)
    x = (torch.randn((5, 2, 4, 4), generator=generator) * 3).requires_grad_()
    deviation = (x.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
    (expected,) = torch.autograd.grad(torch_networks.ApproxSign.apply(x / deviation).square().sum(), x)
    (gradient,) = torch.autograd.grad(layer.binary_input(x).square().sum(), x)
    torch.testing.assert_close(gradient, expected)
    outputs = [layer.train(training)(x) for training in (True, False)]
    torch.testing.assert_close(*outputs)


def test_plain_signs_at_the_edges():
    x = torch.tensor([-1.5, -1.0, -0.25, 0.0, 1.0, 1.5], requires_grad=True)
    for sign, expected in (
        (torch_networks.Sign, [0, 1, 1, 1, 1, 0]),
        (torch_networks.ApproxSign, [0, 0, 1.5, 2, 0, 0]),
    ):
        y = sign.apply(x)
        assert y.tolist() == [-1, -1, -1, 1, 1, 1]
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == expected
