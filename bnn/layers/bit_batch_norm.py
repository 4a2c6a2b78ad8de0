"""The batch norm of binary networks where no sign follows, whose backward needs bits and per-channel constants only."""

from typing import Any

import torch
from torch import Tensor

from bnn.layers.binary_norm import BinaryNorm
from bnn.layers.norm import channel_layout, expected_between

_bnn = torch.ops.bnn


class BitBatchNorm(BinaryNorm):
    """x = (y - mean) / (psi + eps) + beta, for each channel: `BinaryNorm` without its sign.

    For what is added to a shortcut before its sign is taken. psi = sqrt(pi/2) mean|y - mean|. Backward keeps one bit of
    sign(x) and psi of each channel; where the exact gradient has x - beta it takes what a standard normal value is on
    average, given the sign. After Wang et al., arXiv 2102.04270, sec. 5; see `BinaryNorm`.

    Args:
        num_features: channels.
        eps: added to psi.
        momentum: weight of a new batch in the running statistics.
    """

    def normalised(self, y: Tensor) -> Tensor:
        """x, by the statistics of the batch in training and the running ones else."""
        if self.training:
            x, mean, deviation = _BitNorm.apply(y, self.bias, self.eps)  # type: ignore[no-untyped-call]
            self.track(mean, deviation)
            return x  # type: ignore[no-any-return]
        channels, _ = channel_layout(y)
        deviation = self.running_deviation + self.eps
        return (y - self.running_mean.view(channels)) / deviation.view(channels) + self.bias.view(channels)

    def kept_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Elements, and bits of each: the sign."""
        return output.numel(), 1


class _BitNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        bits, _, mean, deviation = _bnn.norm_sign(y, bias, eps)
        channels, _ = channel_layout(y)
        psi = deviation + eps
        ctx.save_for_backward(bits, psi, bias)
        ctx.mark_non_differentiable(mean, deviation)
        x = (y - mean.view(channels)).div_(psi.view(channels)).add_(bias.view(channels))
        return x, mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        bits, psi, bias = ctx.saved_tensors
        by_sign = expected_between(-bias[None]).repeat_interleave(2, dim=0)
        everywhere = torch.full_like(bits, 0xFF)
        return *_bnn.norm_sign_backward(grads[0], bits, everywhere, psi, by_sign), None
