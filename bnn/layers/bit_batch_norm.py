"""The batch norm of binary networks where no sign follows, whose backward needs bits and per-channel constants only."""

from typing import Any

import torch
from torch import Tensor

from bnn.layers.binary_norm import BinaryNorm
from bnn.layers.norm import channel_layout

_bnn = torch.ops.bnn


class BitBatchNorm(BinaryNorm):
    """x = (y - mean) / (psi + eps) + beta, for each channel: `BinaryNorm` without its sign.

    For what is added to a shortcut before its sign is taken. psi = sqrt(pi/2) mean|y - mean|. Backward keeps one bit of
    sign(x) and, per channel, psi and omega = mean|x|, and puts omega sign(x) where the exact gradient of the l1 norm
    has x. Source: Wang et al., arXiv 2102.04270, sec. 5.

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


class _BitNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        bits, _, mean, deviation, omega = _bnn.norm_sign(y, bias, eps)
        channels, _ = channel_layout(y)
        psi = deviation + eps
        ctx.save_for_backward(bits, psi, omega)
        ctx.mark_non_differentiable(mean, deviation)
        x = (y - mean.view(channels)).div_(psi.view(channels)).add_(bias.view(channels))
        return x, mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        bits, psi, omega = ctx.saved_tensors
        everywhere = torch.full_like(bits, 0xFF)
        return *_bnn.norm_sign_backward(grads[0], bits, everywhere, psi, omega), None
