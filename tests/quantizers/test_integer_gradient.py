"""Gradients of 2 to 8 bits."""

import pytest
import torch

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear
from bnn.quantizers import Sign
from bnn.quantizers.gradients import Int8Gradient, IntegerGradient
from tests.contracts import randn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_levels_are_those_of_the_width(bits, largest):
    quantizer = IntegerGradient(bits, generator=generator())
    gradient = randn(400, 500)
    q, scale = quantizer.integers(gradient)
    assert quantizer.storage_bits == quantizer.weight_bits == bits
    assert q.abs().max() == largest
    assert scale.item() == pytest.approx(gradient.abs().max().item() / largest)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_rounding_keeps_the_mean(bits):
    gradient = randn(7, 5)
    quantizer = IntegerGradient(bits, generator=generator())
    mean = torch.stack([quantizer(gradient) for _ in range(4000)]).mean(0)
    step = gradient.abs().max() / (2 ** (bits - 1) - 1)
    # The mean of 4000 draws has at most a standard deviation of step / 2 / sqrt(4000).
    assert (mean - gradient).abs().max() < 5 * step / 2 / 4000**0.5


def test_eight_bits_are_int8():
    gradient = randn(30, 4)
    expected = Int8Gradient(generator=generator()).integers(gradient)
    for got, value in zip(IntegerGradient(8, generator=generator()).integers(gradient), expected, strict=True):
        assert torch.equal(got, value)


@pytest.mark.parametrize(
    ("name", "width"), [("bits", 1), ("bits", 9), ("bits", 0), ("weight_bits", 1), ("weight_bits", 17)]
)
def test_other_widths_are_refused(name, width):
    message = {"bits": "gradient has 2 to 8 bits", "weight_bits": "gradient of the weight's product has 2 to 16 bits"}
    with pytest.raises(ValueError, match=f"^an integer {message[name]}, got {width}$"):
        IntegerGradient(**{"bits": 4} | {name: width})


def layer_and_input(cls, **options):
    if cls is BinaryLinear:
        return BinaryLinear(6, 4, **options), randn(5, 6), randn(5, 4, seed=1)
    return BinaryConv2d(6, 4, 3, stride=2, padding=1, **options), randn(3, 6, 5, 5), randn(3, 4, 3, 3, seed=1)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("cls", [BinaryLinear, BinaryConv2d])
def test_sixteen_bits_of_the_weight_s_product(cls, real):
    """Of 8 bits for the input's, the paper's: each product has torch's gradient of its own rounding of the output's."""
    options = {"input_quantizer": None} if real else {}
    layer, x, grad = layer_and_input(cls, grad_quantizer=IntegerGradient(8, weight_bits=16), **options)
    plain, _, _ = layer_and_input(cls, **options)
    plain.load_state_dict(layer.state_dict())
    x.requires_grad_()
    layer(x).backward(grad)
    for bits, of in ((8, "input"), (16, "weight")):
        other = x.detach().clone().requires_grad_()
        plain.zero_grad()
        plain(other).backward(
            IntegerGradient(bits)(grad) if bits == 8 else IntegerGradient(8, weight_bits=16).for_weight(grad)
        )
        mine, theirs = (x.grad, other.grad) if of == "input" else (layer.store.weight.grad, plain.store.weight.grad)
        torch.testing.assert_close(mine, theirs)
    exact = x.detach().clone().requires_grad_()
    plain.zero_grad()
    plain(exact).backward(grad)
    error = (layer.store.weight.grad - plain.store.weight.grad).norm() / plain.store.weight.grad.norm()
    assert 0 < error < 1e-4
    assert not IntegerGradient(8, weight_bits=16, generator=generator()).gives_integers


@pytest.mark.parametrize("recompute", [True, False])
def test_each_product_has_its_width(recompute):
    """The gradient of a weight that meets four pixels is a sum of four integers of -1, 0 or 1, times their scale."""
    conv = BinaryConv2d(8, 4, 1, input_quantizer=Sign(window=float("inf")))
    conv.grad_quantizer = IntegerGradient(8, weight_bits=2, generator=generator())
    block = BinaryBlock(conv, torch.nn.BatchNorm2d(4), recompute=recompute)
    x = randn(4, 8, 1, 1).requires_grad_()
    block(x).backward(randn(4, 4, 1, 1, seed=1))
    of_weight = conv.store.weight.grad.abs()
    levels = of_weight / of_weight[of_weight > 0].min()
    assert torch.allclose(levels, levels.round())
    assert levels.max() <= 4
    assert x.grad.abs().unique().numel() > 3
