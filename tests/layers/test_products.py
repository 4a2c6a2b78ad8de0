"""Gradients of outputs are quantized before they are multiplied, in float and in integers."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.quantizers.gradients import GradientQuantizer, Int8Gradient, PowerOfTwoGradient, SignGradient
from bnn.weights import AccumulatorStore
from tests.contracts import randn, saved_bytes


class Captured(Int8Gradient):
    """Remembers the values that its codes stand for."""

    def codes(self, gradient):
        q, scale = super().codes(gradient)
        Captured.value = q.float() * scale
        return q, scale


class OnlyBits(SignGradient):
    """Refuses a float gradient: none of the weight's size may have been made."""

    def forward(self, gradient):
        assert isinstance(gradient, BitTensor)
        return super().forward(gradient)


def generator():
    return torch.Generator().manual_seed(7)


def gradients(layer, x, grad):
    """Gradients of input and latent weight."""
    x = x.clone().requires_grad_()
    layer(x).backward(grad)
    return x.grad, layer.store.weight.grad


@given(
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3, 8, 17]),
    outputs=st.sampled_from([1, 5, 16]),
    size=st.integers(3, 7),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_integer_gradients_of_a_convolution_are_those_of_the_rounded_gradient(
    batch, channels, outputs, size, kernel, stride, padding, dilation
):
    if dilation * (kernel - 1) >= size + 2 * padding:
        return
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = BinaryConv2d(channels, outputs, kernel, grad_quantizer=Captured(generator=generator()), **options)
    plain = BinaryConv2d(channels, outputs, kernel, **options)
    plain.load_state_dict(layer.state_dict())
    x = randn(batch, channels, size, size)
    grad = randn(*plain(x).shape, seed=1)
    ours = gradients(layer, x, grad)
    theirs = gradients(plain, x, Captured.value)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)


@given(batch=st.integers(1, 6), inputs=st.integers(1, 70), outputs=st.integers(1, 20))
def test_integer_gradients_of_a_linear_layer_are_those_of_the_rounded_gradient(batch, inputs, outputs):
    layer = BinaryLinear(inputs, outputs, grad_quantizer=Captured(generator=generator()))
    plain = BinaryLinear(inputs, outputs)
    plain.load_state_dict(layer.state_dict())
    x, grad = randn(batch, inputs), randn(batch, outputs, seed=1)
    ours = gradients(layer, x, grad)
    theirs = gradients(plain, x, Captured.value)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("make", [partial(BinaryLinear, 24, 8), partial(BinaryConv2d, 4, 8, 3, padding=1)])
def test_other_quantizers_see_the_gradient_of_the_product(make):
    layer, plain = make(grad_quantizer=PowerOfTwoGradient()), make()
    plain.load_state_dict(layer.state_dict())
    x = randn(5, 24) if isinstance(layer, BinaryLinear) else randn(5, 4, 6, 6)
    grad = randn(*plain(x).shape, seed=1)
    ours = gradients(layer, x, grad)
    theirs = gradients(plain, x, PowerOfTwoGradient()(grad))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


class Refusing(GradientQuantizer):
    storage_bits = 1

    def forward(self, gradient):
        raise AssertionError("forward does not quantize")


def test_forward_is_untouched():
    layer = BinaryLinear(24, 8, grad_quantizer=Refusing())
    plain = BinaryLinear(24, 8)
    plain.load_state_dict(layer.state_dict())
    x = randn(5, 24)
    assert torch.equal(layer(x), plain(x))


def test_real_inputs_take_the_float_products():
    quantizer = Int8Gradient(generator=generator())
    layer = BinaryLinear(24, 8, input_quantizer=None, grad_quantizer=quantizer)
    grad_x, grad_weight = gradients(layer, randn(5, 24), randn(5, 8, seed=1))
    assert grad_x.isfinite().all()
    assert grad_weight.abs().sum() > 0


def test_same_seed_same_gradient():
    def once():
        layer = BinaryConv2d(4, 8, 3, grad_quantizer=Int8Gradient(generator=generator()))
        layer.store.initialize(torch.Generator().manual_seed(0))
        return gradients(layer, randn(3, 4, 6, 6), randn(3, 8, 4, 4, seed=1))

    for one, other in zip(once(), once(), strict=True):
        assert torch.equal(one, other)


def test_integer_products_keep_bits_only():
    layer = BinaryConv2d(16, 32, 3, padding=1, input_quantizer=None, grad_quantizer=Int8Gradient(generator=generator()))
    x = BitTensor.from_dense(randn(4, 16, 8, 8).contiguous(memory_format=torch.channels_last))
    with saved_bytes() as saved:
        layer(x)
    weight_bits = 2 * 32 * 16 * 9  # the signs and the window of their gradient
    assert sum(saved.values()) == (x.numel() + weight_bits) // 8


@pytest.mark.parametrize("make", [partial(BinaryLinear, 30, 12), partial(BinaryConv2d, 5, 12, 3, padding=1)])
def test_packed_sign_gradients_come_from_the_integers(make):
    quantizer = OnlyBits(packed=True, scale="none", generator=generator())
    store = partial(AccumulatorStore, gradient_quantizer=quantizer)
    layer = make(store=store, grad_quantizer=Captured(generator=generator()))
    x = randn(7, 30) if isinstance(layer, BinaryLinear) else randn(7, 5, 6, 6)
    layer(x).backward(randn(*layer(x).shape, seed=1))
    ours = layer.store.weight.grad
    assert isinstance(ours, BitTensor)

    plain = make()
    with torch.no_grad():
        plain.store.weight.copy_(layer.store.read().dense())
    _, expected = gradients(plain, x, Captured.value)
    decided = expected.abs() > 1e-4
    assert torch.equal(ours.dense()[decided], expected.sign()[decided])
    assert decided.float().mean() > 0.9
