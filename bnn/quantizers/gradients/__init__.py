"""Quantizers of gradients, one method a file."""

from bnn.quantizers.gradients.base import GradientQuantizer, quantize_gradient
from bnn.quantizers.gradients.int8 import Int8Gradient
from bnn.quantizers.gradients.integer import IntegerGradient
from bnn.quantizers.gradients.lognormal_pruning import LognormalPruning
from bnn.quantizers.gradients.power_of_two import PowerOfTwoGradient
from bnn.quantizers.gradients.sign import SignGradient

__all__ = [
    "GradientQuantizer",
    "Int8Gradient",
    "IntegerGradient",
    "LognormalPruning",
    "PowerOfTwoGradient",
    "SignGradient",
    "quantize_gradient",
]
