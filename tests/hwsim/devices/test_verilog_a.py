"""The Verilog-A module of a junction, compiled and stepped through time, against the junction itself."""

import sys

import numpy as np
import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.verilog_a import verilog_a

if sys.platform != "linux":
    pytest.skip("openvaf_py, the compiler, has wheels for Linux on x86-64 alone", allow_module_level=True)
openvaf_py = pytest.importorskip("openvaf_py", reason="the compiler of Verilog-A is of the extra dev")

STEP_S = 2e-12
JUNCTIONS = {
    "plain": junctions.consistent(model=Butler()),
    "voltage-controlled": junctions.vcma(model=Butler()),
    "in a field": junctions.consistent(model=Butler()).with_constants(stray_field_T=0.01, critical_current_ratio=1.2),
}


class Instance:
    """One junction of the compiled module, under a constant voltage, by the backward Euler method."""

    def __init__(self, text: str, path, *, voltage_V: float, antiparallel: bool, u: float) -> None:
        path.write_text(text, encoding="utf-8")
        (self.module,) = openvaf_py.compile_va(str(path))
        nodes = [node["name"] for node in self.module.get_dae_system()["nodes"]]
        assert nodes == ["a", "b", "angle", "state"]
        names = {name.lower(): name for name in self.module.param_names}
        self.values = {names[name]: value for name, value in self.module.get_param_defaults().items()}
        self.values |= {"mfactor": 1.0, "u": u, "antiparallel": float(antiparallel), "V(a,b)": voltage_V}
        self.x = np.array([0.0, 1.0 if antiparallel else -1.0])
        self.charge = self.equations()[1]

    def equations(self):
        """Resistive and reactive residuals and Jacobians of both internal nodes, and the current into a."""
        inner = {"V(angle)": self.x[0], "V(state)": self.x[1]}
        residuals, entries = self.module.run_init_eval(self.values | inner)
        jacobian = np.zeros((2, 4, 4))
        for row, column, resistive, reactive in entries:
            jacobian[:, row, column] += resistive, reactive
        residuals = np.array(residuals)
        return residuals[2:, 0], residuals[2:, 1], *jacobian[:, 2:, 2:], residuals[0, 0]

    def step(self) -> float:
        """Goes on by `STEP_S`; the current in A."""
        for _ in range(50):
            resistive, reactive, conductance, capacitance, _ = self.equations()
            error = resistive + (reactive - self.charge) / STEP_S
            change = np.linalg.solve(conductance + capacitance / STEP_S, -error)
            self.x = self.x + change
            if abs(change).max() < 1e-9:
                break
        _, self.charge, _, _, current_A = self.equations()
        return float(current_A)


@pytest.mark.parametrize("name", JUNCTIONS)
@pytest.mark.parametrize(("antiparallel", "voltage_V", "u"), [(False, 0.6, 0.3), (True, -0.8, 0.7)])
def test_it_switches_when_the_junction_does(tmp_path, name, antiparallel, voltage_V, u):
    device = JUNCTIONS[name]
    time_s = float(device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=u))
    instance = Instance(verilog_a(device), tmp_path / "mtj.va", voltage_V=voltage_V, antiparallel=antiparallel, u=u)
    currents_A = torch.tensor([instance.step() for _ in range(int(1.3 * time_s / STEP_S))])
    before, after = (
        voltage_V / float(device.resistance_ohm(state, voltage_V=voltage_V))
        for state in (antiparallel, not antiparallel)
    )
    switched = ((currents_A - after).abs() < (currents_A - before).abs()).nonzero()[0]
    assert float(switched) * STEP_S == pytest.approx(time_s, rel=0.01)
    assert float(currents_A[0]) == pytest.approx(before, rel=1e-6)
    assert float(currents_A[-1]) == pytest.approx(after, rel=1e-6)


def test_a_voltage_that_holds_the_state_never_switches(tmp_path):
    instance = Instance(verilog_a(JUNCTIONS["plain"]), tmp_path / "mtj.va", voltage_V=-0.6, antiparallel=False, u=0.01)
    for _ in range(1_000):
        instance.step()
    assert instance.x[1] == pytest.approx(-1)


def test_what_has_no_constants_or_no_name_is_refused():
    with pytest.raises(ValueError, match="MeasuredDevice has no physical constant energy_barrier_J: use an MTJ"):
        verilog_a(junctions.sot())
    with pytest.raises(ValueError, match="begins with no digit, got '1x'"):
        verilog_a(junctions.consistent(), name="1x")
