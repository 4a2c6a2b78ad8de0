"""The batch norm with its sign, whose backward pass needs bits and constants of each channel only."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers.deviation_norm import DeviationNorm, channel_layout
from bnn.ops import functions as _bnn


class BinaryNorm(DeviationNorm):
    """sign(x) of the l1 batch norm x = (y - mean) / (d + eps) + beta, for each channel.

    d = sqrt(pi/2) mean|y - mean|. It is the batch norm that Wang et al. propose for binary networks (arXiv
    2102.04270, sec. 5), fused with the sign that follows it, and changed in two ways. Backward keeps one bit of
    sign(x), which is the activation itself, one bit of the straight-through window |x| <= 1, and d + eps of each
    channel. With v = g [|x| <= 1] / (d + eps) it returns

        dL/dy = v - mean(v) - mean(v q) q     and     dL/dbeta = sum(g [|x| <= 1]),

    where q is the mean of a standard normal variable z = x - beta, given the two bits of x.

    The authors use omega sign(x) for q, with omega = mean|x|; there, x includes beta. After some epochs beta is far
    from 0, and that is no longer close to z. They also have no factor in d: with sqrt(pi/2) (Hoffer et al. 2018, arXiv
    1803.01814) d is the standard deviation of normal values, and the window passes 68 % of them instead of 58 %. There
    is no gamma, which would not change the sign.

    Args:
        num_features: channels.
        eps: added to d.
        momentum: weight of a new batch in the running statistics.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, y: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the `BitTensor` of sign(x), of the same shape; two values a channel in training."""
        self.check(y)
        if self.training:
            bits, mean, deviation = _NormSign.apply(y, self.bias, self.eps)  # type: ignore[no-untyped-call]
            self.track(mean, deviation)
            return bits  # type: ignore[no-any-return]
        channels, _ = channel_layout(y)
        threshold = self.running_mean - self.bias * (self.running_deviation + self.eps)
        return BitTensor.from_dense(y - threshold.view(channels))

    def saved_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Elements, and bits of each: the sign, and whether it lies in the straight-through window."""
        return output.numel(), 2


def conditional_means(bias: Tensor) -> Tensor:
    """Means of a standard normal z, [4, C], for z + bias in (-inf, -1), (-1, 0), (0, 1) and (1, inf)."""
    return truncated_normal_means(torch.stack((-1 - bias, -bias, 1 - bias)))


def truncated_normal_means(edges: Tensor) -> Tensor:
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


class _NormSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        bits, inside, mean, deviation = _bnn.norm_sign(y, bias, eps)
        ctx.save_for_backward(bits, inside, deviation + eps, bias)
        ctx.mark_non_differentiable(mean, deviation)
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, y.dtype), mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        bits, inside, denominator, bias = ctx.saved_tensors
        return *_bnn.norm_sign_backward(grads[0], bits, inside, denominator, conditional_means(bias)), None
