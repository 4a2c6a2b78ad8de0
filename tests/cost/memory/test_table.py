"""The shapes that a memory model reads off a network."""

import pytest
import torch
from torch import nn

from bnn.cost.memory.table import LayerShape, MemoryTable, PoolShape, Variable, network_shape
from bnn.errors import RunError
from bnn.layers import BinaryConv2d, BinaryLinear, BinaryNorm, L1BatchNorm, MaxPool2d
from bnn.models import binarynet, cnv, mlp, resnete18


def shape_of(build, *input_shape):
    with torch.device("meta"):
        return network_shape(build(), input_shape)


@pytest.mark.parametrize(
    ("build", "input_shape", "inputs", "weights", "channels"),
    [
        (mlp, (1, 28, 28), 1_808, 399_872, 1_034),
        (cnv, (3, 32, 32), 98_432, 1_542_848, 1_930),
        (binarynet, (3, 32, 32), 291_840, 14_022_016, 3_850),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_published_sums_of_the_networks(build, input_shape, inputs, weights, channels):
    shape = shape_of(build, *input_shape)
    assert sum(layer.input_elements for layer in shape.layers) == inputs
    assert (shape.weights, shape.norm_channels, shape.outputs) == (weights, channels, 10)
    assert all(layer.binary for layer in shape.layers)


def test_pools_and_the_layers_before_them():
    assert sum(pool.input_elements for pool in shape_of(cnv, 3, 32, 32).pools) == 62_976
    assert sum(pool.layer_input_elements for pool in shape_of(cnv, 3, 32, 32).pools) == 76_032
    # In BinaryNet the convolution before a pooling keeps the width.
    pools = shape_of(binarynet, 3, 32, 32).pools
    assert [pool.input_elements for pool in pools] == [pool.layer_input_elements for pool in pools]
    assert sum(pool.input_elements for pool in pools) == 229_376


def test_shortcut_s_average_and_convolution_are_one_layer():
    shape = shape_of(resnete18, 3, 224, 224)
    assert shape.weights == 11_678_912
    assert sum(layer.weights for layer in shape.layers if layer.binary) == 10_985_472
    real = [layer.input_elements for layer in shape.layers if not layer.binary]
    assert real == [3 * 224**2, 64 * 56**2, 128 * 28**2, 256 * 14**2, 512]


def test_a_small_network_by_hand():
    model = nn.Sequential(
        MaxPool2d(2),
        BinaryConv2d(2, 3, 3, padding=1),
        nn.MaxPool2d(2),
        L1BatchNorm(3),
        nn.AvgPool2d(2),
        BinaryConv2d(3, 4, 1),
        BinaryNorm(4),
        nn.Flatten(),
        BinaryLinear(4, 5),
        nn.Linear(5, 6),
        nn.BatchNorm1d(6),
    )
    shape = network_shape(model, (2, 8, 8))
    # An average before a binary layer is no part of it: the sign stands between them.
    assert shape.layers == (
        LayerShape(2 * 16, 2 * 3 * 9, True),
        LayerShape(3, 12, True),
        LayerShape(4, 20, True),
        LayerShape(5, 30, False),
    )
    assert shape.pools == (PoolShape(2 * 64, 0), PoolShape(3 * 16, 2 * 16))
    assert (shape.outputs, shape.norm_channels, shape.weights) == (6, 3 + 4 + 6, 116)


def test_sizes_of_variables():
    table = MemoryTable(
        (Variable("a", "always", 12, 1), Variable("b", "to backward", 3, 16), Variable("c", "always", 9, 0))
    )
    assert [variable.bytes for variable in table.variables] == [1.5, 6, 0]
    assert table.total_bytes == 7.5


class Peeks(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (nn.Sequential(nn.Flatten(), Peeks(), nn.Linear(4, 1)), ["1 (Peeks)", "1x2x2", "not values"]),
        (nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU(), nn.Linear(5, 1))), ["1.1 (Linear)", "check the input"]),
        (Peeks(), ["the network (Peeks)"]),
        (nn.ReLU(), ["no binary, linear or convolutional layer"]),
    ],
)
def test_failures_name_the_module_and_leave_no_hooks(model, parts):
    with pytest.raises(RunError) as caught:
        network_shape(model, (1, 2, 2))
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
