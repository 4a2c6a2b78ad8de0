"""Levels for the weight of one layer, calibrated on what the layer sees.

Source: AdaQuant, Hubara et al. 2020, arXiv 2006.10518: of each layer by itself, levels, scales and bias minimise
|W x + b - (Q x + b')|^2 over some examples. The paper steps relaxed levels by Adam. The error is quadratic in them, by
the moments of x, and is made smaller here level by level: each step is exact, so that the error never rises, and there
is no rate to choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops.geometry import Window
from bnn.posttraining.grids import Grid

SWEEPS = 10
_BLOCK = 64
# Part of the mean second moment that is added to each input's, as if there were noise: few examples say little.
_DAMPING = 0.01


@dataclass(frozen=True)
class Calibrated:
    """The weight of a layer in few levels."""

    levels: Tensor
    """Whole numbers, float32, of the weight's shape."""
    scale: Tensor
    """Of each output channel, float32 [out]."""
    bias: Tensor | None
    """Of each output channel, [out]."""

    @property
    def weight(self) -> Tensor:
        """As it multiplies."""
        return self.levels * _rows(self.scale, self.levels)


class Moments:
    """Means and second moments of what a layer multiplies with its weight, added up over batches.

    Args:
        weight_shape: of the layer.
        window: of a convolution, or None.
    """

    def __init__(self, weight_shape: torch.Size, window: Window | None) -> None:
        self._window, self._kernel = window, weight_shape[2:]
        self.groups = 1 if window is None else window.groups
        size = weight_shape[1:].numel()
        self._sums = torch.zeros(self.groups, size, dtype=torch.float64)
        self._squares = torch.zeros(self.groups, size, size, dtype=torch.float64)
        self.rows = 0

    def add(self, x: Tensor, *, most_rows: int) -> None:
        """Adds a batch: float32 [n, in] or [n, in, H, W], of convolutions some of its places.

        Args:
            x: see `bnn.posttraining.products.operand`.
            most_rows: of the batch, or places in its images, to take.
        """
        if self._window is None:
            rows = x.flatten(0, -2)[None]
        else:
            stride, padding, dilation, groups = self._window.for_torch
            patches = F.unfold(x, self._kernel, dilation, padding, stride)
            n, size, places = patches.shape
            rows = patches.reshape(n, groups, size // groups, places).permute(1, 0, 3, 2).flatten(1, 2)
        rows = rows[:, :: max(1, -(-rows.shape[1] // most_rows))]
        self._sums += rows.sum(1).double()
        self._squares += (rows.transpose(1, 2) @ rows).double()
        self.rows += rows.shape[1]

    def mean(self) -> Tensor:
        """[groups, K]."""
        return (self._sums / self.rows).float()

    def second(self, *, about_mean: bool) -> Tensor:
        """Second moments, [groups, K, K], those about the mean if the layer has a bias that takes care of it."""
        found = self._squares / self.rows
        if about_mean:
            mean = self._sums / self.rows
            found = found - mean[:, :, None] * mean[:, None, :]
        noise = _DAMPING * found.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        found.diagonal(dim1=1, dim2=2).add_(noise[:, None])
        return found.float()


def nearest(weight: Tensor, bias: Tensor | None, grid: Grid) -> Calibrated:
    """The nearest levels under the scales of `Grid.scale`; no example is needed.

    Args:
        weight: float32 [out, ...], scales included.
        bias: [out], or None for none.
        grid: of the levels.
    """
    scale = grid.scale(weight)
    return Calibrated(grid.nearest(weight / _rows(scale, weight)), scale, bias)


def adaquant(weight: Tensor, bias: Tensor | None, grid: Grid, moments: Moments, *, sweeps: int = SWEEPS) -> Calibrated:
    """Levels, scales and bias by which a layer gives most nearly what it gave.

    It begins with the nearest levels. A sweep takes each weight of a row to its best level with the others as they
    are, then the scale of the row to its best.

    Args:
        weight: float32 [out, in] or [out, in / groups, k, k], scales included.
        bias: [out], or None for none.
        grid: of the levels.
        moments: of what the layer multiplied with its weight.
        sweeps: at most; it ends where no level changes.
    """
    start = nearest(weight, bias, grid)
    second = moments.second(about_mean=bias is not None)
    of_groups = zip(
        weight.flatten(1).chunk(moments.groups),
        start.levels.flatten(1).chunk(moments.groups),
        start.scale.chunk(moments.groups),
        second,
        strict=True,
    )
    made = [_swept(rows, levels, scale, h, grid, sweeps) for rows, levels, scale, h in of_groups]
    levels, scale = (torch.cat(parts) for parts in zip(*made, strict=True))
    found = Calibrated(levels.view_as(weight), scale, None)
    if bias is None:
        return found
    missing = (weight - found.weight).reshape(moments.groups, len(weight) // moments.groups, -1)
    shift = (missing @ moments.mean()[:, :, None]).flatten()
    return Calibrated(found.levels, found.scale, bias + shift)


def _swept(
    weight: Tensor, levels: Tensor, scale: Tensor, second: Tensor, grid: Grid, sweeps: int
) -> tuple[Tensor, Tensor]:
    """Levels, [out, K], and scales, [out], of one group: see `adaquant`."""
    levels, diagonal = levels.clone(), second.diagonal()
    for _ in range(sweeps):
        before = levels.clone()
        for begin in range(0, levels.shape[1], _BLOCK):
            block = slice(begin, begin + _BLOCK)
            # Half the gradient of the error by each level of the block, over the scale.
            slopes = (levels * scale[:, None] - weight) @ second[:, block]
            inner = second[block, block]
            for k in range(slopes.shape[1]):
                column = levels[:, begin + k]
                best = grid.nearest(column - slopes[:, k] / (diagonal[begin + k] * scale))
                slopes += ((best - column) * scale)[:, None] * inner[k]
                levels[:, begin + k] = best
        scale = _best_scale(weight, levels, scale, second)
        if torch.equal(levels, before):
            break
    return levels, scale


def _best_scale(weight: Tensor, levels: Tensor, scale: Tensor, second: Tensor) -> Tensor:
    seen = levels @ second
    size, along = (seen * levels).sum(1), (seen * weight).sum(1)
    return torch.where((size > 0) & (along > 0), along / size.clamp(min=1e-30), scale)


def _rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))
