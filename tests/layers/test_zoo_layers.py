"""`HalfTurn`, `BlurPool2d` and `OffsetBatchNorm`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.layers import BlurPool2d, HalfTurn, OffsetBatchNorm
from tests.contracts import saved_bytes


def same_by_hand(x, kernel, stride):
    """TensorFlow's padding `same`, by its definition."""
    sides = []
    for size in reversed(x.shape[2:]):
        pad = max(0, (-(-size // stride) - 1) * stride + kernel.shape[-1] - size)
        sides += [pad // 2, pad - pad // 2]
    return F.conv2d(F.pad(x, sides), kernel, stride=stride)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 2)])
def test_a_half_turn_makes_one_padding_of_the_other(size, kernel, stride, generator):
    x = torch.randn((2, 3, size, size), generator=generator)
    weight = torch.randn((4, 3, kernel, kernel), generator=generator)
    turned = F.conv2d(HalfTurn()(x), weight.flip(2, 3), stride=stride, padding=kernel // 2)
    torch.testing.assert_close(HalfTurn()(turned), same_by_hand(x, weight, stride))


def test_a_half_turn_is_a_flip_whose_channels_lie_last(generator):
    x = torch.randn((5, 3, 9, 8), generator=generator)
    turned = HalfTurn()(x)
    assert torch.equal(turned, x.flip(2, 3))
    assert turned.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(HalfTurn()(x[0]), x[0].flip(1, 2))
    (of_x,) = torch.autograd.grad(HalfTurn()(x.requires_grad_()), x, x)
    assert torch.equal(of_x, x.flip(2, 3))


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (1, 1)])
def test_a_blur_is_a_fixed_convolution_that_saves_nothing(size, generator):
    x = torch.randn((2, 3, *size), generator=generator, requires_grad=True)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3) / 16
    expected = F.conv2d(x, kernel, stride=2, padding=1, groups=3)
    grad = torch.randn(expected.shape, generator=generator)
    (of_x,) = torch.autograd.grad(expected, x, grad)
    with saved_bytes() as found:
        y = BlurPool2d(3)(x)
    assert not found
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, x, grad)[0], of_x)


def test_a_norm_without_a_factor_is_batch_norm_with_a_factor_of_one(generator):
    norm, of_torch = OffsetBatchNorm(5, eps=1e-2, momentum=0.3), nn.BatchNorm2d(5, eps=1e-2, momentum=0.3)
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    with torch.no_grad():
        norm.bias.copy_(torch.randn(5, generator=generator))
        of_torch.bias.copy_(norm.bias)
    x = torch.randn((3, 5, 4, 4), generator=generator)
    torch.testing.assert_close(norm(x), of_torch(x))
    torch.testing.assert_close(norm.eval()(x[:, :, 0, 0]), of_torch.eval()(x)[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"takes \[N, C\] or \[N, C, H, W\]"):
        norm(x[0])
