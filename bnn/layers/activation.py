"""Activations that binary networks add to torch's `Hardtanh` and `PReLU`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RPReLU(nn.Module):
    """y = PReLU(x - gamma; slope) + zeta, with gamma, slope and zeta trained for each channel.

    Source: Liu et al. 2020 (ReActNet), arXiv 2003.03488, eq. 8.

    Args:
        num_features: channels.
        slope: start value of the slope below gamma.
    """

    def __init__(self, num_features: int, *, slope: float = 0.25) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(num_features))
        self.slope = nn.Parameter(torch.full((num_features,), slope))
        self.num_features = num_features
        self.zeta = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same shape."""
        channels = (-1, *(1 for _ in x.shape[2:]))
        return F.prelu(x - self.gamma.view(channels), self.slope) + self.zeta.view(channels)
