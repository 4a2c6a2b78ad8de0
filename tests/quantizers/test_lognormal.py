import math

import pytest
import torch

from bnn.quantizers.gradients import fit_lognormal


def test_finds_mean_and_deviation_and_a_good_fit(generator):
    fit = fit_lognormal(torch.randn(50_000, generator=generator).mul(2).sub(7).exp())
    assert fit.mu == pytest.approx(-7, abs=0.05)
    assert fit.sigma == pytest.approx(2, abs=0.03)
    assert fit.octaves == pytest.approx(2 / math.log(2), abs=0.05)
    assert fit.zeros == 0
    assert fit.distance < 0.01


def test_zeros_are_told_apart(generator):
    gradient = torch.randn(20_000, generator=generator).exp()
    gradient[:5000] = 0
    fit = fit_lognormal(gradient)
    assert fit.zeros == 0.25
    assert fit.mu == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("values", "distance"), [([1.0, -1.0], 0.5), ([math.e, 1.0], 0.5 - 0.1587)])
def test_distance_of_few_values(values, distance):
    """Of two equal ones the step from 0 to 1 at the mean; of two, steps of a half at one deviation to either side."""
    assert fit_lognormal(torch.tensor(values)).distance == pytest.approx(distance, abs=1e-3)


def test_zeros_alone_have_no_fit():
    assert fit_lognormal(torch.zeros(3, 4)) is None
