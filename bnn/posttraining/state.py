"""What the weights and sums of a trained network are like: signs, levels, widths of sums, class means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.cost.energy.ledger import accumulator_bits
from bnn.layers import BinaryLayer
from bnn.posttraining.products import (
    dense,
    levels_of,
    operand,
    products_of_network,
    watched,
    weight_of,
    window_of,
)
from bnn.weights import named_stores

_FEW = 256


@dataclass(frozen=True)
class Sums:
    """The sums of a layer whose operands are both whole numbers."""

    terms: int
    """Products of one sum."""
    exact_bits: int
    """Of a signed accumulator that holds any sum."""
    seen_bits: int
    """Of one that holds the largest sum over the examples; sums on the way to it may be larger."""


@dataclass(frozen=True)
class Seen:
    """What a network does with some examples."""

    sums: dict[str, Sums]
    input_levels: dict[str, int]
    """How many values the operand of a product has, by its name; 0 for more than 256."""
    alignment: list[float]
    """Of each class the cosine between the weights of its logit and the mean of the last layer's input over its
    examples; empty where the last product does not give the logits."""


@torch.no_grad()
def seen(network: nn.Module, x: Tensor, labels: Tensor) -> Seen:
    """Looks at the operands of every product.

    Args:
        network: in evaluation mode.
        x: examples, as the network takes them.
        labels: int64 [n].
    """
    sums: dict[str, Sums] = {}
    input_levels: dict[str, int] = {}
    last: list[tuple[str, Tensor]] = []

    def see(name: str, module: nn.Module, inputs: Tensor) -> None:
        values = operand(module, inputs)
        distinct = torch.unique(values[: max(1, (1 << 18) * len(values) // values.numel())])
        input_levels[name] = distinct.numel() if distinct.numel() <= _FEW else 0
        whole = input_levels[name] and torch.equal(distinct, distinct.round())
        if whole and isinstance(module, BinaryLayer) and levels_of(module):
            sums[name] = _sums(module, values)
        last[:] = [(name, values)]

    layers = products_of_network(network)
    with watched(network, list(layers), see):
        logits = network(x)
    name, values = last[0]
    weight = weight_of(layers[name])
    gives_logits = weight.dim() == 2 and logits.shape[1] == len(weight)
    return Seen(sums, input_levels, _alignment(weight, values, labels) if gives_logits else [])


def _sums(layer: BinaryLayer, values: Tensor) -> Sums:
    levels, window = dense(layer.store.read()).float(), window_of(layer)
    made = F.linear(values, levels) if window is None else F.conv2d(values, levels, None, *window.for_torch)
    terms = levels[0].numel()
    largest = int(terms * values.abs().max() * levels.abs().max())
    seen = max(1, int(made.abs().max()))
    return Sums(terms, accumulator_bits((1, 1), largest), accumulator_bits((1, 1), seen))


def _alignment(weight: Tensor, values: Tensor, labels: Tensor) -> list[float]:
    means = [values[labels == k].mean(0) for k in range(len(weight)) if bool((labels == k).any())]
    rows = [weight[k] for k in range(len(weight)) if bool((labels == k).any())]
    return F.cosine_similarity(torch.stack(rows), torch.stack(means)).tolist() if rows else []


@dataclass(frozen=True)
class Entropy:
    """Of the levels of a layer's weight."""

    bits: float
    """A weight, by the shares of the levels."""
    most: float
    """If they were equally frequent."""


def level_entropies(network: nn.Module) -> dict[str, Entropy]:
    """Of each layer with few levels."""
    found = {}
    for name, store in named_stores(network):
        _, counts = torch.unique(dense(store.read()).detach(), return_counts=True)
        if len(counts) <= _FEW:
            shares = (counts / counts.sum()).tolist()
            bits = -sum(share * math.log2(share) for share in shares) + 0.0
            found[name] = Entropy(bits, math.log2(max(2, len(counts))))
    return found


def levels_by_layer(network: nn.Module) -> dict[str, Tensor]:
    """What the stores of a network read, by the names of their layers."""
    return {name: dense(store.read()).detach().clone() for name, store in named_stores(network)}


def unchanged_signs(network: nn.Module, start: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each layer the share of the weights whose sign is that of the start, where shapes are the same.

    Args:
        network: trained.
        start: the levels that its stores read before it was trained, by layer.
    """
    found = {}
    for name, store in named_stores(network):
        levels, before = dense(store.read()).detach(), start.get(name)
        if before is not None and before.shape == levels.shape:
            found[name] = float((levels.sign() == before.sign()).float().mean())
    return found
