"""Sweeps without training: they agree with the devices and schemes that they sweep."""

import dataclasses
import math

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.nonidealities import NonIdealities
from hwsim.studies import physics
from hwsim.write_schemes import scheme_named

JUNCTION = junctions.consistent()
FAST = dataclasses.replace(JUNCTION, damping=0.2)
"""Ten times fewer steps of the simulation."""


@pytest.mark.parametrize("antiparallel", [False, True])
@pytest.mark.parametrize("over", ["pulse-width-s", "overdrive", "voltage-V", "temperature-K"])
def test_points_are_those_of_the_device(over, antiparallel):
    sign = -1 if antiparallel else 1
    values = {
        "pulse-width-s": [0.0, 0.9e-9, 1.3e-9],
        "overdrive": [2.5, 3.0],
        "voltage-V": [sign * 0.55, sign * 0.8],
        "temperature-K": [280.0, 350.0],
    }[over]
    width_s = None if over == "pulse-width-s" else 1.1e-9
    table = physics.switching(JUNCTION, over, values, antiparallel=antiparallel, pulse_width_s=width_s)
    assert list(table) == [over, "fokker-planck"]
    assert table[over] == values
    for value, p in zip(values, table["fokker-planck"], strict=True):
        junction = JUNCTION.at_temperature(value) if over == "temperature-K" else JUNCTION
        overdrive = value if over == "overdrive" else 3.0
        voltage_V = value if over == "voltage-V" else junction.voltage_V(antiparallel, overdrive=overdrive)
        pulse_s = value if over == "pulse-width-s" else width_s
        expected = junction.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=pulse_s)
        assert p == pytest.approx(float(expected), abs=1e-9)
    assert max(table["fokker-planck"]) > 0.1


def test_a_voltage_takes_the_place_of_the_overdrive():
    table = physics.switching(JUNCTION, "pulse-width-s", [1e-9], voltage_V=0.7, models=["butler", "fokker-planck"])
    for name, law in (("butler", Butler()), ("fokker-planck", FokkerPlanck())):
        device = dataclasses.replace(JUNCTION, model=law)
        assert table[name] == [float(device.switch_probability(False, voltage_V=0.7, pulse_width_s=1e-9))]


def test_the_simulation_has_its_standard_error_and_agrees():
    values = [0.05e-9 * n for n in range(5)]
    table = physics.switching(FAST, "pulse-width-s", values, models=["fokker-planck", "llg"], trajectories=1_000)
    assert list(table) == ["pulse-width-s", "fokker-planck", "llg", "llg_standard_error"]
    for p, share, error in zip(*list(table.values())[1:], strict=True):
        assert error == pytest.approx(math.sqrt(share * (1 - share) / 1_000))
        # 99.9 % of the largest deviation along a curve lie within; 0.005 for the step of time.
        assert abs(share - p) < 1.95 / math.sqrt(1_000) + 0.005
    assert table["llg"][-1] > 0.5


def test_simulated_points_that_differ_in_more_than_time_are_of_different_junctions():
    table = physics.switching(
        FAST, "overdrive", [2.0, 3.0, 4.0], pulse_width_s=0.1e-9, models=["fokker-planck", "llg"], trajectories=500
    )
    assert table["llg"] == sorted(table["llg"])
    assert [abs(p - share) < 0.09 for p, share in zip(table["fokker-planck"], table["llg"], strict=True)] == [True] * 3
    again = physics.switching(
        FAST, "overdrive", [2.0, 3.0, 4.0], pulse_width_s=0.1e-9, models=["llg"], trajectories=500
    )
    assert again["llg"] == table["llg"]


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        ("overdrive", {}, "a sweep over overdrive needs a pulse_width_s"),
        ("pulse-width-s", {"trajectories": 0}, "the number of trajectories is a finite number above 0, got 0"),
        ("temperature-K", {"pulse_width_s": 1e-9}, "temperature_K is a finite number above 0, got 0"),
    ],
)
def test_refuses_what_is_not_physical(over, options, message):
    with pytest.raises(ValueError, match=message):
        physics.switching(JUNCTION, over, [0.0], **options)


def test_laws_of_the_schemes():
    table = physics.schemes(JUNCTION, ["linear", "pedestal", "pre-distorted"], points=11)
    v = torch.tensor(table["v"], dtype=torch.float64)
    assert list(table) == ["v", "wanted", "linear", "pedestal", "pre-distorted"]
    assert bool((v.diff() > 0).all())
    assert (float(v[0]), float(v[1]), float(v[-1])) == (0, pytest.approx(1e-4), 1)
    assert table["wanted"] == torch.tanh(3 * v).tolist()
    assert table["pre-distorted"] == pytest.approx(table["wanted"], abs=1e-9)
    for name in ("linear", "pedestal"):
        expected = scheme_named(name).switch_probability(JUNCTION, False, torch.tanh(3 * v))
        assert table[name] == pytest.approx(expected.tolist(), abs=1e-12)
    # A step of 0 is gated off, and of the pedestal the least one is not.
    assert table["pedestal"][0] == 0 < 0.08 < table["pedestal"][1]


def test_m_of_none_wants_the_step_itself():
    table = physics.schemes(JUNCTION, ["pre-distorted"], m=None, points=5)
    assert table["wanted"] == table["v"]


def test_junctions_that_are_not_nominal():
    nominal, hot, varied = (
        physics.schemes(JUNCTION, ["pre-distorted"], points=5, junctions=400, nonidealities=flaws)
        for flaws in (None, NonIdealities(temperature_K=350.0), NonIdealities.uniform(spread=0.1))
    )
    middle = 4  # a step of 0.1
    assert 0 < nominal["wanted"][middle] < 0.5
    # Heat widens the start, and of junctions that vary the fast ones gain more than the slow ones lose.
    assert hot["pre-distorted"][middle] > 1.1 * nominal["pre-distorted"][middle]
    assert varied["pre-distorted"][middle] > 1.1 * nominal["pre-distorted"][middle]
    assert varied["pre-distorted"][-1] < nominal["pre-distorted"][-1]


def test_pulses_that_do_not_arrive_as_they_are_made():
    """A clock, an error and noise: each moves the law as it says."""
    nominal, clocked, wrong, noisy = (
        physics.schemes(JUNCTION, ["pre-distorted"], points=5, junctions=400, nonidealities=flaws)["pre-distorted"]
        for flaws in (
            None,
            NonIdealities(clock_s=1e-9),
            NonIdealities(write_error=0.25),
            NonIdealities(amplitude_noise=0.05),
        )
    )
    assert wrong == pytest.approx([0.75 * p for p in nominal])
    at_1_ns = float(
        JUNCTION.switch_probability(
            False, voltage_V=float(JUNCTION.voltage_V(False, overdrive=3.0)), pulse_width_s=1e-9
        )
    )
    assert clocked[4] == pytest.approx(at_1_ns), "a step of 0.1 takes 0.99 ns"
    assert noisy[0] == 0
    assert noisy[2] > 1.3 * nominal[2]


def test_options_go_to_the_schemes_that_have_them():
    table = physics.schemes(
        JUNCTION, ["paper", "pre-distorted"], points=5, options={"gain": 1.0, "offset_probability": 0}
    )
    naive = physics.schemes(JUNCTION, ["linear"], points=5)
    assert table["paper"] == pytest.approx(naive["linear"])
    with pytest.raises(ValueError, match="none of the schemes pedestal, pre-distorted has gain"):
        physics.schemes(JUNCTION, ["pedestal", "pre-distorted"], options={"gain": 1.0})


def test_a_gate_for_all_schemes():
    open_, gated = (
        physics.schemes(JUNCTION, ["pedestal", "gated-pedestal"], points=5, options=options)
        for options in (None, {"gate": 0.1})
    )
    assert open_["pedestal"][1] > 0.08 > 1e-30 > open_["gated-pedestal"][1]
    assert gated["pedestal"] == pytest.approx(gated["gated-pedestal"], rel=1e-9)
    assert gated["pedestal"][3] < 1e-30, "of 0.03"
    assert gated["pedestal"][4] == open_["pedestal"][4] > 0.2, "of 0.29"
