"""Gradients of a trained network, taken as they are: of each example by itself, and of each layer's output."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.layers import BinaryBlock, BinaryLayer
from bnn.posttraining.products import dense, products_of_network
from bnn.weights import FrozenStore


@dataclass(frozen=True)
class Coherence:
    """How much the gradients of examples agree. Source: Chatterjee and Zielinski 2020, arXiv 2008.01217."""

    total: float
    """m-coherence |sum g|^2 / sum |g|^2 over all weights: 0..m of m examples; 1 of orthogonal, m of equal gradients."""
    of_layers: dict[str, float]


def gradient_coherence(network: nn.Module, x: Tensor, labels: Tensor) -> Coherence:
    """The m-coherence of the cross-entropy's gradients by the weights of linear layers and convolutions.

    Binary weights have the gradients that reach their levels; gradients are not quantized.

    Args:
        network: in evaluation mode.
        x: the m examples, as the network takes them.
        labels: int64 [m].
    """
    probe, weights = with_gradients(network)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    squares = dict.fromkeys(weights, 0.0)
    for one, label in zip(torch.split(x, 1), torch.split(labels, 1), strict=True):
        loss = F.cross_entropy(probe(one).float(), label)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                sums[name] += gradient
                squares[name] += float(gradient.square().sum())
    of_sums = {name: float(total.square().sum()) for name, total in sums.items()}
    of_layers = {name: _ratio(of_sums[name], squares[name]) for name in weights}
    return Coherence(_ratio(sum(of_sums.values()), sum(squares.values())), of_layers)


def output_gradients(network: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy by the output of each product, by name.

    Args:
        network: in evaluation mode.
        x: examples, as the network takes them.
        labels: int64 [n].
    """
    probe, weights = with_gradients(network)
    outputs: dict[str, Tensor] = {}
    hooks = [
        probe.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.__setitem__(name, output)
        )
        for name in weights
    ]
    loss = F.cross_entropy(probe(x).float(), labels)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    return {name: g.detach() for name, g in zip(outputs, gradients, strict=True) if g is not None}


def with_gradients(network: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of a network whose blocks call their parts, and the weights of its products, which take gradients.

    Stores are replaced by ones that hold what they read as floats.
    """
    probe = copy.deepcopy(network).eval().requires_grad_(False)
    for module in probe.modules():
        if isinstance(module, BinaryBlock):
            module.recompute = False
    weights: dict[str, Tensor] = {}
    for name, layer in products_of_network(probe).items():
        if isinstance(layer, BinaryLayer):
            weight = dense(layer.store.read()).detach().float().clone().requires_grad_()
            scale = layer.store.scale()
            layer.store = FrozenStore(weight, levels=2, scale=None if scale is None else scale.detach())
            layer.grad_quantizer = None
            weights[name] = weight
        else:
            weights[name] = layer.get_parameter("weight").requires_grad_()
    return probe, weights


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
