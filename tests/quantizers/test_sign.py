import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.quantizers import Sign
from tests.contracts import dense, saved_bytes, signs


def test_zero_is_plus_one():
    assert torch.equal(dense(Sign()(torch.tensor([0.0, -0.0, -1e-30]))), torch.tensor([1.0, 1, -1]))


@given(window=st.sampled_from([0.25, 1.0, 1.5, math.inf]), seed=st.integers(0, 100))
def test_the_gradient_passes_inside_the_closed_window(window, seed):
    x = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    x[:4] = torch.tensor([window, -window, math.nextafter(window, math.inf), 0.0])
    x.requires_grad_()
    grad = torch.arange(1.0, 65.0)
    Sign(window=window)(x).backward(grad)
    assert torch.equal(x.grad, grad * (x.abs() <= window))


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x,
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.permute(3, 0, 2, 1),
        lambda x: x[:, ::2],
        lambda x: x[0, 0, 0],
    ],
    ids=["contiguous", "channels last", "permuted", "with gaps", "a vector"],
)
def test_any_layout_of_values_and_gradient(layout, generator):
    x = layout(torch.randn(2, 6, 5, 3, generator=generator)).detach().requires_grad_()
    q = Sign()(x)
    assert torch.equal(dense(q), signs(x.detach()))
    one = torch.ones(()).expand(x.shape)
    for grad in (one, torch.randn(x.shape, generator=generator), torch.randn_like(x.detach())):
        (got,) = torch.autograd.grad(q, x, grad, retain_graph=True)
        assert torch.equal(got, grad * (x.abs() <= 1))


def test_infinite_values_have_a_sign_and_a_gradient_in_an_infinite_window():
    x = torch.tensor([math.inf, -math.inf, 1.0]).requires_grad_()
    q = Sign(window=math.inf)(x)
    q.backward(torch.ones(3))
    assert torch.equal(dense(q), signs(x.detach()))
    assert torch.equal(x.grad, torch.ones(3))


def test_backward_keeps_one_bit_an_element():
    x = torch.randn(16, 80).requires_grad_()
    with saved_bytes() as saved:
        Sign()(x)
    assert sum(saved.values()) == 16 * 80 / 8


@pytest.mark.parametrize("window", [0.0, -1.0, math.nan])
def test_refuses_a_window_that_passes_nothing(window):
    with pytest.raises(ValueError, match="above 0"):
        Sign(window=window)


def test_repr_tells_the_window():
    assert repr(Sign(window=1.5)) == "Sign(window=1.5)"


def test_a_gradient_in_another_order_keeps_its_dtype(generator):
    x = torch.randn(4, 6, dtype=torch.float64, generator=generator).requires_grad_()
    grad = torch.randn(6, 4, dtype=torch.float64, generator=generator).t()
    Sign(window=math.inf)(x).backward(grad)
    assert torch.equal(x.grad, grad), "no bit of float64 is lost"
