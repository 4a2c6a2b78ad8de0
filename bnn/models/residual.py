"""What the residual networks share."""

from torch import nn

from bnn.layers import BinaryNorm, BitBatchNorm, NormFactory


def residual_norm(norm: NormFactory | None) -> NormFactory:
    """The norm before a sum, whose result is real, for the one that a network is asked to take before its signs."""
    if norm is BinaryNorm:
        return BitBatchNorm
    return norm or nn.BatchNorm2d
