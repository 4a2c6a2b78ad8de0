"""Currents, resistances, temperature and units of a junction of physical constants."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices import junctions
from hwsim.devices.base import Pulse
from hwsim.devices.butler import Butler
from hwsim.devices.erf import Erf
from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.devices.mtj import MTJ, perpendicular_critical_current_A

JUNCTION = junctions.consistent()


def test_critical_current_of_a_perpendicular_junction():
    # 4 · 1.602e-19 C · 0.02 · 60 · 1.381e-23 J/K · 300 K / (1.0546e-34 Js · 0.6)
    current_A = perpendicular_critical_current_A(
        energy_barrier_J=60 * 1.380649e-23 * 300, damping=0.02, spin_efficiency=0.6
    )
    assert current_A == pytest.approx(50.3e-6, rel=1e-3)


def test_time_unit():
    assert JUNCTION.time_unit_s == pytest.approx(0.947e-9, rel=1e-3, abs=0)
    slow = replace(JUNCTION, damping=0.01, anisotropy_field_T=0.15)
    assert slow.time_unit_s == pytest.approx(4 * JUNCTION.time_unit_s, rel=1e-3, abs=0)


def test_resistance_of_both_states():
    parallel, antiparallel = (float(JUNCTION.resistance_ohm(state, voltage_V=0.0)) for state in (False, True))
    assert parallel == pytest.approx(5.0 / (math.pi * 0.02**2))  # 5 Ωµm² over the area in µm²
    assert antiparallel == 2 * parallel
    # At V_h half of the magnetoresistance is left.
    assert JUNCTION.resistance_ohm(True, voltage_V=0.5) == pytest.approx(1.5 * parallel)
    assert JUNCTION.resistance_ohm(True, voltage_V=-0.5) == JUNCTION.resistance_ohm(True, voltage_V=0.5)
    assert JUNCTION.resistance_ohm(False, voltage_V=0.5) == parallel
    both = JUNCTION.resistance_ohm(torch.tensor([False, True]), voltage_V=torch.tensor([0.3, 0.5]))
    assert both.tolist() == pytest.approx([parallel, 1.5 * parallel], rel=1e-6)


def test_one_voltage_drives_the_two_directions_differently():
    # The reference's example: 0.6 V is 3 Ic0 from parallel; from antiparallel, at full TMR, only 1.5 Ic0.
    flat = replace(JUNCTION, tmr_half_voltage_V=1e6)
    assert float(flat.overdrive(False, voltage_V=0.6)) == pytest.approx(3, rel=2e-3)
    assert float(flat.overdrive(True, voltage_V=-0.6)) == pytest.approx(1.5, rel=2e-3)
    assert float(flat.overdrive(True, voltage_V=0.6)) == pytest.approx(-1.5, rel=2e-3)
    # A magnetoresistance that falls with the voltage narrows the gap.
    assert float(JUNCTION.overdrive(True, voltage_V=-0.6)) == pytest.approx(3 / (1 + 1 / 2.44), rel=2e-3)


@given(overdrive=st.floats(0.1, 10), tmr=st.floats(0.1, 3), half=st.floats(0.2, 2), antiparallel=st.booleans())
def test_voltage_for_an_overdrive(overdrive, tmr, half, antiparallel):
    junction = replace(JUNCTION, tmr=tmr, tmr_half_voltage_V=half)
    voltage_V = junction.voltage_V(antiparallel, overdrive=overdrive)
    assert (voltage_V < 0) == antiparallel
    assert float(junction.overdrive(antiparallel, voltage_V=voltage_V)) == pytest.approx(overdrive, rel=1e-9)


def test_voltage_for_an_overdrive_of_each_junction():
    states = torch.tensor([False, True, True])
    voltage_V = JUNCTION.voltage_V(states, overdrive=torch.tensor([3.0, 3.0, 2.0]))
    assert JUNCTION.overdrive(states, voltage_V=voltage_V).tolist() == pytest.approx([3, 3, 2], rel=1e-6)
    with pytest.raises(ValueError, match="overdrive is a finite number above 0, got -1"):
        JUNCTION.voltage_V(False, overdrive=-1.0)


def test_probability_is_that_of_the_law_in_reduced_units():
    for model in (FokkerPlanck(), Butler()):
        junction = replace(JUNCTION, model=model)
        p = junction.switch_probability(False, voltage_V=0.6, pulse_width_s=1e-9)
        i = 0.6 / JUNCTION.parallel_resistance_ohm / JUNCTION.critical_current_A
        assert p == model.probability(60.0, i, 1e-9 / junction.time_unit_s)
        width_s = junction.switching_time_s(False, voltage_V=0.6, probability=p)
        assert float(width_s) == pytest.approx(1e-9, rel=1e-9, abs=0)


def test_probability_rises_with_voltage_width_and_temperature_and_falls_with_resistance():
    def p(junction: MTJ = JUNCTION, voltage_V: object = 0.6, pulse_width_s: object = 1e-9) -> torch.Tensor:
        return junction.switch_probability(torch.zeros(50).bool(), voltage_V=voltage_V, pulse_width_s=pulse_width_s)

    rising = torch.linspace(0.5, 1.5, 50)
    assert bool((p(voltage_V=0.6 * rising).diff() > 0).all())
    assert bool((p(pulse_width_s=1e-9 * rising).diff() > 0).all())
    assert bool((p(replace(JUNCTION, temperature_K=300 * rising)).diff() > 0).all())
    resistance_ohm = JUNCTION.parallel_resistance_ohm * rising
    assert bool((p(replace(JUNCTION, parallel_resistance_ohm=resistance_ohm)).diff() < 0).all())


def test_sensitivity_to_the_resistance_in_the_paper_s_law():
    # The reference: θ0 = 0.02, nominal P = 0.5; R +5 % and -5 %. What varies with the overdrive varies less.
    paper = junctions.paper()
    for i, low, high in ((3.0, 0.343, 0.643), (2.0, 0.289, 0.683), (5.0, 0.371, 0.622)):
        voltage_V = float(paper.voltage_V(False, overdrive=i))
        width_s = paper.switching_time_s(False, voltage_V=voltage_V, probability=0.5)
        spread = replace(paper, parallel_resistance_ohm=1.5e3 * torch.tensor([1.05, 0.95], dtype=torch.float64))
        p = spread.switch_probability(False, voltage_V=voltage_V, pulse_width_s=width_s)
        assert p.tolist() == pytest.approx([low, high], abs=1e-3)


def test_temperature_acts_through_the_stability():
    hot = replace(JUNCTION, temperature_K=400.0)
    assert hot.thermal_stability == pytest.approx(45.0)
    assert hot.critical_current_A == JUNCTION.critical_current_A
    # θ0 = 1/√(2Δ) goes as √T: the reference's 0.0187 and 0.0224 rad at 260 and 373 K.
    for temperature_K, theta in ((260.0, 0.0187), (300.0, 0.02), (373.0, 0.0224)):
        junction = replace(junctions.paper(), temperature_K=temperature_K)
        assert 1 / math.sqrt(2 * junction.thermal_stability) == pytest.approx(theta, abs=1.5e-4)


class TestAtTemperature:
    """Magnetisation, anisotropy and magnetoresistance, with a Curie temperature of 900 K."""

    def test_constants_follow_the_magnetisation(self):
        hot = JUNCTION.at_temperature(400.0)
        m = (1 - (400 / 900) ** 1.5) / (1 - (300 / 900) ** 1.5)
        assert m == pytest.approx(0.8714, abs=1e-4)
        assert hot.energy_barrier_J == pytest.approx(JUNCTION.energy_barrier_J * m**1.5)
        assert hot.critical_current_A == pytest.approx(JUNCTION.critical_current_A * m**1.5)
        assert hot.anisotropy_field_T == pytest.approx(JUNCTION.anisotropy_field_T * m**0.5)
        assert hot.thermal_stability == pytest.approx(60 * 0.75 * m**1.5)
        # TMR = 2p²/(1 - p²), p² = 1/3 at 100 %.
        assert hot.tmr == pytest.approx(2 * m**2 / 3 / (1 - m**2 / 3))
        assert hot.parallel_resistance_ohm == JUNCTION.parallel_resistance_ohm

    def test_there_and_back_again(self):
        again = JUNCTION.at_temperature(380.0).at_temperature(300.0)
        for name in MTJ.constants:
            assert getattr(again, name) == pytest.approx(getattr(JUNCTION, name)), name

    def test_of_the_films_that_the_law_was_fitted_to(self):
        """From 295 to 4 K magnetisation and anisotropy rise by 1/0.815 and 1/0.716."""
        room = replace(JUNCTION, temperature_K=295.0)
        cold = room.at_temperature(4.0)
        anisotropy = cold.energy_barrier_J / room.energy_barrier_J
        assert anisotropy == pytest.approx(1 / 0.716, rel=0.04)
        assert anisotropy / (cold.anisotropy_field_T / room.anisotropy_field_T) == pytest.approx(1 / 0.815, rel=0.02)

    def test_without_a_curie_temperature_only_the_stability_changes(self):
        paper = junctions.paper()
        hot = paper.at_temperature(373.0)
        assert hot.thermal_stability == pytest.approx(paper.thermal_stability * 300 / 373)
        assert (hot.critical_current_A, hot.tmr) == (paper.critical_current_A, pytest.approx(paper.tmr))

    @pytest.mark.parametrize("kelvin", [900.0, 1000.0, math.nan])
    def test_a_junction_is_colder_than_its_curie_temperature(self, kelvin):
        with pytest.raises(
            ValueError, match=r"temperature_K is (below the Curie temperature of 900 K|a finite number)"
        ):
            JUNCTION.at_temperature(kelvin)


class TestDirections:
    def test_the_ratio_of_critical_currents_acts_out_of_antiparallel(self):
        uneven = replace(JUNCTION, critical_current_ratio=1.25)
        assert uneven.overdrive(False, voltage_V=0.6) == JUNCTION.overdrive(False, voltage_V=0.6)
        assert uneven.overdrive(True, voltage_V=-0.8) == pytest.approx(JUNCTION.overdrive(True, voltage_V=-0.8) / 1.25)

    def test_a_stray_field_helps_one_direction_and_hinders_the_other(self):
        in_field = replace(JUNCTION, stray_field_T=0.03)
        for state, voltage_V, change in ((False, 0.6, 0.1), (True, -0.8, -0.1)):
            nominal = JUNCTION.overdrive(state, voltage_V=voltage_V)
            assert in_field.overdrive(state, voltage_V=voltage_V) == pytest.approx(nominal + change)

    @pytest.mark.parametrize("antiparallel", [False, True])
    def test_the_voltage_of_an_overdrive_knows_both(self, antiparallel):
        junction = replace(JUNCTION, critical_current_ratio=1.25, stray_field_T=0.03)
        voltage_V = junction.voltage_V(antiparallel, overdrive=3.0)
        assert float(junction.overdrive(antiparallel, voltage_V=voltage_V)) == pytest.approx(3.0, rel=1e-9)
        with pytest.raises(ValueError, match=r"less what the stray field does, is a finite number above 0, got -7"):
            replace(JUNCTION, stray_field_T=3.0).voltage_V(False, overdrive=3.0)

    def test_a_stray_field_is_finite(self):
        with pytest.raises(ValueError, match="stray_field_T is a finite number, got nan"):
            replace(JUNCTION, stray_field_T=math.nan)


def test_energy_counts_the_true_resistances_until_and_after_the_switch():
    before = torch.tensor([False, False, True])
    pulse = Pulse(torch.tensor([True, False, False]), torch.tensor([0.25e-9, 1e-9, 0.5e-9], dtype=torch.float64))
    voltage_V = torch.tensor([0.5, 0.5, -0.5], dtype=torch.float64)
    energy_J = JUNCTION.pulse_energy_J(before, pulse, voltage_V=voltage_V, pulse_width_s=1e-9)
    parallel_J = 0.25 * 1e-9 / JUNCTION.parallel_resistance_ohm  # TMR(0.5 V) makes antiparallel 1.5 times as much
    expected = [parallel_J * (0.25 + 0.75 / 1.5), parallel_J, parallel_J * (0.5 / 1.5 + 0.5)]
    assert energy_J.tolist() == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, -2.0])])
@pytest.mark.parametrize(
    "name",
    [
        "energy_barrier_J",
        "critical_current_A",
        "damping",
        "anisotropy_field_T",
        "parallel_resistance_ohm",
        "tmr",
        "tmr_half_voltage_V",
        "temperature_K",
        "critical_current_ratio",
    ],
)
def test_refuses_what_is_not_physical(name, value):
    with pytest.raises(ValueError, match=f"{name} is a finite number above 0, got"):
        replace(JUNCTION, **{name: value})


def test_is_frozen():
    with pytest.raises(AttributeError):
        JUNCTION.damping = 0.1


def test_single_junction_is_computed_in_double_precision():
    assert JUNCTION.switch_probability(False, voltage_V=0.6, pulse_width_s=1e-9).dtype == torch.float64
    states = torch.tensor([False, True])
    assert JUNCTION.switch_probability(states, voltage_V=0.6, pulse_width_s=1e-9).dtype == torch.float32
    voltage_V = JUNCTION.voltage_V(False, overdrive=3.0)
    assert JUNCTION.switch_probability(states, voltage_V=voltage_V, pulse_width_s=1e-9).dtype == torch.float32


def test_default_law():
    assert isinstance(JUNCTION.model, FokkerPlanck)
    assert isinstance(junctions.paper().model, Erf)
