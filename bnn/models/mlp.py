"""The binary multilayer perceptron."""

import math
from itertools import pairwise

from torch import nn

from bnn.layers import BinaryBlock, BinaryLinear, NormFactory
from bnn.quantizers import Sign
from bnn.weights import StoreFactory


def mlp(
    *,
    input_shape: tuple[int, ...] = (1, 28, 28),
    classes: int = 10,
    hidden: tuple[int, ...] = (256, 256, 256, 256),
    store: StoreFactory | None = None,
    norm: NormFactory | None = None,
) -> nn.Sequential:
    """784-256x4-10 with binary weights in every layer: linear, batch norm, sign; a batch norm before softmax.

    399,872 weights at the defaults. The first layer takes the real input. Source: Wang et al., arXiv 2102.04270.

    Args:
        input_shape: (C, H, W) of the images.
        classes: outputs.
        hidden: widths of the hidden layers.
        store: makes the weights' stores; by default `bnn.weights.default_store`'s.
        norm: makes the norms before a sign, such as `BinaryNorm`; by default torch's batch norm.
    """
    if min(hidden, default=1) < 1:
        raise ValueError(f"a hidden layer has at least 1 unit, got widths {hidden}")
    widths = (math.prod(input_shape), *hidden, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = BinaryLinear(inputs, outputs, store=store)
        if i == 0:
            linear.input_quantizer = None
        last = i == len(hidden)
        of_outputs = nn.BatchNorm1d(outputs) if last or norm is None else norm(outputs)
        layers.append(BinaryBlock(linear, of_outputs, activation=None if last else Sign()))
    return nn.Sequential(*layers)
