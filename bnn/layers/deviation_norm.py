"""`DeviationNorm`: what the batch norms by mean absolute deviation share."""

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


def channel_layout(y: Tensor) -> tuple[tuple[int, ...], list[int]]:
    """The shape of one value a channel of [N, C, ...], and the dimensions over which a channel's statistics go."""
    return (1, -1, *(1 for _ in y.shape[2:])), [d for d in range(y.dim()) if d != 1]
