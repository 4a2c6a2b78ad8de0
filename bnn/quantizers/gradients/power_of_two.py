"""Gradients that are powers of two."""

import math

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude
from bnn.random.rounding import uniform_like

_MAX_EXPONENT = 8
_MIN_EXPONENT = -6


class PowerOfTwoGradient(GradientQuantizer):
    """q(g) = sign(g) 2^(e - b): a sign and an exponent of 4 bits, 5 together, and one bias b for the tensor.

    b = 8 - round(log2 max|g|), so that the largest element gets e = 8. The exponents are -6..8, fifteen octaves; the
    sixteenth code is 0. Source: Wang et al., arXiv 2102.04270, first version, for gradients of a layer's outputs;
    which code stands for 0 is this package's choice.

    Without a generator e = round(log2|g|) + b, to the nearest in the logarithm; what lies below 2^(-6.5 - b) becomes
    0. With a generator |g| goes to one of the two powers around it (or to 0 below the least one) and E[q(g)] = g; b is
    then 8 - ceil(log2 max|g|), so that the largest element can go up.

    Args:
        generator: of the rounding.
    """

    storage_bits = 5

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient in powers of two. In float16, those below 2^-24 become 0."""
        largest = largest_magnitude(gradient)
        if largest == 0:
            return gradient.clone()
        magnitude = gradient.float().abs()
        mantissa, exponent = torch.frexp(magnitude)  # |g| = mantissa 2^exponent, mantissa in [1/2, 1)
        if self.generator is None:
            top = round(math.log2(largest))
            exponent = exponent - (mantissa < math.sqrt(0.5)).int()
        else:
            top = math.ceil(math.log2(largest))
            exponent = exponent - 1 + (uniform_like(magnitude, self.generator) < 2 * mantissa - 1).int()
        least = top - (_MAX_EXPONENT - _MIN_EXPONENT)
        power = torch.ldexp(torch.ones_like(magnitude), exponent.clamp_(least, top))
        if self.generator is None:
            vanishes = magnitude < 2.0 ** (least - 0.5)
        else:
            below = uniform_like(magnitude, self.generator) * 2.0**least >= magnitude
            vanishes = (magnitude < 2.0**least) & below
        return torch.where(vanishes, 0.0, power).copysign_(gradient).to(gradient.dtype)
