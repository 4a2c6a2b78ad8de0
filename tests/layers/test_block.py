"""The fused block computes what its parts compute, from less."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, BitBatchNorm, MaxPool2d, PartWidths
from bnn.quantizers import ReCU, Ternary
from bnn.quantizers.gradients import Int8Gradient, PowerOfTwoGradient, SignGradient
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore
from tests.contracts import dense, randn, saved_bytes


def rounding():
    return Int8Gradient(generator=torch.Generator().manual_seed(7))


def conv(channels, outputs, kernel=3, *, packed=False, **options):
    signs = SignGradient(packed=True, scale="none", generator=torch.Generator().manual_seed(8)) if packed else None
    store = partial(AccumulatorStore, gradient_quantizer=signs)
    return BinaryConv2d(channels, outputs, kernel, grad_quantizer=rounding(), store=store, **options)


def parts_of(block, x):
    product = block.product(x)
    return block.norm(product if block.pool is None else block.pool(product))


def exact_gradients(block, x, grad):
    """Of input, weight and bias, by the separate layers with a gradient that is not rounded."""
    separate = copy.deepcopy(block)
    separate.product.grad_quantizer = None
    x = x.clone().requires_grad_()
    parts_of(separate, x).backward(grad)
    return x.grad, separate.product.store.weight.grad, separate.norm.bias.grad


def block_gradients(block, x, grad):
    x = x.clone().requires_grad_()
    block.product.store.weight.grad = block.norm.bias.grad = None
    block(x).backward(grad.bfloat16())
    return x.grad, block.product.store.weight.grad, block.norm.bias.grad


@given(
    images=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 8, 17]),
    outputs=st.sampled_from([1, 5, 16, 40]),
    size=st.integers(4, 9),
    pooled=st.booleans(),
    real=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_forward_is_that_of_the_parts(images, channels, outputs, size, pooled, real):
    options = {"padding": 1, "input_quantizer": None} if real else {"padding": 1}
    product = conv(channels, outputs, **options)
    block = BinaryBlock(product, BinaryNorm(outputs), pool=MaxPool2d(2) if pooled else None)
    separate = copy.deepcopy(block)
    # Of halves, so that the float16 of real products is exact, too.
    x = (randn(images, channels, size, size) * 4).round() / 4 + 0.125
    bits, expected = block(x), parts_of(separate, x)
    assert isinstance(bits, BitTensor)
    assert torch.equal(bits.dense(torch.float32), expected.dense())
    for name, buffer in separate.norm.named_buffers():
        assert torch.equal(block.norm.get_buffer(name), buffer), name
    with torch.no_grad():
        evaluated = block.eval()(x)
    assert isinstance(evaluated, BitTensor)
    assert torch.equal(evaluated.dense(), parts_of(separate.eval(), x).dense())


@pytest.mark.parametrize("pool", [None, MaxPool2d(2), MaxPool2d(2, stride=3, padding=1)])
@pytest.mark.parametrize("real", [False, True])
def test_gradients_are_those_of_the_parts_on_average(pool, real):
    options = {"padding": 1, "input_quantizer": None} if real else {"padding": 1}
    block = BinaryBlock(conv(6, 10, **options), BinaryNorm(10), pool=pool)
    x = (0.5 * randn(7, 6, 8, 8) * 8).round() / 8 + 0.0625  # exact in float16, and so are its products
    shape = block(x).shape
    grad = randn(*shape, seed=1).bfloat16().float()
    draws = [block_gradients(block, x, grad) for _ in range(300)]
    for mean, expected, bound in zip(
        (torch.stack(of).mean(0) for of in zip(*draws, strict=True)),
        exact_gradients(block, x, grad),
        (0.05, 0.05, 1e-3),
        strict=True,
    ):
        assert (mean - expected).norm() < bound * expected.norm()


def test_gradients_of_a_linear_block_are_those_of_its_part_on_average():
    store = partial(AccumulatorStore, gradient_quantizer=None)
    block = BinaryBlock(BinaryLinear(30, 20, grad_quantizer=rounding(), store=store), BinaryNorm(20))
    x, grad = 0.5 * randn(50, 30), randn(50, 20, seed=1).bfloat16().float()
    draws = [block_gradients(block, x, grad) for _ in range(300)]
    means = [torch.stack(of).mean(0) for of in zip(*draws, strict=True)]
    for mean, expected in zip(means, exact_gradients(block, x, grad), strict=True):
        assert (mean - expected).norm() < 0.02 * expected.norm()


def test_gradients_are_divided_by_the_deviation_and_eps():
    store = partial(AccumulatorStore, gradient_quantizer=None)
    norm = BinaryNorm(20, eps=2.0)
    block = BinaryBlock(BinaryLinear(30, 20, grad_quantizer=rounding(), store=store), norm)
    x, grad = 0.5 * randn(50, 30), randn(50, 20, seed=1).bfloat16().float()
    draws = [block_gradients(block, x, grad) for _ in range(100)]
    means = [torch.stack(of).mean(0) for of in zip(*draws, strict=True)]
    for mean, expected in zip(means, exact_gradients(block, x, grad), strict=True):
        assert (mean - expected).norm() < 0.05 * expected.norm()


def test_a_packed_gradient_holds_the_signs_of_the_full_one():
    full, packed = conv(8, 16), conv(8, 16, packed=True)
    packed.store.weight.data.copy_(full.store.weight)
    gradients = []
    for product in (full, packed):
        block = BinaryBlock(product, BinaryNorm(16))
        block(randn(4, 8, 6, 6)).backward(randn(4, 16, 4, 4, seed=1).bfloat16())
        gradients.append(product.store.weight.grad)
    assert isinstance(gradients[1], BitTensor)
    some = gradients[0] != 0
    assert torch.equal(gradients[1].dense()[some], gradients[0].sign()[some])


def test_keeps_bits_only():
    block = BinaryBlock(conv(32, 64, padding=1, input_quantizer=None), BinaryNorm(64), pool=MaxPool2d(2))
    x = BitTensor.from_dense(randn(10, 32, 16, 16))
    x_bits, out = 32 * 16 * 16 * 10, 64 * 8 * 8 * 10
    weight, constants = 32 * 64 * 9, 2 * 64 * 32
    # x, weight; output, window and two planes of choices
    with saved_bytes() as saved:
        block(x)
    assert sum(saved.values()) == (x_bits + weight + 4 * out + constants) / 8


def test_evaluation_takes_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr("bnn.layers.block._CHUNK_ELEMENTS", 3 * 8 * 6 * 6)
    block = BinaryBlock(conv(3, 8, padding=1), BinaryNorm(8), pool=MaxPool2d(2)).eval()
    x, sizes = randn(8, 3, 6, 6), []
    block.product.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    assert torch.equal(block(x).dense(), parts_of(block, x).dense())
    assert sizes == [3, 3, 2, 8]


def test_the_gradient_of_its_output_is_bfloat16():
    block = BinaryBlock(conv(3, 8), BinaryNorm(8))
    assert block(randn(2, 3, 5, 5)).dtype is torch.bfloat16


def test_one_image_is_enough_for_a_convolution_and_too_little_for_a_product():
    block = BinaryBlock(conv(3, 8), BinaryNorm(8))
    block(randn(1, 3, 5, 5)).backward(torch.ones(1, 8, 3, 3, dtype=torch.bfloat16))
    linear = BinaryLinear(4, 8, grad_quantizer=rounding(), store=AccumulatorStore)
    with pytest.raises(ValueError, match="two values a channel"):
        BinaryBlock(linear, BinaryNorm(8))(randn(1, 4))


NOT_FUSED = {
    "float gradient": lambda: BinaryBlock(BinaryConv2d(3, 8, 3, padding=1, store=AccumulatorStore), BinaryNorm(8)),
    "rounded to nearest": lambda: BinaryBlock(BinaryConv2d(3, 8, 3, grad_quantizer=Int8Gradient()), BinaryNorm(8)),
    "clamped": lambda: BinaryBlock(
        BinaryConv2d(3, 8, 3, grad_quantizer=Int8Gradient(quantile=0.9, generator=torch.Generator())), BinaryNorm(8)
    ),
    "powers of two": lambda: BinaryBlock(BinaryConv2d(3, 8, 3, grad_quantizer=PowerOfTwoGradient()), BinaryNorm(8)),
    "bias": lambda: BinaryBlock(conv(3, 8, bias=True), BinaryNorm(8)),
    "learned scale": lambda: BinaryBlock(conv(3, 8, learned_scale=True), BinaryNorm(8)),
    "analytic scale": lambda: BinaryBlock(latent(quantizer=ReCU(scale="mean")), BinaryNorm(8)),
    "ternary": lambda: BinaryBlock(latent(quantizer=Ternary()), BinaryNorm(8)),
    "ternary states": lambda: BinaryBlock(
        BinaryConv2d(3, 8, 3, grad_quantizer=rounding(), store=DiscreteStore), BinaryNorm(8)
    ),
    "float norm": lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8)),
    "real norm of bits": lambda: BinaryBlock(conv(3, 8), BitBatchNorm(8)),
    "overlapping windows": lambda: BinaryBlock(conv(3, 8), BinaryNorm(8), pool=MaxPool2d(3, stride=2)),
}


def latent(**options):
    return BinaryConv2d(3, 8, 3, grad_quantizer=rounding(), store=partial(LatentStore, **options))


@pytest.mark.parametrize("make", NOT_FUSED.values(), ids=NOT_FUSED)
def test_what_cannot_be_one_node_runs_its_parts(make):
    block = make()
    separate, x = copy.deepcopy(block), randn(4, 3, 9, 9)
    assert not block.is_fused
    assert block.widths(block.norm) is None
    for training in (True, False):
        block.train(training)
        separate.train(training)
        out, expected = block(x), parts_of(separate, x)
        assert type(out) is type(expected)
        assert torch.equal(dense(out), dense(expected))


def test_a_block_becomes_fused_when_its_product_gets_integer_gradients():
    block = BinaryBlock(BinaryConv2d(3, 8, 3, store=AccumulatorStore), BinaryNorm(8))
    names = list(block.state_dict())
    assert not block.is_fused
    block.product.grad_quantizer = rounding()
    assert block.is_fused
    assert list(block.state_dict()) == names


def test_widths_are_those_of_the_parts():
    block = BinaryBlock(conv(3, 8), BinaryNorm(8), pool=MaxPool2d(2))
    assert block.widths(block.product) == PartWidths(None, 16, 8, 16)
    assert block.widths(block.pool) == PartWidths(16, 16, 8, 8)
    assert block.widths(block.norm) == PartWidths(16, 1, 16, 8)


def test_other_products_are_refused():
    with pytest.raises(TypeError, match="made of a BinaryConv2d or BinaryLinear, got Conv2d"):
        BinaryBlock(nn.Conv2d(3, 8, 3), BinaryNorm(8))


def test_a_frozen_norm_uses_its_running_statistics():
    block = BinaryBlock(conv(3, 8), BinaryNorm(8))
    block.norm.eval()
    x = randn(4, 3, 6, 6)
    assert torch.equal(block(x).dense(), parts_of(block, x).dense())
    assert not block.norm.running_mean.any()


@pytest.mark.parametrize("grad_quantizer", [None, rounding()])
@pytest.mark.parametrize("size", [16, 24])
def test_a_transposed_input_is_worked_off_by_its_samples(size, grad_quantizer):
    layer = BinaryLinear(16, 20, grad_quantizer=grad_quantizer, store=AccumulatorStore)
    x = randn(16, size).t()
    expected = layer(x.contiguous())
    assert torch.equal(layer(x), expected)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    layer(x.requires_grad_()).sum().backward()
    if grad_quantizer is not None:
        block = BinaryBlock(layer, BinaryNorm(20))
        bits = BitTensor.from_dense(randn(16, size)).t()
        assert torch.equal(block(bits).dense(), block(bits.dense().contiguous()).dense())
        with torch.no_grad():
            block.eval()
            assert torch.equal(block(bits).dense(), block(bits.dense().contiguous()).dense())


@pytest.mark.parametrize("grad_quantizer", [None, rounding()])
@pytest.mark.parametrize("gradients", [True, False])
def test_an_input_of_another_width_is_refused_although_its_bytes_fit(gradients, grad_quantizer):
    layer = BinaryLinear(48, 20, grad_quantizer=grad_quantizer, store=AccumulatorStore)
    with torch.set_grad_enabled(gradients), pytest.raises((ValueError, RuntimeError)):
        layer(randn(8, 45))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_inputs_of_other_dtypes_get_their_gradient(dtype):
    layer = BinaryLinear(16, 20, grad_quantizer=rounding(), store=AccumulatorStore)
    x = randn(8, 16).to(dtype).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.dtype is dtype


def test_a_constant_channel_leaves_the_others_their_gradient():
    layer = BinaryLinear(16, 2, grad_quantizer=rounding(), store=AccumulatorStore)
    layer.store.weight.data[:, :2] = torch.tensor([[5, -5], [5, 5]])  # the first output does not see inputs 0 and 1
    x = torch.ones(8, 16)
    x[:, :2] = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0]).unsqueeze(1)
    block = BinaryBlock(layer, BinaryNorm(2))
    block(x).backward(randn(8, 2, seed=2).bfloat16())
    constant, live = layer.store.weight.grad
    assert not constant.any()
    assert live[:2].abs().min() > 0


def test_an_image_without_batch_is_refused():
    with pytest.raises(ValueError, match="takes \\[N, C, H, W\\]"):
        BinaryBlock(conv(3, 8), BinaryNorm(8))(randn(3, 6, 6))


def test_bits_get_the_same_gradient_in_any_memory_format():
    x, grad, gradients = randn(3, 8, 6, 6), randn(3, 5, 4, 4, seed=1), []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        bits = BitTensor.from_dense(x.contiguous(memory_format=memory_format))
        gradients.append(block_gradients(BinaryBlock(conv(8, 5), BinaryNorm(5)), bits, grad))
    assert gradients[0][0].any()
    for of_channels_last, of_contiguous in zip(*gradients, strict=True):
        assert torch.equal(of_channels_last, of_contiguous)


def test_a_subclass_with_a_forward_of_its_own_is_called():
    def doubled(base):
        class Doubled(base):
            def forward(self, x):
                return 2 * super().forward(x)

        return Doubled

    class Renamed(BinaryNorm):
        pass

    options = {"grad_quantizer": rounding(), "store": AccumulatorStore}
    assert BinaryBlock(BinaryLinear(8, 4, **options), Renamed(4)).is_fused
    assert not BinaryBlock(doubled(BinaryLinear)(8, 4, **options), BinaryNorm(4)).is_fused
    assert not BinaryBlock(BinaryLinear(8, 4, **options), doubled(BinaryNorm)(4)).is_fused
    product = BinaryConv2d(8, 4, 3, **options)
    assert BinaryBlock(product, BinaryNorm(4), pool=MaxPool2d(2)).is_fused
    assert not BinaryBlock(product, BinaryNorm(4), pool=doubled(MaxPool2d)(2)).is_fused


def test_pooling_behind_a_linear_layer_is_refused():
    with pytest.raises(TypeError, match="pooling stands behind a BinaryConv2d, not behind a BinaryLinear"):
        BinaryBlock(BinaryLinear(8, 4), BinaryNorm(4), pool=MaxPool2d(2))
