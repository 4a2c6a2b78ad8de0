"""The closed forms of the compressibility loss, and the saddle."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.methods import Compressibility, HoyerSquare
from tests.contracts import randn

N = 200_000


def vector(seed: int, n: int, zeros: int = 0) -> Tensor:
    w = randn(n, seed=seed).double()
    w[:zeros] = 0
    return w.requires_grad_()


def gradient(penalty, w: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(penalty([w]), w)
    return grad


@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(0, 49))
def test_bounds_and_scale(seed, n, zeros):
    w = vector(seed, n, min(zeros, n - 1))
    nonzeros = int(w.count_nonzero())
    loss = Compressibility()([w]).item()
    assert 1 - 1e-12 <= loss <= math.sqrt(nonzeros) * (1 + 1e-12)
    for factor in (-3.0, 1e-6, 1e6):
        assert Compressibility()([factor * w]).item() == pytest.approx(loss, rel=1e-9)


@given(st.integers(0, 2**31), st.integers(2, 50), st.integers(0, 48))
def test_gradient(seed, n, zeros):
    """Orthogonal to w, of norm sqrt(n - L^2) / |w|, and by the threshold c = |w|_2^2 / |w|_1."""
    w = vector(seed, n, min(zeros, n - 1))
    nonzeros, loss = int(w.count_nonzero()), Compressibility()([w]).item()
    grad, w = gradient(Compressibility(), w), w.detach()
    norm = w.norm().item()
    assert (w @ grad).item() == pytest.approx(0, abs=1e-9)
    expected = math.sqrt(max(nonzeros - loss**2, 0)) / norm
    assert grad.norm().item() == pytest.approx(expected, rel=1e-6, abs=1e-6 / norm)
    c = norm**2 / w.abs().sum()
    assert torch.allclose(grad, w.sign() / norm * (1 - w.abs() / c))
    assert ((w * grad)[w.abs() < c] >= 0).all(), "descent shrinks what is below c"
    assert ((w * grad)[w.abs() > c] <= 0).all(), "descent grows what is above c"


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("magnitude", [1.0, 0.3])
def test_a_ternary_weight_is_stationary_at_the_root_of_its_support(n, magnitude):
    w = torch.zeros(120, dtype=torch.float64)
    w[:n] = magnitude * randn(n, seed=n).sign()
    w.requires_grad_()
    assert Compressibility()([w]).item() == pytest.approx(math.sqrt(n))
    assert HoyerSquare()([w]).item() == pytest.approx(n)
    assert Compressibility(magnitude=0.7)([w]).item() == pytest.approx(math.sqrt(n) + 0.7 * magnitude)
    for penalty in (Compressibility(), HoyerSquare()):
        assert gradient(penalty, w).abs().max().item() == pytest.approx(0, abs=1e-6)


def test_a_ternary_weight_is_a_saddle():
    """Any change within the support lowers L; any growth of a zero raises it."""
    w = torch.zeros(30, dtype=torch.float64)
    w[:10] = 1
    loss = Compressibility()([w]).item()
    for seed in range(20):
        within = torch.zeros(30, dtype=torch.float64)
        within[:10] = 1e-2 * randn(10, seed=seed).double()
        assert Compressibility()([w + within]).item() < loss
        beyond = torch.zeros(30, dtype=torch.float64)
        beyond[10:] = 1e-2 * randn(20, seed=seed).double()
        assert Compressibility()([w + beyond]).item() > loss


def test_descent_on_the_loss_alone_ends_with_a_single_weight():
    w = randn(200).double()
    largest = w.abs().argmax()
    for _ in range(3000):
        w.requires_grad_()
        step = 0.02 * w.detach().norm() * gradient(Compressibility(), w)
        # A step does not cross zero, where the loss has its kink.
        w = torch.where(step.abs() >= w.abs(), 0.0, w.detach() - step)
    assert w.nonzero().flatten().tolist() == [largest]


@pytest.mark.parametrize(
    ("draw", "loss", "c"),
    [
        (lambda u: torch.special.ndtri(u), math.sqrt(2 * N / math.pi), 1.2533141),
        (lambda u: (0.5 - u).sign() * torch.log(1 - 2 * (u - 0.5).abs()), math.sqrt(N / 2), 2.0),
        (lambda u: 2 * u - 1, math.sqrt(3 * N) / 2, 2 / 3),
    ],
    ids=["normal", "laplace", "uniform"],
)
def test_large_vectors_of_known_distributions(draw, loss, c):
    """Quantiles in place of a sample, so that only their spacing is left as an error."""
    w = draw((torch.arange(N, dtype=torch.float64) + 0.5) / N)
    assert Compressibility()([w]).item() == pytest.approx(loss, rel=1e-3)
    ratio, with_c = Compressibility()([w]), Compressibility(magnitude=1.0)([w])
    assert (with_c - ratio).item() == pytest.approx(c, rel=1e-3)


@given(st.integers(0, 2**31), st.integers(1, 30))
def test_hoyer_square_is_the_square(seed, n):
    w = vector(seed, n)
    loss = Compressibility()([w]).item()
    assert HoyerSquare()([w]).item() == pytest.approx(loss**2)
    expected = 2 * loss * gradient(Compressibility(), w)
    assert torch.allclose(gradient(HoyerSquare(), w), expected, atol=1e-9)


@pytest.mark.parametrize("cls", [Compressibility, HoyerSquare])
class TestScope:
    def test_layers_add_up_and_a_network_is_one_vector(self, cls):
        weights = [randn(4, 5, seed=1), randn(3, 2, 3, 3, seed=2)]
        joined = torch.cat([weight.flatten() for weight in weights])
        assert torch.isclose(cls()(weights), sum(cls()([weight]) for weight in weights))
        assert torch.isclose(cls(scope="network")(weights), cls()([joined]))
        assert not torch.isclose(cls(scope="network")(weights), cls()(weights))

    def test_a_zero_weight_costs_nothing_and_has_no_gradient(self, cls):
        zero = torch.zeros(5, requires_grad=True)
        assert cls()([zero]).item() == 0
        assert not gradient(cls(), zero).any()

    def test_half_precision_is_summed_in_float32(self, cls):
        w = torch.full((70_000,), 2.0, dtype=torch.float16, requires_grad=True)
        assert cls()([w]).dtype == torch.float32
        assert cls()([w]).item() == pytest.approx(cls()([w.double()]).item(), rel=1e-3)
        assert gradient(cls(), w).isfinite().all()

    def test_an_unknown_scope_is_refused(self, cls):
        with pytest.raises(ValueError, match="scope of a penalty is one of layer, network, got 'net'"):
            cls(scope="net")


def test_the_magnitude_term_of_a_zero_weight_is_zero():
    zero = torch.zeros(5, requires_grad=True)
    penalty = Compressibility(magnitude=0.5)
    assert penalty([zero]).item() == 0
    assert gradient(penalty, zero).isfinite().all()
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Compressibility(magnitude=-1)
