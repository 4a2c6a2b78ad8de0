"""The norm of bits with a real result: its formula, its gradient and what it keeps."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.layers import BinaryNorm, BitBatchNorm
from tests.contracts import randn, saved_bytes

shapes = st.sampled_from([(7, 5), (4, 9, 6, 5), (2, 64, 3, 3)])


def norm_of(channels, kind=BitBatchNorm):
    norm = kind(channels)
    torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(3))
    return norm


def of_channel(values, like):
    return values.view(1, -1, *(1 for _ in like.shape[2:]))


@given(shape=shapes, seed=st.integers(0, 1000))
def test_forward_and_backward_follow_the_formulas(shape, seed):
    y, grad = randn(*shape, seed=seed).requires_grad_(), randn(*shape, seed=seed + 1)
    norm = norm_of(shape[1])
    x = norm(y)
    x.backward(grad)
    dims = [d for d in range(y.dim()) if d != 1]
    wide = y.detach().double()
    centred = wide - wide.mean(dims, keepdim=True)
    psi = math.sqrt(math.pi / 2) * centred.abs().mean(dims, keepdim=True) + norm.eps
    expected = centred / psi + of_channel(norm.bias.detach(), y)
    torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=1e-5)
    v, beta = grad.double() / psi, norm.bias.detach().double()
    # Means of a normal value above and below -beta: the inverse Mills ratios.
    density, share = torch.exp(-beta.square() / 2) / math.sqrt(2 * math.pi), torch.special.ndtr(beta)
    q = torch.where(x >= 0, of_channel(density / share, y), of_channel(-density / (1 - share), y))
    expected_grad = v - v.mean(dims, keepdim=True) - (v * q).mean(dims, keepdim=True) * q
    torch.testing.assert_close(y.grad.double(), expected_grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.bias.grad.double(), grad.double().sum(dims), rtol=1e-4, atol=1e-4)


def test_its_sign_and_statistics_are_those_of_binary_norm():
    y = randn(6, 5, 4, 4)
    real, binary = norm_of(5), norm_of(5, BinaryNorm)
    for _ in range(2):
        assert torch.equal(real(y) >= 0, binary(y).dense(torch.bool))
        for name, buffer in binary.named_buffers():
            assert torch.equal(real.get_buffer(name), buffer)
        real.eval(), binary.eval()


def test_keeps_one_bit_an_element():
    with saved_bytes() as saved:
        norm_of(16)(randn(10, 16, 8, 8).requires_grad_())
    assert sum(saved.values()) == 10 * 16 * 8 * 8 / 8 + 2 * 4 * 16


def test_one_value_a_channel_is_refused():
    with pytest.raises(ValueError, match="two values a channel"):
        norm_of(3)(randn(1, 3))
