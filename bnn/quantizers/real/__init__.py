"""Few bits for what stays real: first and last layers, kept activations, optimizer state. Clips, scales and grids."""

from bnn.quantizers.real.aciq import (
    bits_of_channels,
    corrected,
    gaussian_clip,
    gaussian_error,
    laplace_clip,
    laplace_error,
)
from bnn.quantizers.real.exponential import exponential_grid
from bnn.quantizers.real.power_of_two import LearnedPowerOfTwoScale, PowerOfTwoScale, best_exponent
from bnn.quantizers.real.uniform import clipped, rounded

__all__ = [
    "LearnedPowerOfTwoScale",
    "PowerOfTwoScale",
    "best_exponent",
    "bits_of_channels",
    "clipped",
    "corrected",
    "exponential_grid",
    "gaussian_clip",
    "gaussian_error",
    "laplace_clip",
    "laplace_error",
    "rounded",
]
