"""Quantizers, one method a file: what becomes of a real value, and of the gradient that comes back."""

from bnn.quantizers.approx_sign import ApproxSign
from bnn.quantizers.base import Quantizer
from bnn.quantizers.dorefa import DoReFa
from bnn.quantizers.recu import ReCU
from bnn.quantizers.scaled_sign import ScaledSign
from bnn.quantizers.sign import Sign
from bnn.quantizers.ternary import Ternary

__all__ = ["ApproxSign", "DoReFa", "Quantizer", "ReCU", "ScaledSign", "Sign", "Ternary"]
