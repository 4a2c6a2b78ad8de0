"""Widths and probabilities of each scheme, in both directions."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.erf import Erf
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable
from hwsim.write_scheme import WriteScheme
from hwsim.write_schemes import AmplitudeCoded, LinearPulse, Pedestal, PreDistorted, scheme_named

JUNCTION = junctions.consistent(model=Butler())
IN_PLANE = dataclasses.replace(JUNCTION, model=Erf())  # Δ 60: θ0 0.091
PAPER = junctions.paper()  # θ0 0.02
SCHEMES = {cls.__name__: cls() for cls in (LinearPulse, Pedestal, PreDistorted)}
schemes = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
directions = pytest.mark.parametrize("antiparallel", [False, True])
V = torch.linspace(0, 1, 201, dtype=torch.float64)


def off_by(scheme: WriteScheme, device, antiparallel: bool = False) -> torch.Tensor:
    """Of the probability that is wanted, for v from 0 (which is gated off) to 1."""
    wanted = torch.tanh(3 * V)
    return (scheme.switch_probability(device, antiparallel, wanted) - wanted).abs()


@pytest.mark.parametrize("device", [JUNCTION, IN_PLANE, PAPER], ids=["perpendicular", "in-plane", "paper"])
@directions
class TestError:
    def test_pre_distortion_is_exact(self, device, antiparallel):
        assert off_by(PreDistorted(), device, antiparallel)[:199].max() < 1e-6

    def test_a_pedestal_is_close(self, device, antiparallel):
        error = off_by(Pedestal(), device, antiparallel)
        assert error.max() < 0.08
        assert error.square().mean().sqrt() < 0.015
        p = Pedestal().switch_probability(device, antiparallel, torch.tensor([0.0, 1e-9]))
        assert p[0] < 1e-30, "a step of 0 is gated off"
        assert 0.05 < p[1] < 0.1, "the pedestal alone switches a few per cent"

    def test_a_linear_pulse_is_far_away(self, device, antiparallel):
        assert off_by(LinearPulse(), device, antiparallel).max() > 0.3
        # Before the angle has grown nothing happens.
        assert LinearPulse().switch_probability(device, antiparallel, torch.tanh(3 * V[20])) < 1e-3


@pytest.mark.parametrize(("device", "least"), [(PAPER, 0.33), (IN_PLANE, 0.27)], ids=["paper", "in-plane"])
def test_the_best_linear_pulse_of_the_reference(device, least):
    """Over all lengths of the full pulse, by the probability with which it switches."""
    full = 1 - torch.logspace(-1, -12, 45, dtype=torch.float64)
    errors = [off_by(LinearPulse(full_pulse_probability=float(p)), device).max() for p in full]
    assert float(min(errors)) == pytest.approx(least, abs=0.01)


@pytest.mark.parametrize(("device", "least"), [(IN_PLANE, 2.2), (PAPER, 3.7)], ids=["in-plane", "paper"])
def test_the_fitted_pedestal_in_the_units_of_the_law(device, least):
    """x = (i - 1)τ; at equal θ0 the two differ by the logarithm of θ0 alone."""
    least_s, slope_s = Pedestal().fit_s(device, antiparallel=False)
    x_per_s = 2 / device.time_unit_s
    assert least_s * x_per_s == pytest.approx(least, abs=0.05)
    assert slope_s * x_per_s == pytest.approx(5.56, abs=0.05)
    assert off_by(Pedestal(), device).max() < 0.055


@schemes
class TestEveryScheme:
    @directions
    def test_widths_rise_from_none_to_the_full_pulse(self, scheme, antiparallel):
        p = torch.cat([V.float(), torch.tensor([1e-7, 1 - 2**-24])]).sort().values
        width_s = scheme.width_s(JUNCTION, antiparallel, p)
        full_s = scheme.full_width_s(JUNCTION, antiparallel)
        assert width_s[0] == 0
        assert width_s[-1] == full_s
        assert bool((width_s.diff() >= 0).all())
        at_full = JUNCTION.switch_probability(
            antiparallel, voltage_V=scheme.write_voltage_V(JUNCTION, antiparallel), pulse_width_s=full_s
        )
        assert float(at_full) == pytest.approx(0.999, abs=1e-9)

    def test_the_voltage_depends_on_the_direction(self, scheme):
        up, down = (scheme.write_voltage_V(JUNCTION, state) for state in (False, True))
        assert 0 < up < -down
        for state, voltage_V in ((False, up), (True, down)):
            assert float(JUNCTION.overdrive(state, voltage_V=voltage_V)) == pytest.approx(3)

    @directions
    def test_given_voltages(self, scheme, antiparallel):
        """At one voltage for both directions antiparallel junctions take longer pulses."""
        given_V = dataclasses.replace(scheme, voltage_V=(0.8, -0.8))
        assert given_V.write_voltage_V(JUNCTION, antiparallel) == (-0.8 if antiparallel else 0.8)
        widths = [given_V.full_width_s(JUNCTION, state) for state in (False, True)]
        assert widths[1] > 1.2 * widths[0]

    def test_another_junction_gets_the_nominal_one_s_pulses(self, scheme):
        hot = dataclasses.replace(JUNCTION, temperature_K=360.0)
        p = torch.tensor([0.3])
        nominal, warm = (scheme.switch_probability(JUNCTION, False, p, junction=j) for j in (None, hot))
        assert warm > nominal

    @pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
    def test_refuses_what_is_no_probability(self, scheme, p):
        with pytest.raises(ValueError, match=r"probability is in 0..1"):
            scheme.width_s(JUNCTION, False, torch.tensor([0.5, p]))


@given(p=st.floats(1e-6, 0.99), m=st.sampled_from([None, 1.0, 3.0]))
def test_a_linear_pulse_is_v_of_a_full_one(p, m):
    width_s = LinearPulse(m=m).width_s(JUNCTION, False, torch.tensor([p], dtype=torch.float64))
    share = p if m is None else min(1.0, math.atanh(p) / m)
    assert float(width_s) == pytest.approx(share * LinearPulse(m=m).full_width_s(JUNCTION, False))


def test_pre_distortion_through_the_fokker_planck_table():
    junction = junctions.consistent()
    assert off_by(PreDistorted(), junction)[:199].max() < 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"full_pulse_probability": 0.0}, r"in \(0, 1\], got 0"),
        ({"full_pulse_probability": 1.5}, "got 1.5"),
        ({"full_pulse_s": 0.0}, "full_pulse_s is a finite number above 0, got 0"),
        ({"gate": 1.0}, r"gate is a probability in \[0, 1\), got 1"),
        ({"voltage_V": (-0.6, 0.6)}, "out of parallel, above 0"),
        ({"voltage_V": (0.6, 0.6)}, "out of antiparallel, below 0"),
    ],
)
def test_refuses_what_is_no_pulse(options, message):
    with pytest.raises(ValueError, match=message):
        PreDistorted(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 0.0}, "gain is a finite number above 0, got 0"),
        ({"gain": math.inf}, "gain is a finite number above 0, got inf"),
        (
            {"offset_probability": 0.999},
            "offset_probability is 0 or more and below the 0.999 of a full pulse, got 0.999",
        ),
        ({"offset_probability": -1e-3}, "offset_probability is 0 or more"),
    ],
)
def test_refuses_what_is_no_linear_pulse(options, message):
    with pytest.raises(ValueError, match=message):
        LinearPulse(**options)


@pytest.mark.parametrize(
    "scheme", [LinearPulse(full_pulse_s=5e-10, offset_probability=1e-3), Pedestal(full_pulse_s=5e-10)]
)
def test_a_full_pulse_is_longer_than_the_least_one(scheme):
    with pytest.raises(ValueError, match=r"least pulse takes [\d.e-]+ s and a full one 5e-10 s.*: raise full_pulse_s"):
        scheme.width_s(JUNCTION, False, torch.tensor(0.5))


class TestPaper:
    """One voltage for both directions, an offset, a gain."""

    @directions
    def test_widths_are_the_offset_and_the_gain_times_v(self, antiparallel):
        scheme = LinearPulse(one_voltage=True, gain=20.0, offset_probability=1e-4)
        v = torch.tensor([1e-4, 1e-3, 0.01, 0.03], dtype=torch.float64)
        width_s, full_s = (
            scheme.width_s(JUNCTION, antiparallel, torch.tanh(3 * v)),
            scheme.full_width_s(JUNCTION, antiparallel),
        )
        voltage_V = scheme.write_voltage_V(JUNCTION, antiparallel)
        offset_s = JUNCTION.switching_time_s(antiparallel, voltage_V=voltage_V, probability=1e-4)
        assert (width_s / full_s).tolist() == pytest.approx((offset_s / full_s + 20 * v).tolist())
        assert scheme.width_s(JUNCTION, antiparallel, torch.tensor(0.5)) == full_s, "none is longer than a full pulse"

    def test_both_directions_have_the_voltage_out_of_parallel(self):
        out, back = (LinearPulse(one_voltage=True).write_voltage_V(JUNCTION, state) for state in (False, True))
        assert out == -back == LinearPulse().write_voltage_V(JUNCTION, False)

    def test_as_recalled(self):
        """1 V for 2 ns switches 0.990 of the parallel junctions of the paper and 0.556 of the antiparallel ones."""
        scheme = scheme_named("paper", voltage_V=(1.0, -1.0), full_pulse_s=2e-9)
        certain = torch.tensor(1.0)
        found = [float(scheme.switch_probability(PAPER, state, certain)) for state in (False, True)]
        assert found == pytest.approx([0.990, 0.556], abs=1e-3)


class TestGate:
    def test_lets_no_smaller_request_through(self):
        p = torch.tensor([0.0, 0.009, 0.01, 0.5, 1.0])
        assert Pedestal(gate=0.01).gated(p).tolist() == pytest.approx([0, 0, 0.01, 0.5, 1])
        assert Pedestal().gated(p) is p

    @directions
    def test_the_law_is_that_without_one_above_and_nothing_below(self, antiparallel):
        p = torch.tensor([0.009, 0.011, 0.5], dtype=torch.float64)
        gated, all_ = (s.switch_probability(JUNCTION, antiparallel, p) for s in (Pedestal(gate=0.01), Pedestal()))
        assert gated[0] < 1e-30 < 0.05 < all_[0]
        # Of a vector with a zero torch may form the others by another path.
        torch.testing.assert_close(gated[1:], all_[1:], rtol=1e-12, atol=0)


class TestAmplitudeCoded:
    """At an overdrive at which the law holds for every voltage."""

    SCHEME = AmplitudeCoded(overdrive=8.0)

    @directions
    def test_is_as_close_as_a_pedestal(self, antiparallel):
        error = off_by(self.SCHEME, JUNCTION, antiparallel)[1:]
        assert error.max() < 0.09
        assert error.square().mean().sqrt() < 0.025

    @directions
    def test_voltages_rise_to_the_full_one_at_one_width(self, antiparallel):
        p = torch.tensor([1e-7, 1e-3, 0.1, 0.9, 1.0])
        voltage_V = self.SCHEME.voltages_V(JUNCTION, antiparallel, p)
        full_V = self.SCHEME.write_voltage_V(JUNCTION, antiparallel)
        assert bool((voltage_V.abs().diff() > 0).all())
        assert voltage_V[-1] == full_V
        assert bool((voltage_V * full_V > 0).all())
        width_s = self.SCHEME.width_s(JUNCTION, antiparallel, p)
        assert set(width_s.tolist()) == {self.SCHEME.full_width_s(JUNCTION, antiparallel)}

    def test_a_full_pulse_that_switches_next_to_nothing(self):
        scheme = AmplitudeCoded(voltage_V=(0.8, -0.8), full_pulse_s=0.75e-9)
        with pytest.raises(ValueError, match=r"a full pulse of 0.8 V and 7.5e-10 s switches with 0.015 only"):
            scheme.voltages_V(junctions.sot(), False, torch.tensor(0.5))

    def test_takes_a_device_that_was_measured_at_one_width(self):
        scheme = AmplitudeCoded(voltage_V=(1.1, -1.1), full_pulse_s=0.75e-9)
        wanted = torch.tanh(3 * V[10::40])
        p = scheme.switch_probability(junctions.sot(), False, wanted)
        assert (p - wanted).abs().max() < 0.06


def test_a_pulse_that_never_gets_there_is_an_error():
    with pytest.raises(
        ValueError, match=r"no pulse of 0.601 V switches with a probability of 1: lower `full_pulse_probability`"
    ):
        PreDistorted(full_pulse_probability=1.0).full_width_s(JUNCTION, False)
    with pytest.raises(ValueError, match="overdrive is a finite number above 0"):
        PreDistorted(overdrive=-3.0).full_width_s(JUNCTION, False)


def test_a_measured_junction_needs_its_voltages():
    table = MeasuredTable(torch.tensor([1.0]), torch.tensor([1e-9]), torch.tensor([[1.0]]))
    device = MeasuredDevice(
        to_antiparallel=table, to_parallel=table, parallel_resistance_ohm=1e3, antiparallel_resistance_ohm=2e3
    )
    with pytest.raises(ValueError, match="MeasuredDevice has no critical current: give the scheme its voltage_V"):
        PreDistorted().width_s(device, False, torch.tensor([0.5]))


def test_names():
    assert scheme_named("linear", m=2.0) == LinearPulse(m=2.0)
    assert scheme_named("pedestal", m=None, overdrive=4.0) == Pedestal(m=None, overdrive=4.0)
    assert scheme_named("pre-distorted") == PreDistorted()
    assert scheme_named("read-first") == PreDistorted(read_first=True)
    assert scheme_named("gated-pedestal") == Pedestal(gate=0.003)
    assert scheme_named("gated-pedestal", gate=0.02, gain=None) == Pedestal(gate=0.02)
    assert scheme_named("amplitude", voltage_V=(1.0, -1.0)) == AmplitudeCoded(gate=0.003, voltage_V=(1.0, -1.0))
    assert scheme_named("paper").one_voltage
    assert scheme_named("paper", gain=7.0, gate=0.1).gain == 7
    assert {AmplitudeCoded, *map(type, SCHEMES.values())} == set(WriteScheme.__subclasses__())
    with pytest.raises(ValueError, match=r"the write scheme pedestal has no gain: it is an option of linear, paper$"):
        scheme_named("pedestal", gain=2.0)
    with pytest.raises(ValueError, match=r"the write scheme linear has no width$"):
        scheme_named("linear", width=2.0)


@directions
def test_the_fit_of_a_pedestal_is_the_best_of_all_lines(antiparallel):
    """Of the squared errors at 400 values of v within 0..1: they rise to all sides."""
    v = (torch.arange(400, dtype=torch.float64) + 1) / 401
    scheme = Pedestal()
    voltage_V = scheme.write_voltage_V(PAPER, antiparallel)

    def errors(least_s: float, slope_s: float) -> float:
        p = PAPER.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=least_s + slope_s * v)
        return float((p - torch.tanh(3 * v)).square().sum())

    least_s, slope_s = scheme.fit_s(PAPER, antiparallel)
    best = errors(least_s, slope_s)
    for part in (1e-6, -1e-6):
        assert errors(least_s * (1 + part), slope_s) > best
        assert errors(least_s, slope_s * (1 + part)) > best


@pytest.mark.parametrize("name", ["linear", "pedestal", "pre-distorted", "read-first"])
def test_a_scheme_by_name_takes_the_overdrive(name):
    assert scheme_named(name, overdrive=4.5).overdrive == 4.5
    assert scheme_named(name).overdrive == 3
