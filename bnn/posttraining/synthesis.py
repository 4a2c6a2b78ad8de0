"""Inputs made of what a network's norms have kept of its training data, for calibration where no data may be kept.

Source: Haroush et al. 2020, arXiv 1912.01274: inputs are stepped until the means and deviations of what enters each
norm are those that the norm has kept, by the divergence of normal distributions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bnn.errors import RunError
from bnn.layers import BinaryBlock, BinaryLayer

STEPS = 200
_RATE = 0.1
_MOST = 1 << 16
_GROUP = 128  # inputs whose statistics are those of the norms together
_SHARED = 0.9  # correlation of the channels of a pixel


def statistics_loss(network: nn.Module, x: Tensor) -> Tensor:
    """How far the statistics of inputs are from those that norms have kept, at least 0; a scalar with a gradient to x.

    It is the mean of ln(s / t) + (t^2 + (m - n)^2) / (2 s^2) - 1/2 over the channels of all norms, with the mean m and
    deviation s that a norm has kept, and n and t of the inputs. It also tells how alike two sets of data are to a
    network.

    Args:
        network: in evaluation mode; its blocks call their parts.
        x: at least 2 inputs, as the network takes them.

    Raises:
        RunError: no norm of the network has kept means and variances.
    """
    norms = [module for module in network.modules() if _keeps_variance(module)]
    if not norms:
        raise RunError("no norm of the network has kept the statistics of its data, from which inputs could be made")
    losses: list[Tensor] = []
    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs: losses.append(_divergences(norm, inputs[0])))
        for norm in norms
    ]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(losses).mean()


def _keeps_variance(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))


def _divergences(norm: Any, x: Tensor) -> Tensor:
    """Of each channel."""
    rows = x.float().transpose(0, 1).flatten(1)
    kept = norm.running_var + norm.eps
    found = rows.var(1, correction=0) + norm.eps
    off = (rows.mean(1) - norm.running_mean).square()
    apart: Tensor = 0.5 * (kept.log() - found.log() + (found + off) / kept - 1)
    return apart


def synthesize(
    network: nn.Module, input_shape: tuple[int, ...], *, count: int, steps: int = STEPS, seed: int = 0
) -> Tensor:
    """Makes inputs by Adam from noise, 128 at a time; images from noise like that of pictures.

    Args:
        network: trained; it is not changed.
        input_shape: of one example.
        count: how many, 2 to 65,536.
        steps: of each group.
        seed: of the noise.

    Returns:
        float32 [count, ...], as the network takes them, normalised.

    Raises:
        RunError: no norm of the network has kept means and variances, or `count` is out of its range.
    """
    if not 2 <= count <= _MOST:
        raise RunError(f"from 2 to {_MOST:,} inputs are made, not {count}: statistics are of several")
    probe = copy.deepcopy(network).eval().requires_grad_(False)
    for module in probe.modules():
        if isinstance(module, BinaryBlock):
            module.recompute = False
        if isinstance(module, BinaryLayer):
            module.grad_quantizer = None
    generator = torch.Generator().manual_seed(seed)
    noise = _noise(count, input_shape, generator)
    groups = noise.tensor_split(-(-count // _GROUP))
    return torch.cat([_stepped(probe, group, steps) for group in groups])


def _noise(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal noise of mean 0 and variance 1, [count, *shape]; of images, [C, H, W], with a pink spectrum."""
    own = torch.randn(count, *shape, generator=generator)
    if len(shape) != 3:
        return own
    height, width = shape[1:]
    shared = torch.randn(count, 1, height, width, generator=generator)
    white = _SHARED**0.5 * shared + (1 - _SHARED) ** 0.5 * own
    frequency = torch.fft.fftfreq(height)[:, None].hypot(torch.fft.fftfreq(width))
    amplitude = 1 / frequency.clamp(min=1 / max(height, width))
    pink: Tensor = torch.fft.ifft2(torch.fft.fft2(white) * amplitude / amplitude.square().mean().sqrt()).real
    return pink


def _stepped(network: nn.Module, x: Tensor, steps: int) -> Tensor:
    x = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            statistics_loss(network, x).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return x.detach()
