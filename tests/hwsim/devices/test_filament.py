"""The law of a filament: no memory, and exponential in the voltage."""

import math

import pytest
import torch

from hwsim.devices.filament import Filament, filament


def test_mean_time_is_exponential_in_the_voltage():
    device = filament()
    assert float(device.mean_time_s(voltage_V=1.0)) == pytest.approx(1e-9, rel=0.01)
    ratio = device.mean_time_s(voltage_V=0.6) / device.mean_time_s(voltage_V=0.76)
    assert float(ratio) == pytest.approx(math.e)


def test_it_has_no_memory():
    """P of two pulses is that of one as long as both."""
    one, other, both = (
        filament().switch_probability(False, voltage_V=0.9, pulse_width_s=width_s) for width_s in (1e-9, 2e-9, 3e-9)
    )
    assert float(1 - (1 - one) * (1 - other)) == pytest.approx(float(both))


def test_a_voltage_drives_one_way():
    states = torch.tensor([False, True])
    assert filament().switch_probability(states, voltage_V=-1.0, pulse_width_s=1e-9).tolist()[0] == 0
    assert filament().switching_time_s(states, voltage_V=1.0, probability=0.5)[1] == math.inf


def test_refuses_what_is_not_physical():
    with pytest.raises(ValueError, match="scale_V is a finite number above 0, got -1"):
        Filament(slowest_s=1e-6, scale_V=-1.0, parallel_resistance_ohm=1e4, antiparallel_resistance_ohm=1e6)
