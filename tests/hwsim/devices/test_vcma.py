"""Junctions whose anisotropy follows the voltage."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.devices import junctions
from hwsim.devices.vcma import VoltageControlledMTJ, anisotropy_per_V

PLAIN, JUNCTION = junctions.consistent(), junctions.vcma()


def test_fraction_of_the_anisotropy_per_volt():
    # 33 fJ/(V m) · π (20 nm)² / 1.15 nm = 3.61e-20 J/V, of 60 kT = 2.485e-19 J.
    k = anisotropy_per_V(
        coefficient_J_per_V_m=33e-15, diameter_m=40e-9, barrier_thickness_m=1.15e-9, energy_barrier_J=2.485e-19
    )
    assert k == pytest.approx(3.606e-20 / 2.485e-19, rel=1e-3)
    assert JUNCTION.anisotropy_per_V == pytest.approx(k, rel=1e-3)


def test_a_voltage_scales_barrier_critical_current_and_field_alike():
    gated = replace(JUNCTION, anisotropy_per_V=0.2).at_voltage(0.5)
    for name in ("energy_barrier_J", "critical_current_A", "anisotropy_field_T"):
        assert float(gated.constant(name)) == pytest.approx(0.9 * PLAIN.constant(name))
    assert gated.tmr == PLAIN.tmr
    assert PLAIN.at_voltage(0.5) is PLAIN


def test_the_lowered_direction_needs_less_current_and_the_other_more():
    up, down = (float(JUNCTION.voltage_V(state, overdrive=3.0)) for state in (False, True))
    assert 0 < up < float(PLAIN.voltage_V(False, overdrive=3.0))
    assert down < float(PLAIN.voltage_V(True, overdrive=3.0)) < 0
    both = [float(device.switch_probability(False, voltage_V=0.6, pulse_width_s=1e-9)) for device in (PLAIN, JUNCTION)]
    assert both[0] < both[1]


@settings(max_examples=15)  # 100 bisections each
@given(k=st.floats(-0.3, 0.3), overdrive=st.floats(0.2, 3), antiparallel=st.booleans())
def test_voltage_for_an_overdrive(k, overdrive, antiparallel):
    junction = replace(JUNCTION, anisotropy_per_V=k)
    voltage_V = junction.voltage_V(antiparallel, overdrive=overdrive)
    assert float(junction.overdrive(antiparallel, voltage_V=voltage_V)) == pytest.approx(overdrive, rel=1e-9)


@settings(max_examples=10)
@given(overdrive=st.floats(0.5, 6), antiparallel=st.booleans())
def test_without_control_it_is_the_plain_junction(overdrive, antiparallel):
    junction = replace(JUNCTION, anisotropy_per_V=0.0)
    voltage_V = junction.voltage_V(antiparallel, overdrive=overdrive)
    assert float(voltage_V) == pytest.approx(float(PLAIN.voltage_V(antiparallel, overdrive=overdrive)), rel=1e-9)
    p, same = (
        float(device.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=1e-9))
        for device in (junction, PLAIN)
    )
    assert p == pytest.approx(same, rel=1e-9)


def test_an_overdrive_out_of_reach_and_a_voltage_without_a_barrier_are_refused():
    # Out of antiparallel the critical current rises with the voltage: I/Ic0 stays below 1/(k R Ic0).
    strong = replace(JUNCTION, anisotropy_per_V=2.0)
    with pytest.raises(ValueError, match=r"an overdrive that a voltage below 100 V reaches, got 6"):
        strong.voltage_V(True, overdrive=6.0)
    with pytest.raises(ValueError, match=r"leaves an anisotropy above 0, as a fraction of that without, got -0\.2"):
        strong.switch_probability(False, voltage_V=0.6, pulse_width_s=1e-9)
    with pytest.raises(ValueError, match="anisotropy_per_V is a finite number, got nan"):
        replace(JUNCTION, anisotropy_per_V=float("nan"))


def test_an_array_may_vary_in_it():
    k = torch.tensor([0.0, 0.1, 0.2])
    spread = replace(JUNCTION, anisotropy_per_V=k)
    assert isinstance(spread, VoltageControlledMTJ)
    p = spread.switch_probability(torch.zeros(3, dtype=torch.bool), voltage_V=0.6, pulse_width_s=1e-9)
    assert bool((p.diff() > 0).all())
