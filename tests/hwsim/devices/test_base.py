"""Random pulses: each junction is an independent coin with the probability that the law gives."""

import math

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler

JUNCTION = junctions.consistent(model=Butler())
PARALLEL = torch.zeros(100_000, dtype=torch.bool)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_share_of_switched_junctions(p, generator):
    width_s = JUNCTION.switching_time_s(False, voltage_V=0.6, probability=p)
    pulse = JUNCTION.pulse(PARALLEL, voltage_V=0.6, pulse_width_s=width_s, generator=generator)
    share = pulse.antiparallel.double().mean()
    assert abs(float(share) - p) < 4 * math.sqrt(p * (1 - p) / len(PARALLEL))


def test_cells_and_pulses_are_independent(generator):
    cells, pulses, p = 200, 500, 0.3
    width_s = JUNCTION.switching_time_s(False, voltage_V=0.6, probability=p)
    switched = torch.stack(
        [
            JUNCTION.pulse(PARALLEL[:cells], voltage_V=0.6, pulse_width_s=width_s, generator=generator).antiparallel
            for _ in range(pulses)
        ]
    ).double()
    # χ² over the cells has the mean `cells` and the variance 2 `cells`.
    chi2 = float(((switched.sum(dim=0) - pulses * p) ** 2 / (pulses * p * (1 - p))).sum())
    assert abs(chi2 - cells) < 4 * math.sqrt(2 * cells)
    centred = switched - p
    for one, other in ((centred[:-1], centred[1:]), (centred[:, :-1], centred[:, 1:])):  # in time, and to the next cell
        correlation = float((one * other).mean() / (p * (1 - p)))
        assert abs(correlation) < 4 / math.sqrt(one.numel())


def test_times_of_switching_follow_the_law(generator):
    # Kolmogorov and Smirnov, 99.9 %: the times themselves, not only whether they come within the pulse.
    pulse = JUNCTION.pulse(PARALLEL, voltage_V=0.6, pulse_width_s=1e-6, generator=generator)
    assert bool(pulse.antiparallel.all())
    times_s = pulse.old_state_s.double().sort().values
    p = JUNCTION.switch_probability(False, voltage_V=0.6, pulse_width_s=times_s)
    assert (p - torch.linspace(0, 1, len(p))).abs().max() < 1.95 / math.sqrt(len(p))


def test_the_least_random_number_switches_nothing_that_is_held(monkeypatch, generator):
    # torch.rand gives 0 once in 2**24 times, and the quantile of 0 is 0.
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    held = JUNCTION.pulse(PARALLEL, voltage_V=-0.6, pulse_width_s=1e-9, generator=generator)
    assert not held.antiparallel.any()
    driven = JUNCTION.pulse(PARALLEL, voltage_V=0.6, pulse_width_s=1e-9, generator=generator)
    assert bool(driven.antiparallel.all())


@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
def test_no_pulse_does_nothing_even_where_the_law_does_not_start_at_0(generator):
    # Out of its validity Butler's form has switched e^-6 before the pulse.
    voltage_V = float(JUNCTION.voltage_V(False, overdrive=1.05))
    assert float(JUNCTION.switch_probability(False, voltage_V=voltage_V, pulse_width_s=0.0)) > 1e-4
    pulse = JUNCTION.pulse(PARALLEL, voltage_V=voltage_V, pulse_width_s=0.0, generator=generator)
    assert not pulse.antiparallel.any()


def test_an_empty_array_and_another_shape(generator):
    empty = JUNCTION.pulse(torch.zeros(0, 4).bool(), voltage_V=0.6, pulse_width_s=1e-9, generator=generator)
    assert empty.antiparallel.shape == empty.old_state_s.shape == (0, 4)
    rows = JUNCTION.pulse(
        torch.zeros(3, 4).bool(), voltage_V=0.6, pulse_width_s=torch.tensor([0.0, 1e-9, 1e-6, 0.0]), generator=generator
    )
    assert not rows.antiparallel[:, 0].any()
    assert bool(rows.antiparallel[:, 2].all())


def test_strided_states_are_pulsed_each_in_its_place(generator):
    states = (torch.arange(12) % 2 == 0).view(3, 4).T
    pulse = JUNCTION.pulse(states, voltage_V=torch.where(states, -2.0, 2.0), pulse_width_s=1e-6, generator=generator)
    assert torch.equal(pulse.antiparallel, ~states)
