"""Layers of binary networks. Batch norm, Hardtanh and PReLU are torch's own and take bits as they come."""

from bnn.layers.activation import RPReLU
from bnn.layers.base import BinaryLayer
from bnn.layers.binary_norm import BinaryNorm
from bnn.layers.bit_batch_norm import BitBatchNorm
from bnn.layers.block import BinaryBlock, PartWidths, fuse
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.norm import L1BatchNorm, NormFactory
from bnn.layers.pool import MaxPool2d

__all__ = [
    "BinaryBlock",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "BinaryNorm",
    "BitBatchNorm",
    "L1BatchNorm",
    "MaxPool2d",
    "NormFactory",
    "PartWidths",
    "RPReLU",
    "fuse",
]
