"""The few steps that stand for the gradient of a sign where blocks keep bits."""

import pytest
import torch

from bnn.quantizers import ApproxSign, ReCU, Sign, Ternary


@pytest.mark.parametrize("window", [0.5, 1.0, torch.inf])
def test_the_window_is_exact(window):
    assert Sign(window=window).slope_steps == ((window,), (1.0, 0.0))


def test_the_polynomial_has_the_mean_of_each_third():
    (first, second, _), slopes = ApproxSign().slope_steps
    assert (first, second) == (1 / 3, 2 / 3)
    for low, high, slope in zip((0, first, second), (first, second, 1.0), slopes[:3], strict=True):
        x = torch.linspace(low, high, 1001, dtype=torch.float64)
        assert torch.trapezoid(2 - 2 * x, x).item() / (high - low) == pytest.approx(slope, rel=1e-9)
    assert slopes[3] == 0


def test_a_value_that_bfloat16_holds_as_1_lies_beyond_the_polynomial():
    *_, end = ApproxSign().slope_steps.edges
    assert torch.tensor(1.0).bfloat16().item() > end
    assert torch.tensor(1 - 2**-8).bfloat16().item() <= end, "the next smaller one lies before the end"


def test_others_have_none():
    assert all(quantizer.slope_steps is None for quantizer in (ApproxSign(normalize=True), ReCU(), Ternary()))
