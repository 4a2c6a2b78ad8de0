from functools import partial

import pytest
import torch
import torch.nn.functional as F

from bnn.layers import BinaryLinear
from bnn.quantizers import ScaledSign, Sign
from bnn.weights import LatentStore
from tests.contracts import STESign, saved_bytes


def emulated(layer: BinaryLinear, x: torch.Tensor, *, binary_input: bool = True, analytic: bool = False):
    """The layer's formula in plain float torch."""
    w = layer.store.weight
    y = F.linear(STESign.apply(x) if binary_input else x, STESign.apply(w))
    if analytic:
        y = y * w.abs().mean(1)
    if layer.learned_scale is not None:
        y = y * layer.learned_scale
    return y if layer.bias is None else y + layer.bias


def randomized(layer: BinaryLinear) -> BinaryLinear:
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


@pytest.mark.parametrize("learned_scale", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("leading", [(6,), (), (2, 3), (5, 5)])
def test_equals_its_formula(learned_scale, bias, leading, generator):
    layer = randomized(BinaryLinear(37, 5, learned_scale=learned_scale, bias=bias))
    x = torch.randn((*leading, 37), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x))


def test_analytic_scale(generator):
    layer = randomized(BinaryLinear(37, 5, store=partial(LatentStore, quantizer=ScaledSign()), bias=True))
    x = torch.randn((6, 37), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x, analytic=True))


def test_real_input(generator):
    layer = randomized(BinaryLinear(37, 5, input_quantizer=None))
    x = torch.randn((6, 37), generator=generator)
    assert_same_training(layer, x, lambda x: emulated(layer, x, binary_input=False))


def test_output_of_the_bare_product_has_the_parity_of_the_input_width(generator):
    y = BinaryLinear(37, 5)(torch.randn((6, 37), generator=generator))
    assert ((y - 37) % 2 == 0).all()
    assert (y.abs() <= 37).all()


def test_two_layers_can_share_bits_of_one_input(generator):
    first, second = (randomized(BinaryLinear(16, 4, input_quantizer=None)) for _ in range(2))
    x = torch.randn((6, 16), generator=generator)
    bits = Sign()(x)
    assert torch.equal(first(bits) + second(bits), emulated(first, x) + emulated(second, x))


def test_keeps_bits_alone_for_backward(generator):
    layer = BinaryLinear(128, 16, bias=True)
    x = torch.randn((32, 128), generator=generator).requires_grad_()
    with saved_bytes() as saved:
        layer(x)
    # Of each input and each weight its sign and whether it lies in the window.
    assert sum(saved.values()) == 2 * (32 * 128 + 16 * 128) / 8


def test_start_values_of_scale_and_bias():
    layer = BinaryLinear(3, 2, learned_scale=True, bias=True)
    assert layer.learned_scale.tolist() == [1, 1]
    assert layer.bias.tolist() == [0, 0]
    assert BinaryLinear(3, 2).learned_scale is None
    assert BinaryLinear(3, 2).bias is None


def test_refuses_an_input_of_another_width():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        BinaryLinear(37, 5)(torch.ones(2, 38))


def test_repr():
    assert repr(BinaryLinear(37, 5)).startswith("BinaryLinear(\n  37, 5\n")
