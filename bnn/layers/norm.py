"""Batch norm without squares and roots."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]
"""Makes a norm for a number of channels."""


class L1BatchNorm(nn.Module):
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

    running_mean: Tensor
    running_deviation: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_deviation", torch.ones(num_features))

    def forward(self, y: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the same shape; in training, at least two values a channel."""
        if y.shape[1] != self.running_mean.numel():
            raise ValueError(f"expected {self.running_mean.numel()} channels, got a tensor of {tuple(y.shape)}")
        channels, _ = channel_layout(y)
        if self.training:
            if y.numel() <= y.shape[1]:
                raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
            x, mean, deviation = _L1Norm.apply(y, self.eps)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_deviation.lerp_(deviation.to(self.running_deviation.dtype), self.momentum)
        else:
            x = (y - self.running_mean.view(channels)) / (self.running_deviation + self.eps).view(channels)
        if self.weight is not None and self.bias is not None:
            x = x * self.weight.view(channels) + self.bias.view(channels)
        return x  # type: ignore[no-any-return]

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.running_mean.numel()}, eps={self.eps}, momentum={self.momentum}"


def channel_layout(y: Tensor) -> tuple[tuple[int, ...], list[int]]:
    """The shape of one value a channel of [N, C, ...], and the dimensions over which a channel's statistics go."""
    return (1, -1, *(1 for _ in y.shape[2:])), [d for d in range(y.dim()) if d != 1]


def expected_between(edges: Tensor) -> Tensor:
    """Means of standard normal values between neighbouring edges, and beyond the outer ones.

    Args:
        edges: float [k, C], k ascending edges for each channel.

    Returns:
        [k + 1, C] of the same dtype; each within its edges.
    """
    inner = edges.double()
    outer = torch.full_like(inner[:1], torch.inf)
    low, high = torch.cat((-outer, inner)), torch.cat((inner, outer))
    density = torch.cat((torch.zeros_like(outer), inner.square().div_(-2).exp_().div_(math.sqrt(2 * math.pi))))
    density = torch.cat((density, torch.zeros_like(outer)))
    share = torch.special.ndtr(high) - torch.special.ndtr(low)
    # Far from 0 both vanish; then the nearer edge is close enough.
    means = ((density[:-1] - density[1:]) / share).nan_to_num(0.0)
    nearest: Tensor = means.clamp(low, high).to(edges.dtype)
    return nearest


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
        x, psi = ctx.saved_tensors
        channels, dims = channel_layout(x)
        v = grads[0] / psi.view(channels)
        projection = (v * x).mean(dims, keepdim=True)
        signs = x.sign()
        return v - v.mean(dims, keepdim=True) - projection * (signs - signs.mean(dims, keepdim=True)), None
