"""Tables of measurements: what is read, what is refused and with which line, and the interpolation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices.base import ValidityWarning
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable, SmoothedWarning
from tests.hwsim.devices.sot_curves import SOT_CURVES

HEADER = "voltage_V,pulse_width_s,probability\n"
GOOD = HEADER + "0.4,1e-9,0.1\n0.4,2e-9,0.3\n0.6,1e-9,0.5\n0.6,2e-9,0.9\n"


@pytest.fixture
def read(tmp_path):
    def from_text(text: str) -> MeasuredTable:
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return MeasuredTable.from_csv(path)

    return from_text


def device(table: MeasuredTable, back: MeasuredTable | None = None) -> MeasuredDevice:
    return MeasuredDevice(
        to_antiparallel=table, to_parallel=back or table, parallel_resistance_ohm=4e3, antiparallel_resistance_ohm=8e3
    )


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [4, 2, 3, 1]])
def test_reads_lines_in_any_order(read, order):
    lines = GOOD.splitlines(keepends=True)
    table = read(HEADER + "".join(lines[k] for k in order) + "\n")
    assert table.voltage_V.tolist() == [0.4, 0.6]
    assert table.pulse_width_s.tolist() == [1e-9, 2e-9]
    assert table.probability.tolist() == [[0.1, 0.3], [0.5, 0.9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv:1: the header is .*voltage_V,pulse_width_s,probability, got nothing"),
        ("voltage_mV,pulse_width_ns,probability\n", "table.csv:1: the header is .*, got voltage_mV,pulse_width_ns"),
        (HEADER, "there is no measurement below the header"),
        (HEADER + "0.4,1e-9\n", "table.csv:2: a line has 3 values, got 2"),
        (HEADER + "0.4,1e-9,0.1\n0.4,2e-9,\n", "table.csv:3: probability is no number: ''"),
        (HEADER + "0.4,1e-9,nan\n", "table.csv:2: probability is nan, outside 0..1; look at its unit"),
        (HEADER + "0.4,1e-9,0.1\n0.5,1e-9,10\n", "table.csv:3: probability is 10, outside 0..1; look at its unit"),
        (HEADER + "400,1e-9,0.1\n", r"table.csv:2: voltage_V is 400, outside 0.001..20; look at its unit"),
        (HEADER + "0.4,0.75,0.1\n", "table.csv:2: pulse_width_s is 0.75, outside 1e-13..0.01; look at its unit"),
        (HEADER + "-0.4,1e-9,0.1\n", "table.csv:2: voltage_V is -0.4"),
        (GOOD.replace("0.6,2e-9,0.9\n", ""), r"table.csv:4: there is no measurement of 0.6 V at 2e-09 s as well"),
        (GOOD.replace("0.6,1e-9,0.5\n", ""), r"table.csv:4: there is no measurement of 0.6 V at 1e-09 s as well"),
        (GOOD + "0.4,1e-9,0.1\n", "table.csv:6: the same voltage and width as in line 2"),
        (
            GOOD.replace("0.4,1e-9,0.1", "0.4,1e-9,0.7"),
            r"table.csv:3: the probability is 0.3, below the 0.7 of line 2, by more than the noise of 100 trials",
        ),
        (
            GOOD.replace("0.4,1e-9,0.1", "0.4,1e-9,0.3").replace("1e-9,0.5", "1e-9,0.0"),
            r"table.csv:4: the probability is 0, below the 0.3 of line 2, by more than the noise",
        ),
    ],
)
def test_refuses_a_table_with_its_line(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_smooths_what_the_noise_of_its_trials_explains(read):
    with pytest.warns(
        SmoothedWarning, match="within the noise of its trials, and was smoothed; most in line [23], by 0.02"
    ):
        table = read(GOOD.replace("0.4,2e-9,0.3", "0.4,2e-9,0.06"))
    assert table.probability[0].tolist() == pytest.approx([0.08, 0.08])
    assert table.probability[1].tolist() == [0.5, 0.9]


def test_counts_are_read_and_weigh_by_their_trials(read):
    counts = "voltage_V,pulse_width_s,switched,trials\n0.4,1e-9,30,100\n0.4,2e-9,50,300\n"
    with pytest.warns(SmoothedWarning):
        table = read(counts)
    assert table.probability[0].tolist() == pytest.approx([0.2, 0.2])
    # The same fractions of many more pulses contradict each other.
    with pytest.raises(ValueError, match=r"table.csv:3: the probability is .* by more than the noise of 30000 trials"):
        read(counts.replace("30,100", "3000,10000").replace("50,300", "5000,30000"))


@pytest.mark.filterwarnings("ignore::hwsim.devices.measured_table.SmoothedWarning")
@pytest.mark.parametrize("curve", SOT_CURVES.values(), ids=map(str, SOT_CURVES))
def test_takes_curves_as_they_are_measured(read, curve):
    table = read(HEADER + "".join(f"{voltage_V},0.75e-9,{fraction}\n" for voltage_V, fraction in curve.items()))
    assert table.probability[:, 0].tolist() == pytest.approx(list(curve.values()), abs=0.05)


def test_refuses_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="this is no text"):
        MeasuredTable.from_csv(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voltage_V": [0.6, 0.4]}, "voltage_V ascends"),
        ({"pulse_width_s": [1e-9, 1e-9]}, "pulse_width_s ascends"),
        ({"voltage_V": [-0.4, 0.6]}, "voltage_V is a finite number above 0"),
        ({"probability": [[0.1, 0.3]]}, "probabilities are .voltages, widths."),
        ({"probability": [[0.1, 0.3], [0.5, 1.5]]}, "a probability is in 0..1"),
        ({"probability": [[0.1, 0.3], [0.5, 0.4]]}, "rises with the pulse width"),
        ({"probability": [[0.1, 0.3], [0.05, 0.4]]}, "rises with the voltage"),
    ],
)
def test_refuses_a_table_that_is_none(changes, message):
    good = {"voltage_V": [0.4, 0.6], "pulse_width_s": [1e-9, 2e-9], "probability": [[0.1, 0.3], [0.5, 0.9]]}
    with pytest.raises(ValueError, match=message):
        MeasuredTable(**{name: torch.tensor(value, dtype=torch.float64) for name, value in {**good, **changes}.items()})


def test_gives_what_was_measured_and_is_linear_between(read):
    junction = device(read(GOOD))
    voltage_V = torch.tensor([0.4, 0.4, 0.6, 0.6, 0.5, 0.5], dtype=torch.float64)
    width_s = torch.tensor([1.0, 2, 1, 2, 1, 1.5], dtype=torch.float64) * 1e-9
    p = junction.switch_probability(torch.zeros(6).bool(), voltage_V=voltage_V, pulse_width_s=width_s)
    assert p.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.9, 0.3, 0.45])


def test_directions_have_their_own_table(read):
    junction = device(read(GOOD), read(GOOD.replace("1e-9,0.5", "1e-9,0.7")))
    states = torch.tensor([False, True])
    assert junction.switch_probability(states, voltage_V=0.6, pulse_width_s=1e-9).tolist() == pytest.approx([0.5, 0])
    assert junction.switch_probability(states, voltage_V=-0.6, pulse_width_s=1e-9).tolist() == pytest.approx([0, 0.7])


def test_outside_warns_and_goes_to_zero_or_holds(read):
    junction = device(read(GOOD))
    for voltage_V, width_s, expected, axis in (
        (0.2, 2e-9, 0.15, "voltage"), (0.8, 2e-9, 0.9, "voltage"),
        (0.4, 0.5e-9, 0.05, "pulse width"), (0.6, 3e-9, 0.9, "pulse width"),
    ):  # fmt: skip
        with pytest.warns(ValidityWarning, match=f"a {axis} is outside the measured .*; measure there, or use"):
            p = junction.switch_probability(False, voltage_V=voltage_V, pulse_width_s=width_s)
        assert float(p) == pytest.approx(expected)
    assert junction.switch_probability(False, voltage_V=0.0, pulse_width_s=1e-9) == 0
    assert junction.switch_probability(False, voltage_V=0.5, pulse_width_s=0.0) == 0


@given(voltage_V=st.floats(0.4, 0.6), p=st.floats(0, 1), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_width_for_a_probability(voltage_V, p, dtype):
    table = MeasuredTable(
        torch.tensor([0.4, 0.6]), torch.tensor([1e-9, 2e-9, 4e-9]), torch.tensor([[0.1, 0.3, 0.3], [0.5, 0.9, 1.0]])
    )
    p = torch.tensor([p], dtype=dtype)
    width_s = device(table).switching_time_s(False, voltage_V=voltage_V, probability=p)
    most = table.interpolate(torch.tensor([voltage_V], dtype=dtype), torch.tensor([4e-9], dtype=dtype))
    if float(width_s) == math.inf:
        assert p > most - 1e-6
    else:
        reached = table.interpolate(torch.tensor([voltage_V], dtype=dtype), width_s)
        assert float(reached) == pytest.approx(float(p), abs=1e-5)


def test_widths_of_the_measured_probabilities(read):
    p = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9], dtype=torch.float64)
    low, high = (device(read(GOOD)).switching_time_s(False, voltage_V=v, probability=p).tolist() for v in (0.4, 0.6))
    assert low == [0, 1e-9, 2e-9, math.inf, math.inf]
    assert high[-2:] == pytest.approx([1e-9, 2e-9], rel=1e-12, abs=0)


def test_spread_of_the_resistances(read):
    table = read(GOOD)
    junction = MeasuredDevice(
        to_antiparallel=table,
        to_parallel=table,
        parallel_resistance_ohm=torch.tensor([4e3, 5e3]),
        antiparallel_resistance_ohm=torch.tensor([8e3, 9e3]),
    )
    assert junction.resistance_ohm(torch.tensor([False, True]), voltage_V=0.1).tolist() == [4e3, 9e3]
    with pytest.raises(ValueError, match="parallel_resistance_ohm is a finite number above 0"):
        MeasuredDevice(
            to_antiparallel=table, to_parallel=table, parallel_resistance_ohm=0.0, antiparallel_resistance_ohm=1.0
        )


def test_refuses_a_voltage_that_is_no_number(read):
    with pytest.raises(ValueError, match="a voltage is a finite number"):
        device(read(GOOD)).switch_probability(False, voltage_V=math.nan, pulse_width_s=1e-9)
