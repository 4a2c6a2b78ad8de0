"""Device files: what a fit writes is read again, and what is not physical is named."""

import os

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.device_file import device_text, read_device
from hwsim.devices.fit import JunctionFit
from hwsim.devices.measurements import Measurement

MTJ_TEXT = """
[mtj]
energy_barrier_J = 2.4e-19
critical_current_A = 5e-5
damping = 0.02
anisotropy_field_T = 0.3
parallel_resistance_ohm = 4000
tmr = 1.0
tmr_half_voltage_V = 0.5
"""
MEASURED_TEXT = """
[measured]
to_antiparallel = "up.csv"
to_parallel = "down.csv"
parallel_resistance_ohm = 4e3
antiparallel_resistance_ohm = 8e3
"""
TABLE = "voltage_V,pulse_width_s,probability\n0.4,1e-9,0.2\n0.6,1e-9,0.8\n"


@pytest.fixture
def read(tmp_path):
    def from_text(text: str):
        (tmp_path / "device.toml").write_text(text, encoding="utf-8")
        return read_device(tmp_path / "device.toml")

    return from_text


def test_a_fit_is_read_as_it_was_written(read):
    junction = junctions.consistent(model=Butler()).with_constants(critical_current_ratio=1.25)
    fit = JunctionFit(
        junction=junction,
        fitted=("energy_barrier_J", "critical_current_A"),
        covariance=torch.tensor([[1e-4, 5e-5], [5e-5, 4e-4]], dtype=torch.float64),
        measurements=[Measurement(2, 0.5, 1e-9, 0.5, 100)],
        probability=torch.tensor([0.5], dtype=torch.float64),
    )
    text = device_text(fit, source="counts.csv\nof two lines")
    found = read(text)
    assert {name: found.constant(name) for name in found.constants} == {
        name: junction.constant(name) for name in junction.constants
    }
    assert "energy_barrier_J = 0.01\n" in text
    assert "[[1.000000, 0.250000], [0.250000, 1.000000]]" in text


def test_constants_with_defaults_may_be_missing(read):
    assert read(MTJ_TEXT).temperature_K == 300


def test_a_junction_with_control_by_voltage(read):
    device = read(MTJ_TEXT.replace("[mtj]", "[vcma]") + "anisotropy_per_V = 0.25\n")
    assert device.constant("anisotropy_per_V") == 0.25
    with pytest.raises(ValueError, match=r"\[vcma\] anisotropy_per_V is missing"):
        read(MTJ_TEXT.replace("[mtj]", "[vcma]"))
    assert read(MTJ_TEXT).critical_current_ratio == 1


def test_measured_tables_lie_beside_the_file(read, tmp_path):
    (tmp_path / "up.csv").write_text(TABLE, encoding="utf-8")
    (tmp_path / "down.csv").write_text(TABLE.replace("0.8", "0.6"), encoding="utf-8")
    device = read(MEASURED_TEXT)
    states = torch.tensor([False, True])
    assert device.switch_probability(states, voltage_V=torch.tensor([0.6, -0.6]), pulse_width_s=1e-9).tolist() == [
        pytest.approx(0.8),
        pytest.approx(0.6),
    ]
    (tmp_path / "down.csv").write_text(TABLE.replace("0.2", "20"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"down.csv:2: probability is 20, outside 0..1; look at its unit"):
        read(MEASURED_TEXT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "device.toml: this is no device file: Invalid value"),
        ("x = 1", r"one table, \[mtj\], \[vcma\] or \[measured\]; `hwsim fit` writes one"),
        (MTJ_TEXT + MEASURED_TEXT, "one table"),
        (MTJ_TEXT.replace("tmr = 1.0", ""), r"device.toml: \[mtj\] tmr is missing"),
        (MTJ_TEXT.replace("damping", "dampign"), "has no constant 'dampign', but there is 'damping'"),
        (MTJ_TEXT.replace("4000", "-4000"), r"\[mtj\] parallel_resistance_ohm is a finite number above 0, got -4000"),
        (MTJ_TEXT.replace("4000", '"4 kOhm"'), "parallel_resistance_ohm is a number, got '4 kOhm'"),
        (MEASURED_TEXT.replace('"up.csv"', "1"), "to_antiparallel is the name of a CSV file, got 1"),
        (MEASURED_TEXT.replace("antiparallel_resistance_ohm = 8e3", ""), "antiparallel_resistance_ohm is missing"),
    ],
)
def test_refuses_what_is_no_device(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_refuses_a_file_that_is_no_text_or_too_large(tmp_path):
    for content in (b"\xff\xfe", b"#" * (1 << 21)):
        (tmp_path / "device.toml").write_bytes(content)
        with pytest.raises(ValueError, match="this is no device file"):
            read_device(tmp_path / "device.toml")


def test_a_pipe_is_refused_where_it_would_be_waited_for(tmp_path):
    os.mkfifo(tmp_path / "device.toml")
    with pytest.raises(OSError, match="not a regular file"):
        read_device(tmp_path / "device.toml")
