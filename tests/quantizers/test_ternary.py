import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import NonFiniteError
from bnn.quantizers import Ternary
from tests.contracts import saved_bytes


@given(threshold=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 50))
def test_values_by_a_given_threshold(threshold, seed):
    x = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:3] = torch.tensor([threshold, -threshold, 0.0], dtype=torch.float64)
    expected = [0.0 if abs(v) <= threshold else math.copysign(1.0, v) for v in x.tolist()]
    assert Ternary(threshold=threshold)(x).tolist() == expected


def test_the_default_threshold_is_seven_tenths_of_the_mean_magnitude():
    x = torch.tensor([-2.0, -0.6, 0.1, 0.8, 1.5, 1.0])  # mean|x| = 1, so the threshold is 0.7
    assert Ternary()(x).tolist() == [-1, 0, 0, 1, 1, 1]
    assert torch.equal(Ternary()(x), Ternary(threshold=0.7)(x))
    assert torch.equal(Ternary()(x * 10), Ternary()(x)), "the rule follows the scale of the weights"


def test_normal_weights_become_zero_as_often_as_the_rule_says(generator):
    q = Ternary()(torch.randn(100_000, generator=generator))
    # P(|x| < 0.7 sqrt(2 / pi)) = erf(0.7 / sqrt(pi))
    assert (q == 0).double().mean().item() == pytest.approx(math.erf(0.7 / math.sqrt(math.pi)), abs=0.005)


def test_the_gradient_passes_inside_the_window_of_one():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.9, 1.0, 1.01]).requires_grad_()
    grad = torch.arange(1.0, 8.0)
    Ternary()(x).backward(grad)
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


SURROGATES = ["rectangular", "triangular"]
THRESHOLDS = st.sampled_from([0.0, 0.5, 1.0])
WINDOWS = st.sampled_from([0.25, 0.5, 1.0])


def slope(surrogate: str, x: torch.Tensor, **options: float) -> torch.Tensor:
    """The gradient that a 1 becomes."""
    x = x.clone().requires_grad_()
    Ternary(surrogate=surrogate, **options)(x).sum().backward()
    return x.grad


@given(threshold=THRESHOLDS, window=WINDOWS)
def test_windows_by_the_formulas(threshold, window):
    x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)  # hits every edge and peak
    distances = [abs(abs(v) - threshold) for v in x.tolist()]
    rectangle = [1 / (2 * window) if d <= window else 0.0 for d in distances]
    triangle = [max(0.0, (1 - d / window) / window) for d in distances]
    options = {"threshold": threshold, "window": window}
    assert slope("rectangular", x, **options).tolist() == pytest.approx(rectangle)
    assert slope("triangular", x, **options).tolist() == pytest.approx(triangle)


@pytest.mark.parametrize("surrogate", SURROGATES)
@given(window=WINDOWS, more=st.sampled_from([0.0, 0.3]))
def test_the_integral_over_a_window_is_the_step(surrogate, window, more):
    n = 4000
    x = (torch.arange(n, dtype=torch.float64) + 0.5) * 3 / n  # the midpoints of 0 .. 3
    area = slope(surrogate, x, threshold=window + more, window=window).mean().item() * 3
    assert area == pytest.approx(1, abs=2e-3)


def test_the_typical_window_is_the_straight_through_one(generator):
    x = torch.randn(500, generator=generator)
    assert torch.equal(
        slope("rectangular", x, threshold=0.5, window=0.5), slope("straight_through", x, threshold=0.5, window=9.0)
    )


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_a_window_follows_the_default_threshold(surrogate):
    x = torch.tensor([-2.0, -0.6, 0.1, 0.8, 1.5, 1.0])  # mean|x| = 1
    assert torch.equal(slope(surrogate, x), slope(surrogate, x, threshold=0.7))


@pytest.mark.parametrize(("surrogate", "bits"), [("straight_through", 1), ("rectangular", 1), ("triangular", 32)])
def test_bits_that_backward_keeps_of_an_element(surrogate, bits):
    x = torch.randn(16, 80).requires_grad_()
    with saved_bytes() as saved:
        Ternary(surrogate=surrogate)(x)
    assert sum(saved.values()) == 16 * 80 * bits / 8


@pytest.mark.parametrize("window", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_window_without_width(window):
    with pytest.raises(ValueError, match="finite and above 0"):
        Ternary(surrogate="rectangular", window=window)


def test_refuses_an_unknown_surrogate():
    with pytest.raises(ValueError, match="straight_through, rectangular, triangular, got 'round'"):
        Ternary(surrogate="round")


def test_refuses_nan_with_a_given_threshold_as_well():
    with pytest.raises(NonFiniteError, match="NaN"):
        Ternary(threshold=0.5)(torch.tensor([1.0, math.nan]))


@pytest.mark.parametrize("threshold", [-0.1, math.nan])
def test_refuses_a_negative_threshold(threshold):
    with pytest.raises(ValueError, match="at least 0"):
        Ternary(threshold=threshold)


def test_repr_tells_the_threshold():
    assert repr(Ternary()) == "Ternary(threshold=0.7 mean|x|)"
    assert repr(Ternary(threshold=0.0)) == "Ternary(threshold=0.0)"
    window = Ternary(threshold=0.5, surrogate="triangular", window=0.25)
    assert repr(window) == "Ternary(threshold=0.5, surrogate=triangular, window=0.25)"
