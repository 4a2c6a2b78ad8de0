import math

import pytest
import torch

from bnn.layers import L1BatchNorm


def formula(y: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float) -> torch.Tensor:
    """The norm of each channel in float64, written out."""
    y = y.double()
    out = torch.empty_like(y)
    for c in range(y.shape[1]):
        centred = y[:, c] - y[:, c].mean()
        out[:, c] = gamma[c] * centred / (centred.abs().mean() + eps) + beta[c]
    return out


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_equals_its_formula(shape, generator):
    norm = L1BatchNorm(3, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 3, -1]))
    y = torch.randn(shape, generator=generator) * 3 + 2
    expected = formula(y, norm.weight.detach(), norm.bias.detach(), 1e-3)
    torch.testing.assert_close(norm(y), expected.float())


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 2, 2)])
def test_gradient_is_that_of_the_formula(shape, generator):
    norm = L1BatchNorm(3).double()
    y = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(norm, y)
    assert torch.autograd.gradcheck(norm.eval(), y)


def test_gradient_of_gamma_and_beta(generator):
    norm = L1BatchNorm(3)
    y = torch.randn((6, 3), generator=generator)
    x = norm(y)
    grad = torch.randn((6, 3), generator=generator)
    x.backward(grad)
    torch.testing.assert_close(norm.bias.grad, grad.sum(0))
    torch.testing.assert_close(norm.weight.grad, (grad * x.detach()).sum(0))


def test_a_channel_has_mean_zero_and_mean_magnitude_one(generator):
    x = L1BatchNorm(3, affine=False)(torch.randn((50, 3, 4, 4), generator=generator) * 5 + 1)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.abs().mean((0, 2, 3)), torch.ones(3))


def test_the_deviation_of_normal_values_is_root_two_over_pi(generator):
    norm = L1BatchNorm(1, momentum=1.0)
    norm(torch.randn((200_000, 1), generator=generator) * 3)
    assert norm.running_deviation.item() == pytest.approx(3 * math.sqrt(2 / math.pi), rel=0.01)


def test_running_statistics_follow_the_batches_by_momentum(generator):
    norm = L1BatchNorm(2, momentum=0.25)
    y = torch.randn((8, 2), generator=generator) + 4
    norm(y)
    mean = y.mean(0)
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)
    torch.testing.assert_close(norm.running_deviation, 0.75 + 0.25 * (y - mean).abs().mean(0))


def test_evaluation_uses_and_keeps_the_running_statistics(generator):
    norm = L1BatchNorm(2, eps=0.0).eval()
    norm.running_mean.copy_(torch.tensor([1.0, -1]))
    norm.running_deviation.copy_(torch.tensor([2.0, 4]))
    y = torch.randn((1, 2), generator=generator)
    torch.testing.assert_close(norm(y), (y - torch.tensor([1.0, -1])) / torch.tensor([2.0, 4]))
    assert norm.running_mean.tolist() == [1, -1]
    assert norm.running_deviation.tolist() == [2, 4]


def test_a_constant_channel_becomes_beta():
    norm = L1BatchNorm(2)
    torch.nn.init.constant_(norm.bias, 0.5)
    y = torch.full((4, 2), 7.0, requires_grad=True)
    x = norm(y)
    assert torch.equal(x, torch.full((4, 2), 0.5))
    x.sum().backward()
    assert y.grad.isfinite().all()


def test_takes_lower_precision_than_its_statistics(generator):
    norm = L1BatchNorm(2, momentum=1.0)
    y = torch.randn((64, 2), generator=generator)
    norm(y.bfloat16())
    assert norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.running_deviation, (y - y.mean(0)).abs().mean(0), rtol=0.02, atol=0)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (0, 3), (0, 3, 4, 4)])
def test_refuses_to_train_on_fewer_than_two_values_and_keeps_its_statistics(shape):
    norm = L1BatchNorm(3)
    with pytest.raises(ValueError, match="two values a channel"):
        norm(torch.ones(shape))
    assert norm.running_mean.tolist() == [0, 0, 0]
    norm.eval()(torch.ones(shape))


def test_refuses_other_channels():
    with pytest.raises(ValueError, match=r"expected a batch \[N, 3, ...\]"):
        L1BatchNorm(3)(torch.ones(4, 1))


def test_state_dict_keys_are_stable():
    assert list(L1BatchNorm(3).state_dict()) == ["weight", "bias", "running_mean", "running_deviation"]
    assert list(L1BatchNorm(3, affine=False).state_dict()) == ["running_mean", "running_deviation"]


def test_repr():
    assert repr(L1BatchNorm(3)) == "L1BatchNorm(3, eps=1e-05, momentum=0.1)"
