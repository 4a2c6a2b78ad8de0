"""Norms and biases of a network brought back to what they were for, after its weights have changed.

Sources: re-estimated batch norms and tuned biases, Hubara et al. 2020, arXiv 2006.10518, sec. 5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnn.layers import BinaryLayer
from bnn.posttraining.products import EXAMPLES_AT_ONCE, divergence, part_by_part

_RATE = 2e-3
_BATCH = 64


def has_statistics(module: nn.Module) -> bool:
    """Whether it is a norm that keeps statistics of its channels."""
    return isinstance(getattr(module, "running_mean", None), Tensor)


def reestimate_norms(network: nn.Module, x: Tensor) -> None:
    """Sets the statistics of all norms that keep some to those of some examples, each batch with the same weight.

    Args:
        network: in evaluation mode, in which it is afterwards, too.
        x: examples, at least 2, as the network takes them.
    """
    norms: list[Any] = [module for module in network.modules() if has_statistics(module)]
    momenta = [norm.momentum for norm in norms]
    batches = [part for part in torch.split(x, EXAMPLES_AT_ONCE) if len(part) > 1]
    try:
        for norm in norms:
            norm.train()
        with torch.no_grad(), part_by_part(network):
            for number, part in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1 / number  # a cumulative mean
                network(part)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def tune_biases(network: nn.Module, x: Tensor, reference: Tensor, *, steps: int, generator: torch.Generator) -> None:
    """Tunes what norms and layers add to and multiply with channels, so that the network says what another one said.

    Weights stay as they are. The loss is the Kullback-Leibler divergence, which needs no labels.

    Args:
        network: in evaluation mode.
        x: examples, as the network takes them.
        reference: logits of the other one for them, [n, classes].
        steps: of Adam, of at most 64 examples each.
        generator: draws them.
    """
    tuned = _tuned(network)
    if not tuned or not steps:
        return
    states = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in tuned:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(tuned, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad(), part_by_part(network):
        for _ in range(steps):
            rows = torch.randint(len(x), (min(_BATCH, len(x)),), generator=generator)
            optimizer.zero_grad()
            divergence(reference[rows], network(x[rows]).float()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    for parameter, state in zip(network.parameters(), states, strict=True):
        parameter.requires_grad_(state)
        parameter.grad = None


def _tuned(network: nn.Module) -> list[nn.Parameter]:
    """Biases, and the factors of norms: parameters of one dimension, each once."""
    found: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_scale = isinstance(module, BinaryLayer) and name == "learned_scale"
            if parameter.dim() == 1 and not is_scale:
                found[id(parameter)] = parameter
    return list(found.values())
