"""Lines of measurements: signs, counts and units."""

import os

import pytest

from hwsim.devices.measurements import TRIALS, read_measurements

HEADER = "voltage_V,pulse_width_s,switched,trials\n"


@pytest.fixture
def read(tmp_path):
    def from_text(text: str, *, signed: bool = True):
        path = tmp_path / "counts.csv"
        path.write_text(text, encoding="utf-8")
        return read_measurements(path, signed=signed)

    return from_text


def test_counts_and_fractions_say_the_same(read):
    counts = read(HEADER + "0.5,1e-9,30,200\n\n-0.5,1e-9,50,100\n")
    fractions = read("voltage_V,pulse_width_s,probability,trials\n0.5,1e-9,0.15,200\n\n-0.5,1e-9,0.5,100\n")
    assert counts == fractions
    assert [one.line for one in counts] == [2, 4]
    assert counts[1].voltage_V == -0.5
    (without,) = read("voltage_V,pulse_width_s,probability\n0.5,1e-9,0.15\n")
    assert without.trials == TRIALS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "0.5,1e-9,101,100\n", "counts.csv:2: switched is 101, more than the 100 trials"),
        (HEADER + "0.5,1e-9,1.5,100\n", "counts.csv:2: switched is 1.5, and a count is a whole number"),
        (HEADER + "0.5,1e-9,1,0\n", "counts.csv:2: trials is 0"),
        (HEADER + "-500,1e-9,1,100\n", "counts.csv:2: voltage_V is -500, outside 0.001..20; look at its unit"),
        (HEADER + "0.05,1e-9,1,100\n12,1e-9,1,100\n", "voltage_V is 12 and in line 2 0.05: units are mixed"),
        (HEADER + "0.5,1,1,100\n", "counts.csv:2: pulse_width_s is 1, outside 1e-13..0.01; look at its unit"),
        (HEADER + "0,1e-9,1,100\n", "counts.csv:2: voltage_V is 0"),
    ],
)  # fmt: skip
def test_refuses_a_line_with_its_column(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_magnitudes_have_no_sign(read):
    with pytest.raises(ValueError, match=r"counts.csv:2: voltage_V is -0.5, outside 0.001..20"):
        read(HEADER + "-0.5,1e-9,1,100\n", signed=False)


def test_a_pipe_is_refused_where_it_would_be_waited_for(tmp_path):
    os.mkfifo(tmp_path / "counts.csv")
    with pytest.raises(OSError, match="not a regular file"):
        read_measurements(tmp_path / "counts.csv", signed=True)
