"""Grids of few levels for the weights of a trained layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bnn.quantizers.real import gaussian_clip, laplace_clip

# Li et al. 2016, arXiv 1605.04711: half of the step below which a weight becomes 0.
_TERNARY_THRESHOLD = 0.7


@dataclass(frozen=True)
class Grid:
    """Whole numbers at equal distances around 0; a weight is one of them times the scale of its output channel."""

    width: str
    """1, ternary, 2, 3, 4 or 8: the bits of a weight, or its three levels."""
    levels: int
    """How many there are."""

    @property
    def gap(self) -> int:
        """Distance of two levels: 2 where their number is even, so that they lie evenly about 0, which is none."""
        return 2 if self.levels % 2 == 0 else 1

    @property
    def largest(self) -> int:
        """The largest level; the smallest is its negative."""
        return (self.levels - 1) * self.gap // 2

    def nearest(self, x: Tensor) -> Tensor:
        """The level that is nearest to each value, in the dtype and shape of `x`."""
        steps = ((x + self.largest) / self.gap).round().clamp(0, self.levels - 1)
        return steps * self.gap - self.largest

    def scale(self, weight: Tensor) -> Tensor:
        """The scale of each output channel to begin with, [out], above 0.

        At 1 bit it is the mean magnitude, and of three levels that of the weights beyond the threshold of ternary
        weight networks. For others the channel is clipped at the best of ACIQ's two clips and its own range.

        Args:
            weight: float32 [out, ...].
        """
        rows = weight.flatten(1)
        if self.levels == 2:
            scale = rows.abs().mean(1)
        elif self.levels == 3:
            size = rows.abs()
            kept = size > _TERNARY_THRESHOLD * size.mean(1, keepdim=True)
            scale = (size * kept).sum(1) / kept.sum(1).clamp(min=1)
        else:
            scale = self._best_clip(rows) / self.levels
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    def _best_clip(self, rows: Tensor) -> Tensor:
        bits = self.levels.bit_length() - 1
        mean_size, deviation = rows.abs().mean(1), rows.std(1, correction=0)
        range_ = rows.abs().amax(1) * self.levels / self.largest
        clips = torch.stack([mean_size * laplace_clip(bits), deviation * gaussian_clip(bits), range_])
        errors = torch.stack([self._errors(rows, clip / self.levels) for clip in clips])
        return clips.gather(0, errors.argmin(0, keepdim=True))[0]

    def _errors(self, rows: Tensor, scale: Tensor) -> Tensor:
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]
        return (self.nearest(rows / scale) * scale - rows).square().mean(1)


GRIDS = (Grid("1", 2), Grid("ternary", 3), Grid("2", 4), Grid("3", 8), Grid("4", 16), Grid("8", 256))
"""By rising number of levels."""
