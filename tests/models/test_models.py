"""Weight counts, shapes, multiply-accumulates and gradients of every network."""

import inspect
from itertools import pairwise

import pytest
import torch
from torch import nn

import bnn.models
from bnn.bits import BitTensor
from bnn.cost import count_layers, storage
from bnn.layers import MaxPool2d
from bnn.models import (
    binarynet,
    birealnet18,
    cnv,
    gxnor_cnn,
    gxnor_vgg,
    initialize,
    mlp,
    networks,
    resnet8,
    resnet18,
    resnet20,
    resnete18,
    vgg7,
    vgg_small,
)
from bnn.models.zoo import RELEASED
from bnn.weights import LatentStore
from tests.contracts import parts_in_order

# All weights and those of them that are binary, at the defaults.
WEIGHTS = {
    mlp: (399_872, 399_872),
    cnv: (1_542_848, 1_542_848),
    gxnor_cnn: (581_408, 581_408),
    gxnor_vgg: (12_973_440, 12_973_440),
    binarynet: (14_022_016, 14_022_016),
    vgg7: (12_973_440, 12_959_744),
    vgg_small: (4_656_512, 4_571_136),
    resnet8: (74_800, 73_728),
    resnet18: (10_992_320, 10_985_472),
    resnet20: (268_336, 267_264),
    resnete18: (11_678_912, 10_985_472),
    birealnet18: (11_678_912, 10_985_472),
}

# Other sizes, small enough to be trained a step.
SMALL = {
    mlp: {"input_shape": (2, 5, 7), "classes": 3, "hidden": (12, 9)},
    cnv: {"input_shape": (1, 33, 32), "classes": 3},
    gxnor_cnn: {"input_shape": (2, 17, 20), "classes": 3},
    gxnor_vgg: {"input_shape": (1, 8, 16), "classes": 3},
    binarynet: {"input_shape": (1, 8, 16), "classes": 3},
    vgg7: {"input_shape": (1, 8, 16), "classes": 3, "width": 8, "hidden": 12},
    vgg_small: {"input_shape": (1, 16, 8), "classes": 3, "width": 8},
    resnet8: {"input_shape": (2, 12, 8), "classes": 3},
    resnet18: {"input_shape": (1, 16, 8), "classes": 3},
    resnet20: {"input_shape": (2, 12, 8), "classes": 3},
    resnete18: {"input_shape": (1, 40, 33), "classes": 3},
    birealnet18: {"input_shape": (2, 33, 40), "classes": 3},
}


def on_meta(build, **options) -> nn.Module:
    with torch.device("meta"):
        return build(**options)


def test_every_network_is_listed_here():
    functions = {function for _, function in inspect.getmembers(bnn.models, inspect.isfunction)}
    assert functions == {initialize, networks, *WEIGHTS}
    assert set(networks().values()) == {*WEIGHTS, *(released.build for released in RELEASED.values())}
    assert set(bnn.models.__all__) == {function.__name__ for function in functions}


@pytest.mark.parametrize("build", WEIGHTS)
def test_weight_counts_are_those_of_the_docstring(build):
    weights, binary = WEIGHTS[build]
    stored = storage(on_meta(build))
    assert (stored.weights, stored.discrete_weights) == (weights, binary)
    assert f"{weights:,}" in build.__doc__
    assert f"{binary:,} binary" in build.__doc__ or "all binary" in build.__doc__ or "in every layer" in build.__doc__


def convolution(inputs: int, outputs: int, size: int, kernel: int = 3) -> int:
    return inputs * outputs * kernel * kernel * size * size


def cifar_residual(widths: list[int], convolutions: int) -> int:
    """A stem, stages of `convolutions` that start at half the size, and a classifier."""
    macs, size, channels = convolution(3, widths[0], 32) + 10 * widths[-1], 32, widths[0]
    for stage, width in enumerate(widths):
        size = size // 2 if stage else size
        macs += convolution(channels, width, size) + (convolutions - 1) * convolution(width, width, size)
        channels = width
    return macs


def imagenet_residual() -> int:
    macs, size, channels = convolution(3, 64, 112, 7) + 1000 * 512, 56, 64
    for width in (64, 128, 256, 512):
        if width > 64:
            size //= 2
            macs += convolution(channels, width, size, 1)
        macs += convolution(channels, width, size) + 3 * convolution(width, width, size)
        channels = width
    return macs


def chain(channels: list[int], sizes: list[int], features: list[int]) -> int:
    """Convolutions with these channels and output sizes, then linear layers with these features."""
    convolutions = zip(channels, channels[1:], sizes, strict=False)
    linears = pairwise(features)
    return sum(convolution(*shape) for shape in convolutions) + sum(a * b for a, b in linears)


VGG = [3, 128, 128, 256, 256, 512, 512]
MULTIPLY_ACCUMULATES = {
    mlp: 399_872,
    cnv: chain([3, 64, 64, 128, 128, 256, 256], [30, 28, 12, 10, 3, 1], [256, 512, 512, 10]),
    binarynet: chain(VGG, [32, 32, 16, 16, 8, 8], [8192, 1024, 1024, 10]),
    gxnor_cnn: 460_800 + 3_276_800 + 524_288 + 5_120,
    gxnor_vgg: chain(VGG, [32, 32, 16, 16, 8, 8], [8192, 1024, 10]),
    vgg7: chain(VGG, [32, 32, 16, 16, 8, 8], [8192, 1024, 10]),
    vgg_small: chain(VGG, [32, 32, 16, 16, 8, 8], [8192, 10]),
    resnet8: 3_060_352,
    resnet18: cifar_residual([64, 128, 256, 512], 4),
    resnet20: cifar_residual([16, 32, 64], 6),
    resnete18: imagenet_residual(),
    birealnet18: imagenet_residual(),
}
# Published figures, in millions.
PUBLISHED = {binarynet: 617.0, resnet18: 549.1, resnete18: 1814}


@pytest.mark.parametrize("build", WEIGHTS)
def test_multiply_accumulates_of_an_image(build):
    shape = inspect.signature(build).parameters["input_shape"].default
    macs = sum(layer.multiply_accumulates for layer in count_layers(on_meta(build), shape))
    assert macs == MULTIPLY_ACCUMULATES[build]
    if build in PUBLISHED:
        assert macs / 1e6 == pytest.approx(PUBLISHED[build], abs=0.5 if PUBLISHED[build] > 1000 else 0.05)


@pytest.mark.parametrize("build", WEIGHTS)
def test_default_classes_and_other_sizes(build):
    shape = inspect.signature(build).parameters["input_shape"].default
    classes = inspect.signature(build).parameters["classes"].default
    assert on_meta(build)(torch.empty((2, *shape), device="meta")).shape == (2, classes)
    assert on_meta(build, **SMALL[build]).eval()(
        torch.empty((2, *SMALL[build]["input_shape"]), device="meta")
    ).shape == (2, 3)


def small(build, generator: torch.Generator) -> nn.Module:
    model = build(**SMALL[build])
    initialize(model, generator=generator)
    return model


@pytest.mark.parametrize("build", WEIGHTS)
def test_a_training_step_reaches_every_parameter(build, generator):
    model = small(build, generator)
    x = torch.randn((4, *SMALL[build]["input_shape"]), generator=generator)
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


# Of the largest networks one.
@pytest.mark.parametrize("build", [build for build in WEIGHTS if build not in (resnet18, resnete18, gxnor_vgg)])
def test_initialize_depends_on_the_generator_alone(build):
    model = build(**SMALL[build])
    drawn = {name: weight for name, weight in model.state_dict().items() if weight.dim() > 1}

    def sums(seed: int) -> list[float]:
        torch.manual_seed(torch.seed() % 1000)
        initialize(model, generator=torch.Generator().manual_seed(seed))
        return [weight.sum().item() for weight in drawn.values()]

    one, again, other = sums(0), sums(0), sums(3)
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_initialize_draws_at_the_documented_scale(generator):
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64), nn.Linear(500, 200))
    with torch.no_grad():
        model[1].weight.fill_(7.0)
    before = torch.get_rng_state()
    initialize(model, generator=generator)
    assert model[0].weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)
    assert model[2].weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert not model[0].bias.any()
    assert not model[2].bias.any()
    assert (model[1].weight == 7).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_binary_networks_take_a_real_image_and_bits_after_it(generator):
    for build in (mlp, cnv, binarynet):
        first = count_layers(on_meta(build), inspect.signature(build).parameters["input_shape"].default)
        widths = [layer.input_bits for layer in first if layer.weights]
        assert widths == [32] + [1] * (len(widths) - 1)


@pytest.mark.parametrize("shape", [(3, 31, 32), (3, 32, 31), (1, 8, 8)])
def test_cnv_refuses_images_that_leave_nothing_to_convolve(shape):
    with pytest.raises(ValueError, match="cnv takes images of at least 32x32"):
        cnv(input_shape=shape)


def pooled_inputs(build, generator) -> list[type]:
    model = small(build, generator)
    kinds = []
    for module in model.modules():
        if isinstance(module, MaxPool2d):
            module.register_forward_hook(lambda _, inputs, output: kinds.append((type(inputs[0]), type(output))))
    model(torch.randn((2, *SMALL[build]["input_shape"]), generator=generator))
    return kinds


def test_cnv_pools_bits_and_the_others_pool_sums(generator):
    assert pooled_inputs(cnv, generator) == [(BitTensor, BitTensor)] * 2
    for build in (binarynet, vgg_small):
        assert pooled_inputs(build, generator) == [(torch.Tensor, torch.Tensor)] * 3


@pytest.mark.parametrize(
    ("build", "order"),
    [
        (mlp, "Flatten" + 4 * " BinaryLinear BatchNorm1d Sign" + " BinaryLinear BatchNorm1d"),
        (
            binarynet,
            3 * "BinaryConv2d BatchNorm2d Sign BinaryConv2d MaxPool2d BatchNorm2d Sign "
            + "Flatten"
            + 2 * " BinaryLinear BatchNorm1d Sign"
            + " BinaryLinear BatchNorm1d",
        ),
        (
            cnv,
            2 * (2 * "BinaryConv2d BatchNorm2d Sign " + "MaxPool2d ")
            + 2 * "BinaryConv2d BatchNorm2d Sign "
            + "Flatten"
            + 2 * " BinaryLinear BatchNorm1d Sign"
            + " BinaryLinear BatchNorm1d",
        ),
        (
            vgg_small,
            "Conv2d BatchNorm2d Hardtanh BinaryConv2d MaxPool2d BatchNorm2d Hardtanh "
            + 2 * "BinaryConv2d BatchNorm2d Hardtanh BinaryConv2d MaxPool2d BatchNorm2d Hardtanh "
            + "Flatten Linear",
        ),
    ],
)
def test_order_of_layers(build, order):
    assert [type(part).__name__ for part in parts_in_order(on_meta(build))] == order.split()


@pytest.mark.parametrize(("build", "single"), [(resnet18, True), (resnet20, False)])
def test_shortcuts_of_the_cifar_blocks(build, single, generator):
    """x + F(x) with F of one or two convolutions, halved and widened by averages and channels of zeros."""
    model = small(build, generator)
    blocks = [module for module in model if hasattr(module, "second")]
    assert len(blocks) == (8 if single else 9)
    for block in blocks[1:4]:
        first, second = block.first, block.second
        width, channels = first.product.store.shape[:2]
        x = torch.randn((2, channels, 6, 4), generator=generator)
        shortcut = x
        if first.product.stride == 2:
            # Written out: the mean of each 2x2 window.
            shortcut = x.view(2, channels, 3, 2, 2, 2).mean((3, 5))
        if channels != width:
            zeros = torch.zeros((2, (width - channels) // 2, *shortcut.shape[2:]))
            shortcut = torch.cat([zeros, shortcut, zeros], 1)
        hidden = first.norm(first.product(x))
        if not single:
            hidden = hidden + shortcut
        hidden = hidden.clamp(-1, 1)
        expected = (second.norm(second.product(hidden)) + (shortcut if single else hidden)).clamp(-1, 1)
        torch.testing.assert_close(block(x), expected)
    assert any(block.first.product.stride == 2 for block in blocks[1:4])


@pytest.mark.parametrize("build", [resnete18, birealnet18])
def test_shortcut_around_every_convolution_of_the_imagenet_blocks(build, generator):
    model = small(build, generator)
    blocks = [module for module in model if hasattr(module, "shortcut")]
    assert len(blocks) == 16
    for block in blocks[3:5]:
        x = torch.randn((2, 64, 6, 4), generator=generator)
        shortcut = x
        conv, norm = block.block.product, block.block.norm
        if conv.stride == 2:
            pooled = x.view(2, 64, 3, 2, 2, 2).mean((3, 5))
            downsampling = block.shortcut[1]
            shortcut = downsampling.norm(nn.functional.conv2d(pooled, downsampling.product.weight))
        torch.testing.assert_close(block(x), norm(conv(x)) + shortcut)
    assert [block.block.product.stride for block in blocks].count(2) == 3


def test_bireal_scales_its_filters_and_resnete_does_not(generator):
    for build, scaled in ((birealnet18, True), (resnete18, False)):
        block = next(module for module in small(build, generator) if hasattr(module, "shortcut"))
        scale = block.block.product.store.scale()
        assert (scale is not None) == scaled
        if scaled:
            torch.testing.assert_close(scale, block.block.product.store.weight.abs().mean((1, 2, 3)))


@pytest.mark.parametrize("build", WEIGHTS)
def test_store_makes_the_binary_weights(build):
    made = []

    def store(shape):
        made.append(tuple(shape))
        return LatentStore(shape)

    on_meta(build, store=store)
    assert sum(torch.Size(shape).numel() for shape in made) == WEIGHTS[build][1]
