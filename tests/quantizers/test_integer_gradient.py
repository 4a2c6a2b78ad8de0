"""Gradients of 2 to 8 bits."""

import pytest
import torch

from bnn.layers import BinaryBlock, BinaryConv2d
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


@pytest.mark.parametrize("width", [1, 9, 0])
@pytest.mark.parametrize("name", ["bits", "weight_bits"])
def test_other_widths_are_refused(width, name):
    with pytest.raises(ValueError, match=f"^an integer gradient has 2 to 8 bits, got {width}$"):
        IntegerGradient(**{"bits": 4} | {name: width})


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
