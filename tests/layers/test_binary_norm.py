"""The fused norm and sign against its formulas in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryNorm
from tests.contracts import saved_bytes


def formulas(y, bias, grad, eps=1e-5):
    """sign(x), dL/dy and dL/dbeta, step by step in float64; the levels by integrals."""
    y, bias, grad = y.double(), bias.double(), grad.double()
    dims = [d for d in range(y.dim()) if d != 1]

    def mean(t):
        return t.mean(dims, keepdim=True)

    beta = bias.view(1, -1, *(1 for _ in y.shape[2:]))
    psi = math.sqrt(math.pi / 2) * mean((y - mean(y)).abs()) + eps
    x = (y - mean(y)) / psi + beta
    signs = torch.where(x >= 0, 1.0, -1.0)
    inside = grad * (x.abs() <= 1)
    v = inside / psi
    q = torch.zeros_like(x)
    for c, offset in enumerate(bias.tolist()):
        for low, high in ((-9.0, -1.0), (-1.0, 0.0), (0.0, 1.0), (1.0, 9.0)):
            z = torch.linspace(low, high, 4001, dtype=torch.float64) - offset
            density = torch.exp(-z.square() / 2)
            level = torch.trapezoid(z * density, z) / torch.trapezoid(density, z)
            of = x[:, c]
            within = (of >= low) & (of < high) if high < 1 else (of >= low) & (of <= high) if low == 0 else of > low
            q[:, c][within if low > -9 else of < high] = level
    grad_y = v - mean(v) - mean(v * q) * q
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


def test_gradient_is_nearer_to_that_of_the_exact_norm_than_two_levels_are(generator):
    """Where the offset is far from 0, as it is after some epochs, omega sign(x) says little of x - beta."""
    y = torch.randn(2000, 40, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.linspace(-2.5, 2.5, 40, dtype=torch.float64)
    grad = torch.randn(2000, 40, generator=generator, dtype=torch.float64) + bias
    norm = BinaryNorm(40)
    with torch.no_grad():
        norm.bias.copy_(bias)
    norm(y).backward(grad)
    exact = y.detach().clone().requires_grad_()
    x = (exact - exact.mean(0)) / exact.std(0, correction=0) + bias
    v = grad * (x.detach().abs() <= 1)
    x.backward(v)
    signs = x.detach().sign()
    two_levels = v - v.mean(0) - x.detach().abs().mean(0) * (v * signs).mean(0) * signs
    ours, theirs = (torch.nn.functional.cosine_similarity(g, exact.grad, dim=0) for g in (y.grad, two_levels))
    assert (ours > 0.8).all()
    assert (ours > theirs)[bias.abs() > 0.5].all()


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
    [((4, 3), r"expected a batch \[N, 2, ...\]"), ((1, 2), "two values a channel"), ((0, 2), "two values a channel")],
)
def test_refuses_what_it_cannot_normalise(shape, message):
    with pytest.raises(ValueError, match=message):
        BinaryNorm(2)(torch.zeros(shape))


def test_eps_is_added_to_the_deviation_in_training_and_in_evaluation():
    """Of -1, 0 and 1 it is 2/3 sqrt(pi/2) = 0.836: with 1 for eps, beta = 0.5 moves the threshold to -0.918."""
    y = torch.tensor([[-1.0], [0.0], [1.0]])
    norm = BinaryNorm(1, eps=1.0, momentum=1.0)
    with torch.no_grad():
        norm.bias.fill_(0.5)
    assert norm(y).dense().flatten().tolist() == [-1, 1, 1]
    norm.eval()
    y = torch.tensor([[-0.93], [-0.91], [0.1]])
    assert norm(y).dense().flatten().tolist() == [-1, 1, 1]
