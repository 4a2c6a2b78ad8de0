"""Batch norm and sign in one, whose backward needs bits and per-channel constants only."""

from typing import Any

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers.norm import channel_layout, expected_between


class BinaryNorm(nn.Module):
    """sign(x) of the l1 batch norm x = (y - mean) / (psi + eps) + beta, for each channel.

    psi = sqrt(pi/2) mean|y - mean|. It is the batch norm that Wang et al. propose for binary networks (arXiv
    2102.04270, sec. 5), fused with the sign that follows it, and changed in two ways. Backward keeps one bit of
    sign(x), which is the activation itself, one bit of the straight-through window |x| <= 1, and psi of each channel.
    With v = g [|x| <= 1] / psi it returns

        dL/dy = v - mean(v) - mean(v q) q     and     dL/dbeta = sum(g [|x| <= 1]),

    where q is what a standard normal value z = x - beta has on average, given the two bits of x.

    The authors have omega sign(x) for q, with omega = mean|x| and beta in both. The farther beta is from 0, which it is
    after some epochs, the less that has to do with z. And they have no factor in psi; sqrt(pi/2) (Hoffer et al. 2018,
    arXiv 1803.01814) makes it the standard deviation of normal values, of which the window lets 68 instead of 58 %
    pass. There is no gamma: the sign would ignore it.

    Args:
        num_features: channels.
        eps: added to psi.
        momentum: weight of a new batch in the running statistics.
    """

    running_mean: Tensor
    running_deviation: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_deviation", torch.ones(num_features))

    def forward(self, y: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the `BitTensor` of sign(x), of the same shape; two values a channel in training."""
        if y.shape[1] != self.bias.numel():
            raise ValueError(f"expected {self.bias.numel()} channels, got a tensor of {tuple(y.shape)}")
        if self.training and y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
        return self.normalised(y)

    def normalised(self, y: Tensor) -> Tensor:
        """sign(x), by the statistics of the batch in training and the running ones else."""
        if self.training:
            bits, mean, deviation = _NormSign.apply(y, self.bias, self.eps)  # type: ignore[no-untyped-call]
            self.track(mean, deviation)
            return bits  # type: ignore[no-any-return]
        channels, _ = channel_layout(y)
        threshold = self.running_mean - self.bias * (self.running_deviation + self.eps)
        return BitTensor.from_dense(y - threshold.view(channels))

    def track(self, mean: Tensor, deviation: Tensor) -> None:
        """Takes the statistics of a batch, [C] each, into the running ones."""
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_deviation.lerp_(deviation.to(self.running_deviation.dtype), self.momentum)

    def kept_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Elements, and bits of each: the sign, and whether it lies in the straight-through window."""
        return output.numel(), 2

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.bias.numel()}, eps={self.eps}, momentum={self.momentum}"


def levels(bias: Tensor) -> Tensor:
    """Means of z, [4, C], where z + bias is below -1, from there to 0, up to 1, and above; z is standard normal."""
    return expected_between(torch.stack((-1 - bias, -bias, 1 - bias)))


class _NormSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        bits, inside, mean, deviation = torch.ops.bnn.norm_sign(y, bias, eps)
        ctx.save_for_backward(bits, inside, deviation + eps, bias)
        ctx.mark_non_differentiable(mean, deviation)
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, y.dtype), mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        bits, inside, psi, bias = ctx.saved_tensors
        return *torch.ops.bnn.norm_sign_backward(grads[0], bits, inside, psi, levels(bias)), None
