"""The named junctions have the figures of their sources."""

import math

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.base import ValidityWarning
from hwsim.devices.butler import Butler


def test_consistent_constants_follow_from_one_another():
    junction = junctions.consistent()
    assert junction.thermal_stability == pytest.approx(60)
    assert junction.critical_current_A == pytest.approx(50e-6, rel=0.01)
    assert junction.parallel_resistance_ohm == pytest.approx(4.0e3, rel=0.01)
    assert junction.tmr == 1


def test_paper_s_constants_are_recalled_and_do_not_agree():
    junction = junctions.paper()
    assert "RECALLED" in junctions.paper.__doc__
    assert 1 / math.sqrt(2 * junction.thermal_stability) == pytest.approx(0.02)
    assert junction.resistance_ohm(True, voltage_V=1.0) == pytest.approx(2.5e3)
    assert float(junction.switch_probability(False, voltage_V=1.0, pulse_width_s=2e-9)) == pytest.approx(0.99, abs=1e-3)
    # The reference: 99 % in 2 ns needs eleven times the critical current.
    assert junction.overdrive(False, voltage_V=1.0) == pytest.approx(11, abs=0.1)


def test_ut_austin_has_a_low_barrier():
    junction = junctions.ut_austin()
    assert junction.thermal_stability == pytest.approx(19.9, abs=0.1)
    assert junction.anisotropy_field_T == pytest.approx(0.0637, abs=2e-4)
    assert junction.resistance_ohm(True, voltage_V=0.0) == pytest.approx(12.5e3)


def test_sot_follows_its_fit():
    junction = junctions.sot()
    voltage_V = torch.tensor([0.850, 0.894, 0.930], dtype=torch.float64)
    p = junction.switch_probability(False, voltage_V=voltage_V, pulse_width_s=0.75e-9)
    assert torch.allclose(p, torch.sigmoid(44.6 * (voltage_V - 0.894)), atol=3e-3)
    assert junction.resistance_ohm(True, voltage_V=0.1) == 2 * junction.resistance_ohm(False, voltage_V=0.1)
    with pytest.warns(ValidityWarning, match="pulse width is outside the measured"):
        junction.switch_probability(False, voltage_V=0.9, pulse_width_s=1e-9)


@pytest.mark.parametrize("make", [junctions.consistent, junctions.paper, junctions.ut_austin])
def test_the_law_can_be_chosen(make):
    assert isinstance(make(model=Butler()).model, Butler)
