import math

import pytest
import torch

from bnn.layers import BinaryLinear
from bnn.quantizers.gradients import BackwardScale
from bnn.quantizers.gradients.backward_scale import backward_factor
from tests.contracts import randn


@pytest.mark.parametrize(
    ("shape", "options", "factor"),
    [
        ((128, 64), {}, math.sqrt(2 / 128)),
        ((128, 64, 3, 3), {}, math.sqrt(2 / (128 * 9))),
        ((128, 64, 3, 3), {"strides": 4}, math.sqrt(8 / (128 * 9))),
        ((128, 64, 3, 3), {"pools": True}, 2 * math.sqrt(2 / (128 * 9))),
    ],
)
def test_factors_are_those_of_the_paper(shape, options, factor):
    assert backward_factor(shape, **options) == pytest.approx(factor)


def test_the_input_s_gradient_alone_is_scaled():
    layer = BinaryLinear(6, 4, input_quantizer=None)
    x, y = randn(5, 6).requires_grad_(), randn(5, 6).requires_grad_()
    layer(x).backward(randn(5, 4, seed=1))
    weight = layer.store.weight.grad.clone()
    layer.zero_grad()
    layer.grad_quantizer = BackwardScale(factor=0.25)
    layer(y).backward(randn(5, 4, seed=1))
    torch.testing.assert_close(y.grad, 0.25 * x.grad)
    torch.testing.assert_close(layer.store.weight.grad, weight)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf])
def test_factors_are_checked(factor):
    with pytest.raises(ValueError, match="factor of a gradient is above 0 and finite"):
        BackwardScale(factor=factor)
