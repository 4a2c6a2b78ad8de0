"""Constants from counts: recovered within their error bars, from generated and from measured data."""

from dataclasses import replace

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.fit import fit_junction
from hwsim.devices.measurements import Measurement
from hwsim.devices.mtj import MTJ
from tests.hwsim.devices.sot_curves import SOT_CURVES

TRUTH = replace(junctions.consistent(), critical_current_ratio=1.2)
# A search that begins at the truth would show nothing.
START = replace(
    TRUTH, energy_barrier_J=1e-19, critical_current_A=1e-5, anisotropy_field_T=1.0, critical_current_ratio=1.0
)


def counts(junction: MTJ, seed: int, *, trials: int = 100, points: int = 11, signs=(1, -1)) -> list[Measurement]:
    """Pulses of 0.5 to 30 ns, from below to above the critical current."""
    generator = torch.Generator().manual_seed(seed)
    width_s = torch.logspace(-9.3, -7.5, points, dtype=torch.float64)
    measured = []
    for sign in signs:
        voltage_V = sign * torch.linspace(0.3, 0.75 if sign > 0 else 0.95, points, dtype=torch.float64)
        p = junction.switch_probability(sign < 0, voltage_V=voltage_V[:, None], pulse_width_s=width_s)
        switched = torch.binomial(torch.full_like(p, trials), p, generator=generator)
        for v in range(points):
            for t in range(points):
                place = float(voltage_V[v]), float(width_s[t])
                measured.append(Measurement(0, *place, float(switched[v, t]) / trials, trials))
    return measured


def is_recovered(seed: int) -> bool:
    fit = fit_junction(counts(TRUTH, seed), START)
    return all(low <= float(TRUTH.constant(name)) <= high for name, (low, high) in fit.intervals.items())


def test_recovers_the_constants_within_its_error_bars():
    assert all(map(is_recovered, range(3)))


@pytest.mark.slow
def test_recovers_them_in_95_of_100_cases():
    assert sum(map(is_recovered, range(100))) >= 95


def test_error_bars_shrink_as_the_root_of_the_trials():
    few, many = (fit_junction(counts(TRUTH, 0, trials=trials), START) for trials in (100, 10_000))
    assert few.fitted == ("energy_barrier_J", "critical_current_A", "critical_current_ratio", "anisotropy_field_T")
    for name, error in many.relative_errors.items():
        assert few.relative_errors[name] == pytest.approx(10 * error, rel=0.2)
        assert float(many.junction.constant(name)) == pytest.approx(float(TRUTH.constant(name)), rel=4 * error)
    assert many.p_value > 1e-3


@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
def test_another_law_shows_in_the_residuals():
    """A junction whose probability never gets above 0.8."""
    measured = [one._replace(probability=0.8 * one.probability) for one in counts(TRUTH, 0, points=7, signs=(1,))]
    assert fit_junction(measured, START).p_value < 1e-6


def test_one_direction_and_a_known_pace():
    measured = list(counts(TRUTH, 3, points=31, signs=(1,)))
    width_s = measured[10].pulse_width_s
    fit = fit_junction([one for one in measured if one.pulse_width_s == width_s], TRUTH, fit_pace=False)
    assert fit.fitted == ("energy_barrier_J", "critical_current_A")
    low, high = fit.intervals["critical_current_A"]
    assert low <= TRUTH.critical_current_A <= high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one._replace(probability=0.0), "no pulse out of parallel switched: measure stronger or longer"),
        (lambda one: one._replace(probability=1.0), "every pulse out of parallel switched: measure weaker"),
        (lambda one: one._replace(probability=float(one.probability > 0.5)), "0 of the pulses switched sometimes"),
        (lambda one: one._replace(pulse_width_s=1e-9), "one width do not tell the pace: measure another width"),
    ],
)
def test_counts_that_tell_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit_junction([change(one) for one in counts(TRUTH, 0, points=5)], START)


@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
@pytest.mark.parametrize("junction", ["A", "B"])
def test_junctions_of_another_kind_are_told_apart(junction):
    """Spin-orbit torque is not the spin transfer of the law: no constants explain these counts, and the fit says so."""
    measured = [
        Measurement(0, sign * voltage_V, 0.75e-9, fraction, 100)
        for (name, sign), curve in SOT_CURVES.items()
        if name == junction
        for voltage_V, fraction in curve.items()
    ]
    start = junctions.consistent().with_constants(parallel_resistance_ohm=4.9e3, tmr=1.0, tmr_half_voltage_V=1e6)
    assert fit_junction(measured, start, fit_pace=False).p_value < 1e-6
