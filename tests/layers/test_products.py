"""Gradients of outputs are quantized before they are multiplied, in float and in integers."""

import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d, products
from bnn.models import initialize
from bnn.quantizers import Sign
from bnn.quantizers.gradients import (
    BFloat16Gradient,
    GradientQuantizer,
    Int8Gradient,
    PowerOfTwoGradient,
    SignGradient,
)
from bnn.weights import AccumulatorStore
from tests.contracts import randn, saved_bytes


class Captured(Int8Gradient):
    """Remembers the integers that it gives, and the values that these stand for."""

    def integers(self, gradient):
        Captured.q, scale = super().integers(gradient)
        Captured.value = Captured.q.float() * scale
        return Captured.q, scale


class Int4Gradient(Int8Gradient):
    """All that another width takes."""

    largest = 7
    storage_bits = 4


class CapturedInt4(Captured, Int4Gradient):
    pass


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


def test_a_ternary_gradient_of_a_weight_leaves_that_of_the_input_as_it_is():
    def once(make, shape, *, ternary_weights):
        quantizer = Int8Gradient(generator=generator(), ternary_weights=ternary_weights)
        layer = make(store=AccumulatorStore, grad_quantizer=quantizer)
        layer.store.initialize(torch.Generator().manual_seed(0))
        block = BinaryBlock(layer, nn.BatchNorm2d(12) if len(shape) == 4 else nn.BatchNorm1d(12), recompute=True)
        x = randn(*shape).requires_grad_()
        out = block(x)
        out.backward(randn(*out.shape, seed=1))
        return x.grad, layer.store.weight.grad

    convolution, shape = partial(BinaryConv2d, 5, 12, 3, padding=1), (7, 5, 6, 6)
    of_x, of_weight = once(convolution, shape, ternary_weights=True)
    other_x, other_weight = once(convolution, shape, ternary_weights=False)
    assert torch.equal(of_x, other_x)
    assert not torch.equal(of_weight, other_weight)
    assert torch.corrcoef(torch.stack((of_weight.flatten(), other_weight.flatten())))[0, 1] > 0.5
    linear = partial(BinaryLinear, 30, 12)
    assert torch.equal(*(once(linear, (7, 30), ternary_weights=choice)[1] for choice in (True, False)))


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


# --- another width -------------------------------------------------------------------------------------------------


def in_double(product, x, grad):
    """Gradients of input and weight of a product of signs, in float64."""
    weight = product.store.read().dense(torch.float64).requires_grad_()
    x = x.double().sign().requires_grad_()
    out = F.linear(x, weight) if product.window is None else F.conv2d(x, weight, None, *product.window.for_torch)
    return torch.autograd.grad(out, (x, weight), grad.double())


@pytest.mark.parametrize(
    ("make", "shape"),
    [(partial(BinaryLinear, 30, 12), (7, 30)), (partial(BinaryConv2d, 5, 12, 3, padding=1), (7, 5, 6, 6))],
)
def test_a_format_of_another_width_multiplies_integers(make, shape):
    layer, x = make(grad_quantizer=CapturedInt4(generator=generator())), 0.9 * randn(*shape).clamp(-1, 1)
    ours = gradients(layer, x, randn(*layer(x).shape, seed=1))
    assert Captured.q.dtype is torch.int8
    assert Captured.q.abs().max() == 7
    for mine, exact in zip(ours, in_double(layer, x, Captured.value), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "pool", "shape"),
    [
        (partial(BinaryLinear, 30, 12), None, (7, 30)),
        (partial(BinaryConv2d, 5, 12, 3, padding=1), None, (7, 5, 6, 6)),
        (partial(BinaryConv2d, 5, 12, 3, padding=1), MaxPool2d(2), (7, 5, 6, 6)),
    ],
)
def test_a_block_rounds_straight_to_a_format_of_another_width(make, pool, shape, monkeypatch, one_by_one):
    store = partial(AccumulatorStore, gradient_quantizer=None)
    product = make(store=store, grad_quantizer=Int4Gradient(generator=generator()))
    product.store.initialize(generator())
    norm = nn.BatchNorm2d(12) if len(shape) == 4 else nn.BatchNorm1d(12)
    block, x = BinaryBlock(product, norm, pool=pool, recompute=True), 0.9 * randn(*shape).clamp(-1, 1)
    leaf = x.clone().requires_grad_()
    out = block(leaf)
    grad = randn(*out.shape, seed=1).to(out.dtype)
    drawn = []

    def weight_gradient(q, scale, *rest):
        drawn.append((q, scale))
        return of_products(q, scale, *rest)

    of_products = products.weight_gradient
    monkeypatch.setattr(products, "weight_gradient", weight_gradient)
    out.backward(grad)
    ((q, scale),) = drawn
    assert 2 <= q.abs().max() <= 7
    grad_x, grad_weight = in_double(product, x, q.double() * scale)
    torch.testing.assert_close(leaf.grad.double(), grad_x, rtol=2**-8, atol=1e-6)  # by way of bfloat16
    torch.testing.assert_close(product.store.weight.grad.double(), grad_weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grad_quantizer", [None, PowerOfTwoGradient(), Int8Gradient(generator=torch.Generator())])
@pytest.mark.parametrize("input_quantizer", [None, Sign()])
def test_a_gradient_of_bfloat16_is_the_rounded_gradient(grad_quantizer, input_quantizer):
    found, x = [], torch.randn((6, 8, 5, 5), generator=torch.Generator().manual_seed(0))
    for gradient in (None, BFloat16Gradient()):
        store = partial(AccumulatorStore, gradient_quantizer=gradient)
        options = {"store": store, "input_quantizer": input_quantizer, "grad_quantizer": grad_quantizer}
        model = nn.Sequential(BinaryConv2d(8, 12, 3, **options), nn.Flatten(), BinaryLinear(108, 7, **options))
        initialize(model, generator=torch.Generator().manual_seed(1))
        if grad_quantizer is not None and grad_quantizer.generator is not None:
            grad_quantizer.generator.manual_seed(2)
        out = model(x)
        assert out.dtype is torch.float32
        out.square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for wide, narrow in zip(*found, strict=True):
        assert (wide.dtype, narrow.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(wide.bfloat16(), narrow)
        assert wide.stride() == narrow.stride()


_OUTSIDE_OF_BLOCKS = """
import sys
import torch
from functools import partial
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.quantizers.gradients import BFloat16Gradient, Int8Gradient
from bnn.weights import AccumulatorStore
store = partial(AccumulatorStore, gradient_quantizer=BFloat16Gradient())
of_product = Int8Gradient(generator=torch.Generator().manual_seed(0))
options = dict(store=store, input_quantizer=None, grad_quantizer=of_product)
layers = (BinaryConv2d(3, 4, 3, **options), BinaryLinear(3, 4, **options))
for layer, x in zip(layers, (torch.ones(2, 3, 5, 5), torch.ones(2, 3))):
    layer(x.requires_grad_()).sum().backward()
    assert layer.store.trained.grad is not None
assert "torch.distributed.tensor" not in sys.modules
"""


def test_weights_of_bits_outside_of_blocks_load_no_distributed_tensors():
    subprocess.run([sys.executable, "-c", _OUTSIDE_OF_BLOCKS], check=True)


@pytest.mark.parametrize("of_bits", [False, True])
@pytest.mark.parametrize("make", [partial(BinaryConv2d, 3, 4, 3, stride=2, padding=1), partial(BinaryLinear, 5, 4)])
def test_products_with_weights_of_bits_are_those_of_their_floats(make, of_bits):
    store = partial(AccumulatorStore, gradient_quantizer=BFloat16Gradient())
    layer = make(store=store, input_quantizer=Sign() if of_bits else None)
    x, grad = randn(2, 3, 7, 5), randn(*layer(randn(2, 3, 7, 5)).shape, seed=1)
    dense, inputs = layer.store.read().dense(torch.float32).requires_grad_(), x.clone().requires_grad_()
    quantized = inputs if not of_bits else Sign()(inputs).to(torch.float32)
    product = F.linear(quantized, dense) if dense.dim() == 2 else F.conv2d(quantized, dense, None, 2, 1)
    product.backward(grad)
    x.requires_grad_()
    out = layer(x)
    out.backward(grad)
    assert torch.equal(out, product)
    assert torch.allclose(x.grad, inputs.grad, rtol=1e-6)
    assert torch.allclose(layer.store.trained.grad.float(), dense.grad, rtol=2**-8)
