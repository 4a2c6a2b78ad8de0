"""Gradients of 16 bits."""

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude


class BFloat16Gradient(GradientQuantizer):
    """q(g) = g, rounded to the nearest bfloat16 and kept as one.

    A product's kernels round each sum to it as they form it, so that no float32 of the weight's size exists.
    """

    storage_bits = 16
    dtype = torch.bfloat16

    def __init__(self) -> None:
        super().__init__()

    def forward(self, gradient: Tensor) -> Tensor:
        """A gradient of any floating dtype as bfloat16; itself, unchecked, where it is one: optimizers check it."""
        if gradient.dtype is not self.dtype:
            largest_magnitude(gradient)
        return gradient.to(self.dtype)
