"""FOO-VB: the equation of its factors, and what it has in common with Bayesian gradient descent."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.methods import FOOVB
from bnn.methods.foo_vb import updated_factor


@given(st.integers(1, 20), st.integers(0, 2**31))
def test_factor_solves_its_equation(n, seed):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(n, n, generator=generator, dtype=torch.float64) + 3 * torch.eye(n, dtype=torch.float64)
    expectation = torch.randn(n, n, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.T
    updated = updated_factor(factor, expectation)
    residual = updated @ updated.T + covariance @ expectation @ updated.T - covariance
    assert float(residual.abs().max()) < 1e-6 * max(1.0, float(covariance.abs().max()) ** 2)


def test_without_data_the_covariance_stays():
    factor = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    updated = updated_factor(factor, torch.zeros(2, 2, dtype=torch.float64))
    torch.testing.assert_close(updated @ updated.T, factor @ factor.T)


def test_factor_of_one_weight_is_that_of_gradient_descent():
    # x² + v e x = v: x = s (sqrt(1 + (s e / 2)²) - s e / 2), which is the deviation's law in `BGD`.
    s, e = 0.5, 1.6
    updated = updated_factor(torch.tensor([[s]], dtype=torch.float64), torch.tensor([[e]], dtype=torch.float64))
    half = s * e / 2
    assert float(updated) == pytest.approx(s * ((1 + half**2) ** 0.5 - half))


def step(weight: torch.nn.Parameter, inputs: torch.Tensor, **options) -> FOOVB:
    optimizer = FOOVB([weight], generator=torch.Generator().manual_seed(0), **options)

    def closure():
        optimizer.zero_grad()
        loss = (inputs @ weight.flatten(1).T).square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return optimizer


def test_deviation_shrinks_along_the_inputs_alone():
    weight = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = step(weight, torch.tensor([[10.0, 0.0]]), deviation=0.5, samples=2000)
    columns = optimizer.state[weight]["A"]
    columns = columns @ columns.T
    assert float(columns[0, 0]) < 0.3 < 0.45 < float(columns[1, 1])


def test_both_factors_shrink_by_their_closed_form():
    # Of the loss |W|² / 2 the gradient is W, so that E is variance^(3/2) times the unit matrix for rows and columns.
    weight = torch.nn.Parameter(torch.zeros(2, 50))
    optimizer = step(weight, torch.eye(50), deviation=0.5, samples=200)
    s, e = 0.5**0.5, 0.5**1.5
    expected = s * ((1 + (s * e / 2) ** 2) ** 0.5 - s * e / 2)
    for name in ("A", "B"):
        assert float(optimizer.state[weight][name].diagonal().mean()) == pytest.approx(expected, rel=0.03)


def test_mean_moves_by_both_covariances():
    weight = torch.nn.Parameter(torch.ones(1, 1, 1, 2))  # as a convolution's, of one row and two columns
    step(weight, torch.tensor([[1.0, 0.0]]), deviation=0.1, eta=0.5, samples=5000)
    # The gradient is [1, 0] on average, and a weight's variance 0.1².
    torch.testing.assert_close(weight.detach().flatten(), torch.tensor([1 - 0.5 * 0.01, 1.0]), rtol=0, atol=2e-4)


@pytest.mark.parametrize("options", [{"deviation": 0.0}, {"eta": 0.0}, {"samples": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FOOVB([torch.nn.Parameter(torch.zeros(1))], **options)
