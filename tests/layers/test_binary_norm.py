"""The fused norm and sign against its formulas in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryNorm
from tests.contracts import saved_bytes


def formulas(y, bias, grad, eps=1e-5):
    """sign(x), dL/dy and dL/dbeta of the proposed batch norm, step by step in float64."""
    y, bias, grad = y.double(), bias.double(), grad.double()
    dims = [d for d in range(y.dim()) if d != 1]

    def mean(t):
        return t.mean(dims, keepdim=True)

    beta = bias.view(1, -1, *(1 for _ in y.shape[2:]))
    psi = mean((y - mean(y)).abs()) + eps
    x = (y - mean(y)) / psi + beta
    signs = torch.where(x >= 0, 1.0, -1.0)
    inside = grad * (x.abs() <= 1)
    v = inside / psi
    grad_y = v - mean(v) - mean(x.abs()) * mean(v * signs) * signs
    return signs, grad_y, inside.sum(dims)


@given(
    shape=st.one_of(
        st.tuples(st.integers(2, 9), st.integers(1, 9)),
        st.tuples(st.integers(2, 4), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)),
    ),
    seed=st.integers(0, 999),
)
def test_forward_and_backward_follow_the_formulas(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    norm = BinaryNorm(shape[1])
    with torch.no_grad():
        norm.bias.copy_(0.5 * torch.randn(shape[1], generator=generator))
    y = (3 * torch.randn(shape, generator=generator) + 1).requires_grad_()
    grad = torch.randn(shape, generator=generator)
    bits = norm(y)
    bits.backward(grad)
    signs, grad_y, grad_bias = formulas(y.detach(), norm.bias.detach(), grad)
    assert isinstance(bits, BitTensor)
    assert torch.equal(bits.dense(torch.float64), signs)
    torch.testing.assert_close(y.grad.double(), grad_y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.bias.grad.double(), grad_bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 5), (3, 5, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_keep_their_own(shape, dtype, generator):
    y = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    grad = torch.randn(shape, generator=generator).to(dtype)
    norm = BinaryNorm(5)
    bits = norm(y)
    bits.backward(grad)
    signs, grad_y, grad_bias = formulas(y.detach(), norm.bias.detach(), grad)
    assert bits.dtype == y.grad.dtype == dtype
    assert norm.running_mean.dtype == norm.bias.grad.dtype == torch.float32
    assert torch.equal(bits.dense(torch.float64), signs)
    torch.testing.assert_close(y.grad.double(), grad_y, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(norm.bias.grad.double(), grad_bias, rtol=1e-4, atol=1e-5)


def test_bits_are_channels_last_whatever_the_input_is(generator):
    y = torch.randn(2, 3, 4, 5, generator=generator)
    bits, expected = BinaryNorm(3)(y), BinaryNorm(3)(y.contiguous(memory_format=torch.channels_last))
    assert bits.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(bits.packed, expected.packed)


def test_gradient_is_exact_where_the_magnitudes_are_equal(generator):
    # With |x| = omega everywhere, omega sign(x) is x, and mean(sign) is 0: the formula is the exact l1 gradient.
    half = torch.randn(3, generator=generator, dtype=torch.float64).abs() + 0.5
    y = torch.cat([half, -half]).view(2, 3).requires_grad_()
    grad = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    _, grad_y, _ = formulas(y.detach(), torch.zeros(3), grad, eps=0.0)
    centred = y - y.mean(0)
    (centred / centred.abs().mean(0)).backward(grad)
    torch.testing.assert_close(grad_y, y.grad)


def test_keeps_two_bits_an_element(generator):
    y = torch.randn(16, 32, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = BinaryNorm(32)
    per_channel = 2 * 32 * 4
    with saved_bytes() as saved:
        norm(y)
    assert sum(saved.values()) == 2 * y.numel() // 8 + per_channel


def test_input_is_left_as_it_was(generator):
    y = torch.randn(4, 3, 5, 5, generator=generator)
    before = y.clone()
    BinaryNorm(3)(y)
    assert torch.equal(y, before)


def test_evaluation_uses_running_statistics(generator):
    norm = BinaryNorm(5, momentum=1.0)
    with torch.no_grad():
        norm.bias.copy_(0.3 * torch.randn(5, generator=generator))
    y = torch.randn(64, 5, generator=generator) * 2 + 1
    in_training = norm(y).dense()
    norm.eval()
    assert torch.equal(norm(y).dense(), in_training)
    assert torch.equal(norm(y[:1]).dense(), in_training[:1])


def test_nan_is_refused():
    with pytest.raises(NonFiniteError):
        BinaryNorm(2)(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 3), "expected 2 channels"), ((1, 2), "two values a channel"), ((0, 2), "two values a channel")],
)
def test_refuses_what_it_cannot_normalise(shape, message):
    with pytest.raises(ValueError, match=message):
        BinaryNorm(2)(torch.zeros(shape))
