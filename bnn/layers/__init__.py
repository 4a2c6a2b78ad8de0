"""Layers of binary networks. Batch norm, max-pool, Hardtanh and PReLU are torch's own and take bits as they come."""

from bnn.layers.activation import RPReLU
from bnn.layers.base import BinaryLayer
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.norm import L1BatchNorm

__all__ = ["BinaryConv2d", "BinaryLayer", "BinaryLinear", "L1BatchNorm", "RPReLU"]
