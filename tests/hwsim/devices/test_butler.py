"""The closed form against the Fokker-Planck equation, and against an exact trajectory."""

import math

import pytest
import torch

from hwsim.devices.butler import Butler
from hwsim.devices.fokker_planck import FokkerPlanck

TAU = torch.linspace(0.02, 8, 2000, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
@pytest.mark.parametrize(("overdrive", "error"), [(1.1, 0.35), (1.5, 0.055), (2.0, 0.015), (3.0, 0.0004), (5.0, 0.005)])
def test_error_against_the_equation_is_that_of_the_reference(overdrive, error):
    tau = TAU * 4 if overdrive < 2 else TAU
    gap = Butler().probability(60.0, overdrive, tau) - FokkerPlanck().probability(60.0, overdrive, tau)
    assert float(gap.abs().max()) == pytest.approx(error, rel=0.05, abs=2.5e-4)


@pytest.mark.parametrize("delta", [30.0, 60.0, 90.0])
@pytest.mark.parametrize("overdrive", [2.0, 2.5, 3.5, 6.0, 8.0])
def test_error_where_it_is_valid(delta, overdrive):
    gap = Butler().probability(delta, overdrive, TAU) - FokkerPlanck().probability(delta, overdrive, TAU)
    assert gap.abs().max() < 0.025


@pytest.mark.parametrize(("overdrive", "frozen", "quarter_turn"), [(3.0, 0.171, 0.025), (5.0, 0.021, 0.061)])
def test_other_closed_forms_are_as_far_off_as_the_reference_says(overdrive, frozen, quarter_turn):
    # Guards the solution that Butler's form is held to: the angle frozen at the start, and θc = π/2.
    p = FokkerPlanck().probability(60.0, overdrive, TAU)
    growth = torch.exp(2 * (overdrive - 1) * TAU)
    spread = math.pi**2 / 4 * 60
    assert float((torch.exp(-spread / growth) - p).abs().max()) == pytest.approx(frozen, abs=1.5e-3)
    moving = torch.exp(-spread * (overdrive - 1) / (overdrive * growth - 1))
    assert float((moving - p).abs().max()) == pytest.approx(quarter_turn, abs=1e-3)


@pytest.mark.parametrize("overdrive", [2.0, 3.0, 5.0])
def test_noise_free_limit_is_the_exact_trajectory(overdrive):
    i, u0 = overdrive, 1 - 1e-9
    tau = -math.log(1 - u0) / (2 * (i - 1)) + math.log(1 + u0) / (2 * (i + 1)) + math.log((i - u0) / i) / (i**2 - 1)
    # A junction that seems, from far along its way, to have started at θ0² = 2(1 - u0) is at the equator at τ. Start
    # and noise together give θ0² the mean i/((i - 1)Δ), exponentially distributed; so 1/e have not switched if it is
    # just this.
    delta = i / (i - 1) / (2 * (1 - u0))
    assert float(Butler().probability(delta, i, tau)) == pytest.approx(math.exp(-1), rel=1e-5)
