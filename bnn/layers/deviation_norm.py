"""What the batch norms share that divide by another deviation than the root of the variance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class DeviationNorm(nn.Module):
    """Running mean and deviation of each channel, and the checks of what is normalised.

    Args:
        num_features: channels.
        eps: added to the deviation.
        momentum: weight of a new batch in the running statistics.
    """

    running_mean: Tensor
    running_deviation: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_deviation", torch.ones(num_features))

    def check(self, y: Tensor) -> None:
        """Refuses what cannot be normalised.

        Raises:
            ValueError: `y` has other channels or, in training, fewer than two values of each.
        """
        if y.dim() < 2 or y.shape[1] != self.running_mean.numel():
            channels = self.running_mean.numel()
            raise ValueError(f"expected a batch [N, {channels}, ...], got a tensor of {tuple(y.shape)}")
        if self.training and y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")

    def track(self, mean: Tensor, deviation: Tensor) -> None:
        """Takes the statistics of a batch, [C] each, into the running ones."""
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_deviation.lerp_(deviation.to(self.running_deviation.dtype), self.momentum)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.running_mean.numel()}, eps={self.eps}, momentum={self.momentum}"


class DeviationBatchNorm(DeviationNorm):
    """x = gamma (y - mean) / (d + eps) + beta for each channel; a subclass says what the deviation d of a batch is.

    The gradient is that of the formula; backward keeps x alone, and forms the deviation again.

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

    def deviation(self, centred: Tensor) -> Tensor:
        """Of values about their mean, [C, n], those of each channel: [C], differentiable."""
        raise NotImplementedError

    def forward(self, y: Tensor) -> Tensor:
        """[N, C] or [N, C, H, W] to the same shape; in training, at least two values a channel."""
        self.check(y)
        channels, _ = channel_layout(y)
        if self.training:
            x, mean, deviation = _Normalized.apply(y, self.eps, self.deviation)  # type: ignore[no-untyped-call]
            self.track(mean, deviation)
        else:
            x = (y - self.running_mean.view(channels)) / (self.running_deviation + self.eps).view(channels)
        if self.weight is not None and self.bias is not None:
            x = x * self.weight.view(channels) + self.bias.view(channels)
        return x  # type: ignore[no-any-return]


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, eps: float, deviation_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, dims = channel_layout(y)
        mean = y.mean(dims)
        x = y - mean.view(channels)
        deviation = deviation_of(_rows(x))
        x /= (deviation + eps).view(channels)
        ctx.save_for_backward(x, deviation + eps)
        ctx.deviation_of = deviation_of
        ctx.mark_non_differentiable(mean, deviation)
        return x, mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, denominator = ctx.saved_tensors
        channels, dims = channel_layout(x)
        v = grads[0] / denominator.view(channels)
        with torch.enable_grad():
            centred = (_rows(x) * denominator[:, None]).detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.deviation_of(centred).sum(), centred)
        of_centred = v - (v * x).sum(dims, keepdim=True) * _from_rows(slope, x)
        return of_centred - of_centred.mean(dims, keepdim=True), None, None


def _rows(x: Tensor) -> Tensor:
    """[N, C, ...] as [C, n]."""
    return x.movedim(1, 0).flatten(1)


def _from_rows(rows: Tensor, like: Tensor) -> Tensor:
    return rows.view(like.movedim(1, 0).shape).movedim(0, 1)


def channel_layout(y: Tensor) -> tuple[tuple[int, ...], list[int]]:
    """The shape of one value a channel of [N, C, ...], and the dimensions over which a channel's statistics go."""
    return (1, -1, *(1 for _ in y.shape[2:])), [d for d in range(y.dim()) if d != 1]
