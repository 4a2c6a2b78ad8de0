"""The fitted line in closed form, and that none is better."""

import pytest
import torch

from hwsim.line_fit import fit_line


def test_a_law_that_a_line_follows_is_met_exactly():
    """tanh(3 v) of widths x = 2 + 6 v, by a device whose law is tanh((x - 2)/2)."""
    line = fit_line(
        lambda v: torch.tanh(3 * v), lambda x: torch.tanh((x - 2) / 2).clamp_min(0), lambda p: 2 + 2 * torch.atanh(p)
    )
    assert line == pytest.approx((2.0, 6.0), abs=1e-6)


def test_no_other_line_has_a_smaller_error():
    """Of a law that no line follows: the error rises to all sides."""

    def probability(x: torch.Tensor) -> torch.Tensor:
        return 1 - torch.exp(-(x**3))

    v = torch.linspace(0, 1, 402, dtype=torch.float64)[1:-1]

    def errors(least: float, slope: float) -> float:
        return float((probability(least + slope * v) - v).square().sum())

    least, slope = fit_line(lambda v: v, probability, lambda p: (-torch.log1p(-p)) ** (1 / 3))
    best = errors(least, slope)
    for part in (1e-3, -1e-3):
        assert errors(least + part, slope) > best
        assert errors(least, slope + part) > best
