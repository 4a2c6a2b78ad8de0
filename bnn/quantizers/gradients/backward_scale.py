"""A factor for the gradient that goes on to the layer before."""

import math

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude


class BackwardScale(GradientQuantizer):
    """q(g) = factor g in the product for the input's gradient, and g itself in that for the weight's.

    Sums of ±1 times a gradient grow by the root of their number from layer to layer. Where nothing else holds them, as
    without batch norm, B+LD takes the factor of `backward_factor`. Nothing is rounded. Source: Nguyen et al. 2024
    (Boolean logic deep learning), arXiv 2405.16339, appendix C.2.

    Args:
        factor: above 0.
        generator: not used.

    Raises:
        ValueError: the factor is out of its range.
    """

    storage_bits = 32

    def __init__(self, *, factor: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=None)
        if not 0 < factor < math.inf:
            raise ValueError(f"the factor of a gradient is above 0 and finite, got {factor}")
        self.factor = factor

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient times the factor."""
        largest_magnitude(gradient)
        return gradient * self.factor

    def for_weight(self, gradient: Tensor) -> Tensor:
        """The gradient as it is."""
        largest_magnitude(gradient)
        return gradient

    def extra_repr(self) -> str:  # noqa: D102
        return f"factor={self.factor}"


def backward_factor(weight_shape: tuple[int, ...], *, strides: int = 1, pools: bool = False) -> float:
    """sqrt(2 / out) of a linear layer, sqrt(2 strides / (out kh kw)) of a convolution; twice that in front of pooling.

    Args:
        weight_shape: [out, in] or [out, in, kh, kw].
        strides: product of the convolution's strides.
        pools: whether a max-pooling of 2x2 follows.
    """
    terms = weight_shape[0] * math.prod(weight_shape[2:])
    return (2 if pools else 1) * math.sqrt(2 * strides / terms)
