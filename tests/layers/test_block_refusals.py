"""Channels that do not vary, and what a block refuses."""

import pytest
import torch
from torch import nn

from bnn.errors import NonFiniteError
from bnn.layers import BinaryBlock
from bnn.quantizers import Sign
from tests.contracts import randn
from tests.layers.blocks import block_of, conv, linear


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 2e-5, 3e-4, 0.1, 1.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_constant_channel_has_no_gradient_and_leaves_the_others_theirs(eps, scaled):
    """Its gradient would be one of 1 / sqrt(eps), whose scale erases that of all others."""
    layer = linear(16, 3, learned_scale=scaled)
    # The first output does not see the difference of the two inputs that vary.
    layer.store.weight.data[:, :2] = torch.tensor([[5, -5], [5, 5], [-5, 5]])
    layer.store.weight.data[2, 0] = -5
    x = torch.ones(8, 16)
    x[:, 0] = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, -1])
    x[:, 1] = x[:, 0]
    norm = nn.BatchNorm1d(3, eps=eps)
    block = BinaryBlock(layer, norm, recompute=True)
    block(x).backward(randn(8, 3, seed=2))
    constant, *live = layer.store.weight.grad
    assert not constant.any()
    assert live[0][:2].abs().min() > 0
    assert norm.weight.grad[0] == 0
    assert norm.bias.grad[0] == pytest.approx(randn(8, 3, seed=2)[:, 0].sum().item(), rel=1e-5)
    assert layer.learned_scale is None or layer.learned_scale.grad[0] == 0


def test_the_gradient_of_a_scale_is_of_the_order_of_eps():
    gradients = []
    for eps in (1e-5, 1e-3):
        torch.manual_seed(0)
        block = BinaryBlock(conv(6, 5, learned_scale=True), nn.BatchNorm2d(5, eps=eps), recompute=True)
        block(randn(4, 6, 7, 7)).backward(randn(4, 5, 5, 5, seed=1).bfloat16())
        gradients.append(block.product.learned_scale.grad)
    assert gradients[0].all()
    torch.testing.assert_close(gradients[1], 100 * gradients[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("make", [lambda: (conv(3, 8, 3), (1, 3, 3, 3)), lambda: (linear(4, 8), (1, 4))])
def test_one_value_a_channel_is_refused(make):
    layer, shape = make()
    with pytest.raises(ValueError, match="two values a channel, got a tensor of"):
        block_of(layer)(randn(*shape))


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 3, 6, 6, 1), (3, 6)])
def test_another_number_of_dimensions_is_refused(shape):
    for training in (True, False):
        block = block_of(conv(3, 8)).train(training)
        with torch.no_grad(), pytest.raises(ValueError, match=r"takes \[N, C, H, W\], got"):
            block(randn(*shape))


@pytest.mark.parametrize("shape", [(2, 3, 8), (8,)])
def test_a_matrix_is_what_a_linear_block_takes(shape):
    for training in (True, False):
        block = block_of(linear(8, 4)).train(training)
        with torch.no_grad(), pytest.raises(ValueError, match=r"takes \[N, K\], got"):
            block(randn(*shape))


@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (1, 8, 4, 4), (2, 4, 4, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_a_shortcut_of_another_shape_is_refused(shape, training):
    block = block_of(conv(3, 8)).train(training)
    with torch.no_grad(), pytest.raises(ValueError, match=r"shortcut must be \(2, 8, 4, 4\)"):
        block(randn(2, 3, 6, 6), randn(*shape))


@pytest.mark.parametrize("activation", [None, Sign()])
def test_nan_is_refused_before_its_sign_is_taken(activation):
    x = randn(2, 3, 6, 6)
    x[1, 2, 3, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="sign of NaN"):
        block_of(conv(3, 8), activation=activation)(x)
    stem = block_of(nn.Conv2d(3, 8, 3, bias=False), activation=Sign())
    with pytest.raises(NonFiniteError, match="sign of NaN"):
        stem(x)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_refused(value):
    block = block_of(conv(3, 8))
    grad = torch.ones(2, 8, 4, 4, dtype=torch.bfloat16)
    grad[1, 3, 2, 2] = value
    with pytest.raises(NonFiniteError, match="cannot round the gradient to integers"):
        block(randn(2, 3, 6, 6)).backward(grad)
