"""What keeps a block from recomputing, and how it runs then."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import (
    BinaryBlock,
    BinaryConv2d,
    BinaryLinear,
    BinaryNorm,
    L1BatchNorm,
    MaxPool2d,
    RPReLU,
)
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.quantizers.gradients import Int8Gradient, PowerOfTwoGradient
from bnn.weights import DiscreteStore, LatentStore
from tests.contracts import dense, randn
from tests.layers.blocks import block_of, conv, linear, parts_of, rounding


def latent(**options: Any) -> BinaryConv2d:
    return conv(3, 8, store=partial(LatentStore, **options))


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnConv(BinaryConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnPool(MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnSign(Sign):
    def forward(self, x: Tensor) -> Tensor:
        return x


class OwnTanh(nn.Hardtanh):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def real(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, **{"bias": False, **options})


CLAMPED = Int8Gradient(quantile=0.9, generator=torch.Generator())
OBSTACLES: dict[str, tuple[Callable[[], BinaryBlock], str]] = {
    "float gradient": (lambda: BinaryBlock(conv(3, 8, grad_quantizer=None), nn.BatchNorm2d(8)), "not rounded"),
    "rounded to nearest": (
        lambda: BinaryBlock(conv(3, 8, grad_quantizer=Int8Gradient()), nn.BatchNorm2d(8)),
        "not rounded to integers at random",
    ),
    "clamped": (lambda: BinaryBlock(conv(3, 8, grad_quantizer=CLAMPED), nn.BatchNorm2d(8)), "not rounded to integers"),
    "powers of two": (
        lambda: BinaryBlock(conv(3, 8, grad_quantizer=PowerOfTwoGradient()), nn.BatchNorm2d(8)),
        "not rounded to integers",
    ),
    "ternary": (lambda: BinaryBlock(latent(quantizer=Ternary()), nn.BatchNorm2d(8)), r"levels \(-1.0, 0.0, 1.0\)"),
    "ternary states": (lambda: BinaryBlock(conv(3, 8, store=DiscreteStore), nn.BatchNorm2d(8)), "levels"),
    "steep input quantizer": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=ReCU()), nn.BatchNorm2d(8)),
        "input quantizer is ReCU, whose gradient has no few steps",
    ),
    "ternary input": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=Ternary()), nn.BatchNorm2d(8)),
        "input quantizer is Ternary",
    ),
    "input quantizer of one's own": (
        lambda: BinaryBlock(conv(3, 8, input_quantizer=OwnSign()), nn.BatchNorm2d(8)),
        "input quantizer is OwnSign",
    ),
    "bias": (lambda: BinaryBlock(conv(3, 8, bias=True), nn.BatchNorm2d(8)), "has a bias, which the norm takes away"),
    "bias of a real product": (lambda: BinaryBlock(real(bias=True), nn.BatchNorm2d(8)), "has a bias"),
    "reflected padding": (
        lambda: BinaryBlock(real(padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)),
        "not padded by a number of zeros",
    ),
    "padding by name": (lambda: BinaryBlock(real(padding="same"), nn.BatchNorm2d(8)), "not padded by a number"),
    "product of one's own": (
        lambda: BinaryBlock(OwnConv(3, 8, 3, grad_quantizer=rounding()), nn.BatchNorm2d(8)),
        "its product is a OwnConv",
    ),
    "norm of signs": (lambda: BinaryBlock(conv(3, 8), BinaryNorm(8)), "norm is a BinaryNorm, not torch's batch norm"),
    "l1 norm": (lambda: BinaryBlock(conv(3, 8), L1BatchNorm(8)), "norm is a L1BatchNorm"),
    "norm of one's own": (lambda: BinaryBlock(conv(3, 8), Doubled(8)), "norm is a Doubled"),
    "no running statistics": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8, track_running_stats=False)),
        "no running statistics with a momentum",
    ),
    "cumulative statistics": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8, momentum=None)),
        "no running statistics with a momentum",
    ),
    "rectified with a learned scale": (
        lambda: BinaryBlock(conv(3, 8, learned_scale=True), nn.BatchNorm2d(8), rectifies=True),
        "a learned scale, which may be negative, is rectified",
    ),
    "overlapping windows": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), pool=MaxPool2d(3, stride=2)),
        "pooling windows overlap",
    ),
    "pooling of one's own": (lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), pool=OwnPool(2)), "pooling"),
    "learned activation": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=RPReLU(8)),
        "its activation is a RPReLU",
    ),
    "activation of one's own": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=OwnTanh()),
        "its activation is a OwnTanh",
    ),
    "signs of one's own": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=OwnSign()),
        "its activation is a OwnSign",
    ),
    "ternary activation": (
        lambda: BinaryBlock(conv(3, 8), nn.BatchNorm2d(8), activation=Ternary()),
        "its activation is a Ternary",
    ),
}


@pytest.mark.parametrize(("make", "reason"), OBSTACLES.values(), ids=OBSTACLES)
def test_an_obstacle_is_named_and_the_parts_run(make, reason):
    block = make()
    block.recompute = True
    assert block.obstacle is not None
    assert "\n" not in block.obstacle
    assert len(block.obstacle) < 120
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(block.obstacle)
    assert not block.is_fused
    x = randn(4, 3, 9, 9)
    for training in (True, False):
        torch.manual_seed(1)
        block.train(training)
        separate = copy.deepcopy(block)
        out, expected = block(x), parts_of(separate, x, None)
        assert type(out) is type(expected)
        assert torch.equal(dense(out), dense(expected))


@pytest.mark.parametrize("make", [lambda: latent(quantizer=ScaledSign()), lambda: latent(quantizer=ReCU(scale="mean"))])
def test_latent_weights_and_their_scales_are_no_obstacle(make):
    block = BinaryBlock(make(), nn.BatchNorm2d(8), recompute=True)
    assert block.obstacle is None
    x = randn(4, 3, 9, 9)
    assert block.product.store.scale() is not None
    torch.testing.assert_close(block(x).float(), parts_of(block, x, None), rtol=2**-7, atol=1e-5)
    block(x).backward(randn(4, 8, 7, 7, seed=1).bfloat16())
    assert block.product.store.weight.grad.any()


def test_subclasses_that_change_no_forward_recompute():
    renamed = type("Renamed", (nn.BatchNorm2d,), {})
    activation = type("Clamp", (nn.Hardtanh,), {})
    block = BinaryBlock(conv(3, 8), renamed(8), activation=activation(-2.0, 0.5), recompute=True)
    assert block.is_fused
    assert block.clamp_range == (-2.0, 0.5)


@pytest.mark.parametrize("recompute", [True, False])
def test_names_in_a_state_dict_are_the_same_in_both_cases(recompute):
    block = block_of(conv(3, 8, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh())
    block.recompute = recompute
    block(randn(2, 3, 9, 9))
    assert list(block.state_dict()) == [
        "product.learned_scale",
        "product.store.weight",
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    ]
    other = block_of(conv(3, 8, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh())
    other.recompute = not recompute
    other.load_state_dict(block.state_dict())


def test_a_block_recomputes_from_when_its_product_gets_integer_gradients():
    block = BinaryBlock(conv(3, 8, grad_quantizer=None), nn.BatchNorm2d(8), recompute=True)
    assert not block.is_fused
    block.product.grad_quantizer = rounding()
    assert block.is_fused
    block.recompute = False
    assert not block.is_fused


def test_signs_of_a_sum_run_as_parts():
    block = block_of(conv(4, 4, padding=1), activation=Sign())
    x = randn(3, 4, 5, 5)
    separate = copy.deepcopy(block)
    out = block(x, x)
    assert isinstance(out, BitTensor)
    assert torch.equal(out.dense(), parts_of(separate, x, x).dense())


def test_a_frozen_norm_uses_its_running_statistics():
    block = block_of(conv(3, 8))
    block.norm.eval()
    x = randn(4, 3, 6, 6)
    assert torch.equal(block(x), parts_of(block, x, None))
    assert not block.norm.running_mean.any()


@pytest.mark.parametrize("size", [16, 24])
def test_a_transposed_input_is_worked_off_by_its_samples(size):
    block = block_of(linear(16, 20))
    bits = BitTensor.from_dense(randn(16, size)).t()
    for x in (bits, randn(16, size).t()):
        expected = BitTensor.from_dense(dense(x).contiguous()) if x is bits else x.contiguous()
        assert torch.equal(block(x), block(expected))
        with torch.no_grad():
            block.eval()
            assert torch.equal(block(x), block(expected))
            block.train()


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_input_of_another_width_is_refused_although_its_bytes_fit(recompute, training):
    block = block_of(linear(48, 20)).train(training)
    block.recompute = recompute
    with torch.no_grad(), pytest.raises((ValueError, RuntimeError)):
        block(randn(8, 45))


@pytest.mark.parametrize("product", [lambda: nn.BatchNorm2d(8), lambda: nn.Conv1d(3, 8, 3), Sign])
def test_other_products_are_refused(product):
    with pytest.raises(TypeError, match="made of a convolution or a linear layer, got"):
        BinaryBlock(product(), nn.BatchNorm2d(8))


@pytest.mark.parametrize("product", [lambda: BinaryLinear(8, 4), lambda: nn.Linear(8, 4)])
def test_pooling_behind_a_linear_layer_is_refused(product):
    with pytest.raises(TypeError, match="pooling stands behind a convolution, not behind a"):
        BinaryBlock(product(), nn.BatchNorm1d(4), pool=MaxPool2d(2))
