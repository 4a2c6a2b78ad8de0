"""Levels for the weight of one layer, calibrated on what the layer sees (AdaQuant).

Source: Hubara et al. 2020, arXiv 2006.10518: of each layer by itself, V, the scales and the bias minimise
|W x + b - (Q(W + V) x + b')|^2 over some examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops.geometry import Window
from bnn.posttraining.grids import Grid
from bnn.posttraining.products import product

# Of Adam: in levels for the weights, relative for the scales, in deviations of the output for the bias.
_WEIGHT_RATE, _SCALE_RATE, _BIAS_RATE = 0.01, 3e-3, 3e-3
_BATCH = 64


@dataclass(frozen=True)
class Calibrated:
    """The weight of a layer in few levels."""

    levels: Tensor
    """Whole numbers, float32, of the weight's shape."""
    scale: Tensor
    """Of each output channel, float32 [out]."""
    bias: Tensor | None
    """Of each output channel, [out]."""


def nearest(weight: Tensor, bias: Tensor | None, grid: Grid) -> Calibrated:
    """The nearest levels under the scales of `Grid.scale`; no example is needed."""
    scale = grid.scale(weight)
    return Calibrated(grid.nearest(weight / _rows(scale, weight)), scale, bias)


def adaquant(
    weight: Tensor,
    bias: Tensor | None,
    grid: Grid,
    x: Tensor,
    *,
    window: Window | None,
    steps: int,
    generator: torch.Generator,
) -> Calibrated:
    """Levels, scales and bias by which a layer gives what it gave, as nearly as `steps` steps of Adam bring it.

    It begins with the nearest levels, and ends with them if nothing better was found.

    Args:
        weight: float32 [out, in] or [out, in / groups, k, k], scales included.
        bias: [out], or None for none.
        grid: of the levels.
        x: what the layer multiplied with its weight: float32 [n, in] or [n, in, H, W].
        window: of the convolution, or None.
        steps: of at most 64 examples each.
        generator: draws them.
    """
    start = nearest(weight, bias, grid)
    wanted = product(x, weight, bias, window)
    deviation = float(wanted.std()) or 1.0
    values = (weight / _rows(start.scale, weight)).clone().requires_grad_()
    log_scale = start.scale.log().requires_grad_()
    shift = None if bias is None else bias.detach().clone().requires_grad_()
    groups = [{"params": [values], "lr": _WEIGHT_RATE}, {"params": [log_scale], "lr": _SCALE_RATE}]
    if shift is not None:
        groups.append({"params": [shift], "lr": _BIAS_RATE * deviation})
    optimizer = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(x), (min(_BATCH, len(x)),), generator=generator)
            inside = values.clamp(-grid.largest, grid.largest)
            levels = inside + (grid.nearest(inside) - inside).detach()
            made = product(x[rows], levels * _rows(log_scale.exp(), weight), shift, window)
            optimizer.zero_grad()
            F.mse_loss(made, wanted[rows]).backward()
            optimizer.step()
            schedule.step()
    found = Calibrated(
        grid.nearest(values.detach()), log_scale.detach().exp(), None if shift is None else shift.detach()
    )
    return min((found, start), key=lambda tried: float(error(tried, x, wanted, window)))


def error(tried: Calibrated, x: Tensor, wanted: Tensor, window: Window | None) -> Tensor:
    """Mean squared difference of a layer's output, which is a scalar.

    Args:
        tried: the layer's weight.
        x: see `adaquant`.
        wanted: what the layer gave.
        window: of the convolution, or None.
    """
    weight = tried.levels * _rows(tried.scale, tried.levels)
    with torch.no_grad():
        return F.mse_loss(product(x, weight, tried.bias, window), wanted)


def _rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))
