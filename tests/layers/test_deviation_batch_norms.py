"""What every batch norm by another deviation promises, and each one's own constant."""

import math

import pytest
import torch
from torch import nn

import bnn.layers
from bnn.layers import L1BatchNorm, RangeBatchNorm, TopKBatchNorm
from bnn.layers.deviation_norm import DeviationBatchNorm
from tests.contracts import concrete_classes, randn

NORMS = concrete_classes(bnn.layers, DeviationBatchNorm)
norms = pytest.mark.parametrize("cls", NORMS)


def test_the_walk_finds_the_known_classes():
    assert {RangeBatchNorm, TopKBatchNorm} <= set(NORMS)
    assert {cls.__name__ for cls in NORMS} <= set(bnn.layers.__all__)


@norms
@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 2, 2)])
def test_gradient_is_that_of_the_formula(cls, shape):
    norm, y = cls(3).double(), randn(*shape).double().requires_grad_()
    assert torch.autograd.gradcheck(norm, y)
    assert torch.autograd.gradcheck(norm.eval(), y)


@norms
def test_gradient_of_gamma_and_beta(cls):
    norm, grad = cls(3), randn(6, 3, seed=1)
    x = norm(randn(6, 3))
    x.backward(grad)
    torch.testing.assert_close(norm.bias.grad, grad.sum(0))
    torch.testing.assert_close(norm.weight.grad, (grad * x.detach()).sum(0))


@norms
def test_does_not_see_the_scale_and_the_mean_of_a_channel(cls):
    norm, y = cls(3, eps=0.0), randn(20, 3, 4, 4)
    torch.testing.assert_close(norm(5 * y - 2), norm(y), atol=1e-5, rtol=1e-4)


@norms
def test_running_statistics_follow_the_batches_and_are_what_evaluation_uses(cls):
    norm, y = cls(2, momentum=0.25), randn(64, 2) * 3 + 4
    norm(y)
    mean, deviation = y.mean(0), norm.deviation((y - y.mean(0)).t())
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_deviation, 0.75 + 0.25 * deviation)
    before = norm.running_deviation.clone()
    torch.testing.assert_close(norm.eval()(y), (y - norm.running_mean) / (norm.running_deviation + norm.eps))
    assert torch.equal(norm.running_deviation, before)


@norms
def test_keeps_one_tensor_of_the_input_s_size(cls):
    from tests.contracts import saved_bytes

    y = randn(64, 8).requires_grad_()
    with saved_bytes() as saved:
        cls(8, affine=False)(y)
    assert sum(saved.values()) <= y.nbytes + 8 * 4 * 2


@norms
def test_a_constant_channel_becomes_beta(cls):
    norm = cls(2)
    nn.init.constant_(norm.bias, 0.5)
    y = torch.full((4, 2), 7.0, requires_grad=True)
    x = norm(y)
    assert torch.equal(x, torch.full((4, 2), 0.5))
    x.sum().backward()
    assert y.grad.isfinite().all()


@norms
def test_refuses_to_train_on_one_value(cls):
    with pytest.raises(ValueError, match="two values a channel"):
        cls(3)(torch.ones(1, 3))


def mean_deviation(norm: DeviationBatchNorm, n: int, generator: torch.Generator) -> float:
    """Over a thousand batches of n normal values."""
    y = torch.randn((1000, n), generator=generator)
    return float(norm.deviation(y - y.mean(1, keepdim=True)).mean())


@pytest.mark.parametrize(
    ("n", "paper", "sigma"), [(16, 1.51, 0.82), (64, 1.62, 0.88), (128, 1.67, 0.90), (1024, 1.74, 0.94)]
)
def test_constants_of_the_range(n, paper, sigma, generator):
    """In standard deviations of normal values: that of the paper is none."""
    for constant, expected in (("paper", paper), ("sigma", sigma)):
        norm = RangeBatchNorm(1, chunks=1, constant=constant)
        assert mean_deviation(norm, n, generator) == pytest.approx(expected, rel=0.02)


def test_range_of_chunks():
    values = torch.tensor([[0.0, 4, 1, 2, 9]])  # two chunks of ranges 4 and 1; the last value is left over
    expected = (4 + 1) / 2 / math.sqrt(2 * math.log(2))
    assert RangeBatchNorm(1, chunks=2, constant="paper").deviation(values).item() == pytest.approx(expected)
    assert RangeBatchNorm(1, chunks=16, constant="paper").deviation(values).item() == pytest.approx(expected)


@pytest.mark.parametrize(("k", "n", "expected"), [(1, 128, 1.40), (10, 128, 1.06), (1, 1024, 1.43)])
def test_constant_of_the_largest_distances(k, n, expected, generator):
    assert mean_deviation(TopKBatchNorm(1, k=k), n, generator) == pytest.approx(expected, rel=0.02)


def test_l1_gives_the_standard_deviation_of_normal_values(generator):
    norm = L1BatchNorm(1, momentum=1.0)
    norm(torch.randn((100_000, 1), generator=generator))
    assert norm.running_deviation.item() * math.sqrt(math.pi / 2) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RangeBatchNorm(2, chunks=0), "at least 1 chunk, got 0"),
        (lambda: RangeBatchNorm(2, constant="x"), "one of sigma, paper, got 'x'"),
        (lambda: TopKBatchNorm(2, k=0), "at least 1 distance, got k = 0"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
