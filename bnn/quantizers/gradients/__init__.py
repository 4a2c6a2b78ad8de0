"""Quantizers of gradients, one method a file."""

from bnn.quantizers.gradients.backward_scale import BackwardScale
from bnn.quantizers.gradients.base import GradientQuantizer, quantize_gradient
from bnn.quantizers.gradients.bfloat16 import BFloat16Gradient
from bnn.quantizers.gradients.float_format import FloatGradient
from bnn.quantizers.gradients.int8 import Int8Gradient
from bnn.quantizers.gradients.integer import IntegerGradient
from bnn.quantizers.gradients.lognormal import LognormalFit, fit_lognormal
from bnn.quantizers.gradients.lognormal_pruning import LognormalPruning
from bnn.quantizers.gradients.power_of_two import PowerOfTwoGradient
from bnn.quantizers.gradients.sample_pruning import SamplePruning
from bnn.quantizers.gradients.sign import SignGradient

__all__ = [
    "BFloat16Gradient",
    "BackwardScale",
    "FloatGradient",
    "GradientQuantizer",
    "Int8Gradient",
    "IntegerGradient",
    "LognormalFit",
    "LognormalPruning",
    "PowerOfTwoGradient",
    "SamplePruning",
    "SignGradient",
    "fit_lognormal",
    "quantize_gradient",
]
