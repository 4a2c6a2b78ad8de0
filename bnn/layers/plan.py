"""`Plan`: what the operations of a block ask of its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from bnn.ops.geometry import PoolWindow, Window
from bnn.ops.pooling import pooled_shape
from bnn.quantizers.base import SlopeSteps
from bnn.quantizers.gradients import GradientQuantizer

if TYPE_CHECKING:
    from bnn.layers.recomputed import Passes

_PASSES_ALL = (1.0,)
_PASSES_INSIDE = (1.0, 0.0)


class Plan(NamedTuple):
    """What the operations of a block ask of its parts."""

    window: Window | None
    """Of the convolution; None of a linear layer."""
    pool: PoolWindow | None
    rectifies: bool
    """Whether the norm takes max(0, product)."""
    norm: nn.BatchNorm2d
    clamp_range: tuple[float, float]
    """Of a real activation."""
    input_steps: SlopeSteps | None
    """Of the gradient of the product's input quantizer; None where there is none."""
    output_steps: SlopeSteps | None
    """Of the gradient of the activation; None where that is real."""
    grad_quantizer: GradientQuantizer | None
    """Of the gradient of a binary product."""
    weight_quantizer: GradientQuantizer | None
    """Of the gradient of a binary weight."""
    keeps_product: bool
    """Whether what enters the norm is kept for backward, in place of being formed again."""
    passes: Passes
    """Over the slice of the batch that goes through the block."""

    @property
    def clamps(self) -> bool:
        """Whether the activation is real and does something."""
        low, high = self.clamp_range
        return math.isfinite(low) or math.isfinite(high)

    @property
    def is_of_bits(self) -> bool:
        """Whether a product of bits, pooled or not, enters the norm of a whole slice."""
        return self.passes.are_of_whole_slices and self.grad_quantizer is not None and not self.rectifies

    def normed_shape(self, x_shape: torch.Size, weight_shape: Sequence[int]) -> torch.Size:
        """Shape of what enters the norm."""
        return _shape(x_shape, tuple(weight_shape), self.window, self.pool)

    @property
    def output_slopes(self) -> tuple[float, ...]:
        """The slope of each code of the block's output."""
        if self.output_steps is not None:
            return self.output_steps.slopes
        return _PASSES_INSIDE if self.clamps else _PASSES_ALL


def product_shape(x_shape: torch.Size, weight_shape: Sequence[int], window: Window | None) -> torch.Size:
    """Shape of a product, before its pooling."""
    return _shape(x_shape, tuple(weight_shape), window, None)


@lru_cache(maxsize=1024)  # blocks ask again at every step
def _shape(
    x_shape: torch.Size, weight_shape: tuple[int, ...], window: Window | None, pool: PoolWindow | None
) -> torch.Size:
    if window is None:
        return torch.Size((x_shape[0], weight_shape[0]))
    shape = window.output_shape(x_shape, weight_shape)
    return torch.Size(shape if pool is None else pooled_shape(shape, pool))
