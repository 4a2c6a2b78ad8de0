"""A classifier without weights."""

import math

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers.linear import BinaryLinear
from bnn.weights.hadamard import HadamardStore


class HadamardClassifier(nn.Module):
    """logits = alpha H x / |x| + b, with H rows of a Hadamard matrix (`HadamardStore`); alpha and b alone are trained.

    Against a linear layer in float32 with Adam, 16 bytes are saved of each of its out x in weights: the weight, its
    gradient and two moments. Of an input of ±1 the product counts bits, and |x| is the root of its width. Source:
    Hoffer et al. 2018, arXiv 1801.04540; alpha begins at 1, which is a choice of this package.

    Args:
        in_features: width of the input.
        out_features: classes, fewer than the next power of two from `in_features` on.

    Raises:
        ValueError: there are more classes than rows.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.product = BinaryLinear(in_features, out_features, store=HadamardStore, input_quantizer=None)
        self.alpha = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] to [N, out_features]."""
        if isinstance(x, BitTensor):
            products = self.product(x) / math.sqrt(self.in_features)
        else:
            products = self.product(x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny))
        return self.alpha * products + self.bias  # type: ignore[no-any-return]
