"""What a block keeps between forward and backward."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import MaxPool2d
from bnn.quantizers import ApproxSign, Sign
from bnn.quantizers.gradients import SignGradient
from bnn.weights import AccumulatorStore
from tests.contracts import bits_of, dense, randn, saved_bytes
from tests.layers.blocks import block_of, conv, linear

CONSTANTS = 3 * 4  # gamma, and mean and deviation of the product, float32


@pytest.mark.parametrize(
    ("quantizer", "activation", "x_planes", "out_planes"),
    [
        (Sign(), nn.Hardtanh(), 2, 1),
        (ApproxSign(), nn.Hardtanh(), 3, 1),
        (ApproxSign(), nn.ReLU(), 3, 1),
        (ApproxSign(), None, 3, 0),
        (Sign(), Sign(), 2, 1),
        (Sign(), ApproxSign(), 2, 2),
    ],
)
@pytest.mark.parametrize("pool", [None, MaxPool2d(2)])
@pytest.mark.parametrize("scaled", [True, False])
def test_keeps_bits_only(quantizer, activation, x_planes, out_planes, pool, scaled):
    """Of the input the sign and 1 or 2 bits of slope, of the weight the sign, of the result 0, 1 or 2 bits of slope."""
    layer = conv(32, 64, padding=1, input_quantizer=quantizer, learned_scale=scaled)
    block = block_of(layer, pool=pool, activation=copy.deepcopy(activation))
    x, size = randn(10, 32, 16, 16).requires_grad_(), 16 if pool is None else 8
    with saved_bytes() as saved:
        out = block(x)
    bits = x_planes * x.numel() + layer.store.size + out_planes * 10 * 64 * size * size
    assert out.numel() == 10 * 64 * size * size
    scales = scaled * (1 if pool is None else 2)  # and its magnitude
    assert sum(saved.values()) == bits / 8 + (CONSTANTS + 4 * scales) * 64


def test_keeps_of_a_shortcut_nothing_and_of_bits_one_bit():
    block = block_of(conv(32, 32, padding=1), activation=nn.Hardtanh())
    x = bits_of(4, 32, 8, 8)
    with saved_bytes() as saved:
        block(x, randn(4, 32, 8, 8).requires_grad_())
    assert sum(saved.values()) == (2 * x.numel() + 32 * 32 * 9) / 8 + CONSTANTS * 32
    unit = block_of(conv(32, 32, padding=1, input_quantizer=ApproxSign()), activation=nn.Hardtanh())
    x = randn(4, 32, 8, 8).requires_grad_()
    with saved_bytes() as saved:
        unit(x, x)
    assert sum(saved.values()) == (4 * x.numel() + 32 * 32 * 9) / 8 + CONSTANTS * 32


def test_a_chain_keeps_each_sign_once():
    """The bits that one block hands on are those that the next one keeps."""
    first, second = (block_of(conv(32, 32, padding=1), activation=Sign()) for _ in range(2))
    x = bits_of(4, 32, 8, 8)
    with saved_bytes() as saved:
        second(first(x))
    assert sum(saved.values()) == (4 * x.numel() + 2 * 32 * 32 * 9) / 8 + 2 * CONSTANTS * 32


def test_keeps_the_input_of_a_real_weight_as_it_is():
    stem = block_of(nn.Conv2d(3, 32, 3, padding=1, bias=False), activation=nn.Hardtanh())
    x = randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with saved_bytes() as saved:
        stem(x)
    assert sum(saved.values()) == 4 * (x.numel() + stem.product.weight.numel()) + 4 * 32 * 64 / 8 + CONSTANTS * 32


def test_packed_signs_of_a_weight_gradient_are_those_of_the_full_one():
    packed_signs = SignGradient(packed=True, scale="none", generator=torch.Generator().manual_seed(8))
    full, packed = conv(8, 16), conv(8, 16, store=partial(AccumulatorStore, gradient_quantizer=packed_signs))
    packed.store.weight.data.copy_(full.store.weight)
    gradients = []
    for product in (full, packed):
        block_of(product)(randn(4, 8, 6, 6)).backward(randn(4, 16, 4, 4, seed=1).bfloat16())
        gradients.append(product.store.weight.grad)
    assert isinstance(gradients[1], BitTensor)
    some = gradients[0] != 0
    assert torch.equal(gradients[1].dense()[some], gradients[0].sign()[some])


def test_bits_get_the_same_gradient_in_any_memory_format():
    x, grad, gradients = randn(3, 8, 6, 6), randn(3, 5, 4, 4, seed=1).bfloat16(), []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        bits = BitTensor.from_dense(x.contiguous(memory_format=memory_format)).requires_grad_()
        block = block_of(conv(8, 5))
        block(bits).backward(grad.contiguous(memory_format=memory_format))
        gradients.append((bits.grad, block.product.store.weight.grad, block.norm.weight.grad))
    assert gradients[0][0].any()
    for of_channels_last, of_contiguous in zip(*gradients, strict=True):
        assert torch.equal(of_channels_last, of_contiguous)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_inputs_of_other_dtypes_get_their_gradient(dtype):
    for block, shape in ((block_of(conv(4, 4, padding=1)), (3, 4, 5, 5)), (block_of(linear(4, 4)), (9, 4))):
        x = randn(*shape).to(dtype).requires_grad_()
        (block(x) * randn(*shape, seed=1)).sum().backward()
        assert x.grad.dtype is dtype
        assert x.grad.any()
        if dtype is not torch.float16:  # a shortcut is float32 or bfloat16
            assert block(x, x).dtype is (torch.bfloat16 if x.dim() == 4 else torch.float32)


def test_an_input_and_weight_without_gradient_get_none():
    block, x = block_of(conv(4, 4, padding=1), activation=nn.Hardtanh()), randn(2, 4, 5, 5)
    block(x, x).square().sum().backward()
    assert x.grad is None
    stem = block_of(nn.Conv2d(4, 4, 3, bias=False))
    stem.product.weight.requires_grad_(False)
    stem(x.requires_grad_()).square().sum().backward()
    assert stem.product.weight.grad is None
    assert x.grad.any()


@pytest.mark.parametrize("pool", [None, MaxPool2d(2)])
@pytest.mark.parametrize("activation", [nn.Hardtanh(), Sign()])
def test_keeps_a_product_of_4096_an_element(pool, activation):
    """Two bytes an element of what enters the norm, and which pixel a pooling chose, 2 bits."""
    channels, windows, size = (456, 1, 4) if pool is None else (114, 4, 2)
    saved_of = []
    for inputs in (channels - 1, channels):  # 9 channels windows: below 4096 and above it
        block = block_of(conv(inputs, 32, padding=1), pool=pool, activation=copy.deepcopy(activation))
        x = bits_of(3, inputs, 4, 4)
        with saved_bytes() as saved:
            block(x)
        others = len(x) * math.ceil(inputs * 16 / 8) + 32 * math.ceil(inputs * 9 / 8)
        saved_of.append(sum(saved.values()) - others)
        assert block.keeps_product(x) is (9 * windows * inputs >= 4096)
    product = 3 * 32 * size * size
    assert saved_of[1] - saved_of[0] == 2 * product + (0 if pool is None else 2 * product / 8)


@pytest.mark.parametrize("rectifies", [False, True])
@pytest.mark.parametrize("pool", [None, MaxPool2d(2)])
@pytest.mark.parametrize("activation", [nn.Hardtanh(), ApproxSign(), None])
@pytest.mark.parametrize("real", [False, True])
def test_a_kept_product_gives_the_same_bits_as_one_formed_again(monkeypatch, rectifies, pool, activation, real):
    results = []
    for kept_from in (1, 1 << 60):
        monkeypatch.setattr("bnn.layers.block._KEPT_FROM", kept_from)
        torch.manual_seed(0)
        product = nn.Conv2d(8, 8, 3, padding=1, bias=False) if real else conv(8, 8, padding=1)
        block = block_of(product, pool=pool, activation=copy.deepcopy(activation), rectifies=rectifies)
        x = randn(3, 8, 6, 6).requires_grad_()
        assert block.keeps_product(x) is (kept_from == 1)
        shortcut = randn(3, 8, 6, 6, seed=2).requires_grad_() if pool is None and activation is None else None
        out = block(x, shortcut)
        out.backward(randn(*out.shape, seed=1).to(out.dtype))
        weight = block.product.weight if real else block.product.store.weight
        results.append((out, x.grad, weight.grad, block.norm.weight.grad, block.norm.running_var))
    is_by_rows = real and pool is None and not rectifies  # whose sums have another order
    for kept, again in zip(*results, strict=True):
        if is_by_rows:
            torch.testing.assert_close(dense(kept), dense(again), rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(dense(kept), dense(again))


@pytest.mark.parametrize(("quantizer", "keeps"), [(None, True), (ApproxSign(), False)])
def test_a_linear_layer_keeps_its_product_where_its_input_is_real(quantizer, keeps):
    """A float of each output; of an input that is quantized, and of bits, the product is formed again."""
    block = block_of(linear(40, 16, input_quantizer=quantizer), activation=nn.Hardtanh())
    assert block.keeps_product(randn(8, 40)) is keeps
    assert not block.keeps_product(bits_of(8, 40))
    x = randn(8, 40).requires_grad_()
    with saved_bytes() as saved:
        block(x)
    assert (4 * 8 * 16 in saved.values()) is keeps
