"""Quantizers, one method a file: what becomes of a real value, and of the gradient that comes back."""

from bnn.quantizers.approx_sign import ApproxSign
from bnn.quantizers.base import Quantizer
from bnn.quantizers.bounded_sign import BoundedSign
from bnn.quantizers.dorefa import DoReFa
from bnn.quantizers.recu import ReCU
from bnn.quantizers.scaled_sign import ScaledSign
from bnn.quantizers.sign import Sign
from bnn.quantizers.tanh_sign import TanhSign
from bnn.quantizers.ternary import Ternary

__all__ = ["ApproxSign", "BoundedSign", "DoReFa", "Quantizer", "ReCU", "ScaledSign", "Sign", "TanhSign", "Ternary"]
