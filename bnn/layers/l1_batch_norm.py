"""Batch norm without squares and roots."""

from typing import Any

import torch
from torch import Tensor, nn

from bnn.layers.deviation_norm import DeviationNorm, channel_layout


class L1BatchNorm(DeviationNorm):
    """x = gamma (y - mean) / (mean|y - mean| + eps) + beta, over a batch, for each channel.

    The mean absolute deviation replaces the standard deviation, which is 1.2533 times as large for normal values.
    The gradient is that of the formula; backward keeps x alone. Source: Wang et al., arXiv 2102.04270, sec. 4 (l1
    batch norm); Hoffer et al. 2018, arXiv 1803.01814.

    Args:
        num_features: channels.
        eps: added to the deviation.
        momentum: weight of a new batch in the running statistics.
        affine: whether gamma and beta are trained.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.affine = affine
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None

    def forward(self, y: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the same shape; in training, at least two values a channel."""
        self.check(y)
        channels, _ = channel_layout(y)
        if self.training:
            x, mean, deviation = _L1Norm.apply(y, self.eps)  # type: ignore[no-untyped-call]
            self.track(mean, deviation)
        else:
            x = (y - self.running_mean.view(channels)) / (self.running_deviation + self.eps).view(channels)
        if self.weight is not None and self.bias is not None:
            x = x * self.weight.view(channels) + self.bias.view(channels)
        return x  # type: ignore[no-any-return]


class _L1Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        channels, dims = channel_layout(y)
        mean = y.mean(dims)
        x = y - mean.view(channels)
        deviation = x.abs().mean(dims)
        x /= (deviation + eps).view(channels)
        ctx.save_for_backward(x, deviation + eps)
        ctx.mark_non_differentiable(mean, deviation)
        return x, mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, denominator = ctx.saved_tensors
        channels, dims = channel_layout(x)
        v = grads[0] / denominator.view(channels)
        projection = (v * x).mean(dims, keepdim=True)
        signs = x.sign()
        return v - v.mean(dims, keepdim=True) - projection * (signs - signs.mean(dims, keepdim=True)), None
