"""Gradients that are floats of 6 or 8 bits."""

import math

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude
from bnn.random.rounding import round_to_integers_

_LEAST_SHIFT = -120  # beyond, its inverse is no float32
# Widths of exponent and mantissa, each up to a standard deviation of log2|g| in octaves.
_FORMATS = {8: ((3.7, (4, 3)), (math.inf, (5, 2))), 6: ((2.0, (3, 2)), (math.inf, (4, 1)))}


class FloatGradient(GradientQuantizer):
    """q(g) = s f(g / s), with f a rounding to a float of few bits, and s = 2^round(mean log2|g|) for the whole tensor.

    The width of the exponent follows from how far |g| is spread, by a lognormal fit: with the standard deviation of
    log2|g| up to 3.7 octaves E4M3, above it E5M2; of 6 bits up to 2 octaves E3M2, above it E4M1 (Chmiel et al. 2021,
    arXiv 2006.08173, sec. 4, and the table of their public code, which goes from 1.4 to 8.1 and from 0.9 to 4.9; what
    lies outside takes the nearer format). All codes are numbers, and the smallest have no leading one. Where the
    largest element would not fit, s is larger than theirs: the largest elements carry most of the sum.

    Args:
        bits: 8 or 6.
        generator: of the rounding, which is then stochastic, and E[q(g)] = g; without it, to the nearest.

    Raises:
        ValueError: there is no such width.
    """

    def __init__(self, *, bits: int = 8, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        if bits not in _FORMATS:
            raise ValueError(f"a float gradient has 6 or 8 bits, got {bits}")
        self.bits = self.storage_bits = bits

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient in the format that fits it. In float16, what is below 2^-24 becomes 0."""
        largest = largest_magnitude(gradient)
        if largest == 0:
            return gradient.clone()
        values = gradient.float()
        logarithm = values.abs()
        logarithm = logarithm[logarithm > 0].log2()
        exponent_bits, mantissa_bits = float_format(self.bits, float(logarithm.std(correction=0)))
        top = largest_float(exponent_bits, mantissa_bits)
        shift = max(round(float(logarithm.mean())), math.ceil(math.log2(largest / top)), _LEAST_SHIFT)
        scaled = torch.ldexp(values, torch.tensor(-shift, device=values.device))
        # |x| = mantissa 2^exponent with the mantissa in [1/2, 1).
        _, exponent = torch.frexp(scaled)
        step = exponent.clamp_(min=2 - 2 ** (exponent_bits - 1) + 1) - 1 - mantissa_bits
        rounded = round_to_integers_(torch.ldexp(scaled, -step), self.generator)
        rounded = torch.ldexp(rounded, step).clamp_(-top, top)
        return torch.ldexp(rounded, torch.tensor(shift, device=values.device)).to(gradient.dtype)

    def extra_repr(self) -> str:  # noqa: D102
        return f"bits={self.bits}"


def float_format(bits: int, octaves: float) -> tuple[int, int]:
    """Widths of exponent and mantissa for a gradient whose log2|g| has this standard deviation.

    Args:
        bits: of the format, 6 or 8.
        octaves: at least 0.
    """
    return next(widths for most, widths in _FORMATS[bits] if octaves <= most)


def largest_float(exponent_bits: int, mantissa_bits: int) -> float:
    """The largest number of a format whose codes are all numbers; the exponent's bias is 2^(exponent_bits - 1) - 1."""
    return float((2 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1)))
