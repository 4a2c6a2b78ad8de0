"""Layers of binary networks. Batch norm, Hardtanh and PReLU are torch's own and accept a `BitTensor`."""

from collections.abc import Callable

from torch import nn

from bnn.layers.activation import RPReLU
from bnn.layers.base import BinaryLayer
from bnn.layers.binary_norm import BinaryNorm
from bnn.layers.block import BinaryBlock
from bnn.layers.blur import BlurPool2d
from bnn.layers.conv import BinaryConv2d
from bnn.layers.graph import Graph
from bnn.layers.hadamard_classifier import HadamardClassifier
from bnn.layers.half_turn import HalfTurn
from bnn.layers.l1_batch_norm import L1BatchNorm
from bnn.layers.linear import BinaryLinear
from bnn.layers.offset_batch_norm import OffsetBatchNorm
from bnn.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bnn.layers.range_batch_norm import RangeBatchNorm
from bnn.layers.top_k_batch_norm import TopKBatchNorm

NormFactory = Callable[[int], nn.Module]
"""Makes a norm for a number of channels."""

__all__ = [
    "AvgPool2d",
    "BinaryBlock",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "BinaryNorm",
    "BlurPool2d",
    "GlobalAvgPool2d",
    "Graph",
    "HadamardClassifier",
    "HalfTurn",
    "L1BatchNorm",
    "MaxPool2d",
    "NormFactory",
    "OffsetBatchNorm",
    "RPReLU",
    "RangeBatchNorm",
    "TopKBatchNorm",
]
