from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d
from bnn.quantizers import ScaledSign, Sign
from bnn.weights import LatentStore
from tests.contracts import STESign, saved_bytes

WINDOWS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 4},
    {"kernel_size": 1},
    {"kernel_size": 5, "padding": 2, "groups": 2},
]


def emulated(layer: BinaryConv2d, x: torch.Tensor, *, binary_input: bool = True, analytic: bool = False):
    """The layer's formula in plain float torch."""
    w = layer.store.weight
    x = x.contiguous(memory_format=torch.channels_last)
    x = STESign.apply(x) if binary_input else x
    y = F.conv2d(x, STESign.apply(w), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    if analytic:
        y = y * w.abs().flatten(1).mean(1).view(-1, 1, 1)
    if layer.learned_scale is not None:
        y = y * layer.learned_scale.view(-1, 1, 1)
    return y if layer.bias is None else y + layer.bias.view(-1, 1, 1)


def randomized(layer: BinaryConv2d) -> BinaryConv2d:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def assert_same_training(layer, x, expected_output) -> None:
    """Output and every gradient equal those of `expected_output(x)`, which uses the same parameters."""
    results = []
    for forward in (layer, expected_output):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = forward(leaf)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
        results.append([y.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    "options", [{}, {"learned_scale": True}, {"bias": True}, {"learned_scale": True, "bias": True}]
)
def test_equals_its_formula(window, options, generator):
    layer = randomized(BinaryConv2d(4, 6, **window, **options))
    x = torch.randn((2, 4, 7, 6), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x))


def test_analytic_scale(generator):
    store = partial(LatentStore, quantizer=ScaledSign())
    layer = randomized(BinaryConv2d(4, 6, 3, padding=1, store=store, bias=True))
    x = torch.randn((2, 4, 7, 6), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x, analytic=True))


@pytest.mark.parametrize("groups", [1, 2])
def test_real_input(groups, generator):
    layer = randomized(BinaryConv2d(4, 6, 3, padding=1, groups=groups, input_quantizer=None))
    x = torch.randn((2, 4, 7, 6), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x, binary_input=False))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_output_is_channels_last(memory_format, generator):
    x = torch.randn((2, 4, 7, 6), generator=generator).contiguous(memory_format=memory_format)
    assert BinaryConv2d(4, 6, 3, bias=True)(x).is_contiguous(memory_format=torch.channels_last)


def test_padding_adds_nothing():
    layer = BinaryConv2d(3, 1, 3, padding=1)
    nn.init.ones_(layer.store.weight)
    y = layer(torch.ones(1, 3, 4, 4))
    assert y[0, 0].tolist() == [[12, 18, 18, 12], [18, 27, 27, 18], [18, 27, 27, 18], [12, 18, 18, 12]]


def test_keeps_bits_alone_for_backward(generator):
    layer = BinaryConv2d(32, 16, 3, padding=1, bias=True)
    x = torch.randn((4, 32, 6, 6), generator=generator).requires_grad_()
    with saved_bytes() as saved:
        layer(x)
    # Of each input and each weight its sign and whether it lies in the window.
    assert sum(saved.values()) == 2 * (x.numel() + layer.store.weight.numel()) / 8


def test_pooled_signs_between_layers_stay_bits(generator):
    second = BinaryConv2d(16, 16, 3, padding=1, input_quantizer=None)
    x = torch.randn((4, 16, 8, 8), generator=generator).requires_grad_()
    with saved_bytes() as saved:
        second(F.max_pool2d(Sign()(x), 2))
    window_and_pool, pooled, weight = 2 * x.numel(), x.numel() // 4, 2 * second.store.weight.numel()
    assert sum(saved.values()) == (window_and_pool + pooled + weight) / 8


def test_refuses_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="3 groups do not divide 4 inputs and 6 outputs"):
        BinaryConv2d(4, 6, 3, groups=3)


def test_refuses_an_input_of_other_channels():
    with pytest.raises((ValueError, RuntimeError), match=r"channels|does not fit"):
        BinaryConv2d(4, 6, 3)(torch.ones(1, 5, 6, 6))


def test_repr():
    layer = BinaryConv2d(4, 6, 3, stride=2, padding=1, groups=2)
    assert "4, 6, 3, stride=2, padding=1, dilation=1, groups=2" in repr(layer)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 3}, {"kernel_size": 5, "dilation": 3}, {"kernel_size": 2, "dilation": 2}]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_torch_s_names(options, padding, generator):
    x = torch.randn((2, 3, 16, 16), generator=generator)
    layer = BinaryConv2d(3, 4, padding=padding, **options)
    expected = F.conv2d(STESign.apply(x), layer.store.read().dense(), padding=padding, dilation=layer.dilation)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2}])
def test_padding_that_cannot_be_the_same_on_each_side_is_one_line(options):
    with pytest.raises(ValueError, match=r"^padding 'same' takes a stride of 1 [^\n]+ give their number$"):
        BinaryConv2d(3, 4, padding="same", **options)


def test_one_image_is_a_batch_of_one(generator):
    x, layer = torch.randn((3, 6, 6), generator=generator), BinaryConv2d(3, 4, 3)
    assert torch.equal(layer(x), layer(x[None])[0])
    bits = Sign()(x)
    assert torch.equal(layer(bits), layer(x))
    with pytest.raises(ValueError, match=r"4D input \(got 3D input\)"):
        BinaryBlock(layer, nn.BatchNorm2d(4), recompute=True)(x)
