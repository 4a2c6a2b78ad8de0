"""The rates of thermal activation against the Fokker-Planck equation, equilibrium and the reference's figures."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices import junctions
from hwsim.devices.fokker_planck_solver import switched
from hwsim.devices.neel_brown import NeelBrown


def rate(delta: float, overdrive: float) -> float:
    """k + k_back, from the time in which what is left to switch falls to 1/e."""
    occupancy = NeelBrown().probability(delta, overdrive, math.inf)
    return 1 / float(NeelBrown().quantile(delta, overdrive, occupancy * -math.expm1(-1)))


def solved_rate(delta: float, overdrive: float) -> float:
    """The same of the equation, whose fast modes have died at τ = 20."""
    equilibrium = switched(delta, overdrive, torch.tensor([1e9]))
    first, second = (equilibrium - switched(delta, overdrive, torch.tensor([20.0, 220.0]))).tolist()
    return math.log(first / second) / 200


@pytest.mark.parametrize("delta", [30.0, 60.0, 90.0])
@pytest.mark.parametrize("barrier", [7.0, 8.5, 10.0, 12.0])
def test_within_2_percent_of_the_equation(delta, barrier):
    overdrive = 1 - math.sqrt(barrier / delta)
    # At a barrier of exactly 7, rounding may fall to either side of the limit.
    assert rate(delta, overdrive - 1e-9) == pytest.approx(solved_rate(delta, overdrive), rel=0.02, abs=0)


@pytest.mark.parametrize(("delta", "overdrive", "ratio"), [(12.0, 0.0, 0.910), (40.0, 0.5, 0.901), (60.0, 0.5, 0.937)])
def test_the_equation_against_the_first_order(delta, overdrive, ratio):
    # The reference gives the ratios at barriers of 12, 10 and 15; they are those at these Δ and i.
    barrier = delta * (1 - overdrive) ** 2
    first_order = math.sqrt(delta / math.pi) * (1 - overdrive) ** 2 * (1 + overdrive) * math.exp(-barrier)
    both_ways = 1 + math.exp(-4 * delta * overdrive) * (1 + overdrive) / (1 - overdrive)
    assert solved_rate(delta, overdrive) / (first_order * both_ways) == pytest.approx(ratio, abs=1e-3)


@given(delta=st.floats(45, 120), field=st.floats(-0.2, 0.2))
def test_detailed_balance(delta, field):
    # An axial field h acts as the overdrive -h. Dwell times are as e^(4Δh)(1 - h)/(1 + h).
    switched_share, other = (float(NeelBrown().probability(delta, i, math.inf)) for i in (-field, field))
    dwell_ratio = math.exp(4 * delta * field) * (1 - field) / (1 + field)
    assert switched_share == pytest.approx(1 / (1 + dwell_ratio), rel=1e-9, abs=0)
    assert switched_share + other == pytest.approx(1)
    assert rate(delta, field) == pytest.approx(rate(delta, -field), rel=0.03, abs=0)


def test_without_current_both_states_are_as_likely_in_the_end():
    assert float(NeelBrown().probability(60.0, 0.0, math.inf)) == pytest.approx(0.5)


def test_a_current_that_holds_the_state_lengthens_its_life():
    i = torch.linspace(-3, 0.5, 100, dtype=torch.float64)
    p = NeelBrown().probability(60.0, i, 1e12)
    assert bool((p.diff() >= -1e-15).all())
    assert p[0] < 1e-60
    assert p[-1] > 0.999


def test_retention_of_the_default_junction():
    junction = junctions.consistent(model=NeelBrown())
    # k = 1/lifetime is half of the rate at which equilibrium comes.
    lifetime_s = junction.time_unit_s * 2 / rate(60.0, 0.0)
    assert lifetime_s == pytest.approx(0.220e-9 * math.exp(60), rel=2e-3)
    assert lifetime_s == pytest.approx(2.5e16, rel=0.02)
    lost_in_a_year = junction.switch_probability(False, voltage_V=0.0, pulse_width_s=3.156e7)
    assert float(lost_in_a_year) == pytest.approx(3.156e7 / lifetime_s, rel=1e-6, abs=0)
