"""A magnetic tunnel junction by its physical constants, or an array of them."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel, SwitchingModel
from hwsim.devices.constants import (
    BOLTZMANN_J_PER_K,
    ELEMENTARY_CHARGE_C,
    GYROMAGNETIC_RATIO_RAD_PER_S_T,
    REDUCED_PLANCK_JS,
)
from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.devices.values import Real, State, as_number, require, require_positive, tensors

ANISOTROPY_EXPONENT = 1.5
"""Of the magnetisation, in the law by which the anisotropy follows it.

Fitted, like the Curie temperature of `junctions.consistent`, to films of junctions of 40 to 60 nm between 4 and 295 K,
whose magnetisation falls by 19 % and whose effective anisotropy by 28 %: Rehm et al. 2020, arXiv 2009.01743, as read
from its figures.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class MTJ(DeviceModel):
    """Constants of a junction, and what follows from them.

    A constant may be a tensor with a value for each junction; so an array with spread is one `MTJ`, made with
    `dataclasses.replace`. The current is taken as that of the state before the pulse, all through the pulse.

    Args:
        energy_barrier_J: E_b between the states, without current.
        critical_current_A: Ic0, above which the state is unstable without thermal help.
        damping: Gilbert's α.
        anisotropy_field_T: B, which sets the pace: μ0 Hk of a perpendicular junction.
        parallel_resistance_ohm: R_P, taken as independent of the voltage.
        tmr: tunnel magnetoresistance (R_AP - R_P)/R_P at low voltage, a fraction.
        tmr_half_voltage_V: V_h, at which the magnetoresistance has fallen to a half: TMR(V) = tmr/(1 + (V/V_h)²).
        temperature_K: of the junction, at which it has these constants; it acts through Δ = E_b/kT. `at_temperature`
            changes both.
        critical_current_ratio: Ic0 out of antiparallel over that out of parallel.
        stray_field_T: axial field of the other layers, of either sign; positive drives towards antiparallel. It acts
            like a current: one of I/Ic0 = stray_field_T/anisotropy_field_T.
        curie_temperature_K: by which the constants follow the temperature, see `at_temperature`; infinite where they
            do not.
        model: law of switching.

    Raises:
        ValueError: a constant is not a finite number above 0; but for the stray field, which is finite, and the Curie
            temperature, which is above that of the junction.
    """

    constants: ClassVar[tuple[str, ...]] = (
        "energy_barrier_J",
        "critical_current_A",
        "damping",
        "anisotropy_field_T",
        "parallel_resistance_ohm",
        "tmr",
        "tmr_half_voltage_V",
        "temperature_K",
        "critical_current_ratio",
        "stray_field_T",
        "curie_temperature_K",
    )

    energy_barrier_J: Real
    critical_current_A: Real
    damping: Real
    anisotropy_field_T: Real
    parallel_resistance_ohm: Real
    tmr: Real
    tmr_half_voltage_V: Real
    temperature_K: Real = 300.0
    critical_current_ratio: Real = 1.0
    stray_field_T: Real = 0.0
    curie_temperature_K: float = math.inf
    model: SwitchingModel = field(default_factory=FokkerPlanck)

    def __post_init__(self) -> None:
        for name in MTJ.constants:
            if name not in ("stray_field_T", "curie_temperature_K"):
                require_positive(name, getattr(self, name))
        field_T = torch.as_tensor(self.stray_field_T)
        require(field_T.isfinite(), "stray_field_T is a finite number", field_T)
        temperature_K = torch.as_tensor(self.temperature_K)
        rule = f"temperature_K is below the Curie temperature of {self.curie_temperature_K:g} K"
        require(temperature_K < self.curie_temperature_K, rule, temperature_K)

    @property
    def thermal_stability(self) -> Real:
        """Δ = E_b/kT."""
        return self.energy_barrier_J / (BOLTZMANN_J_PER_K * self.temperature_K)

    @property
    def time_unit_s(self) -> Real:
        """Time of τ = 1: (1 + α²)/(αγB)."""
        return (1 + self.damping**2) / (self.damping * GYROMAGNETIC_RATIO_RAD_PER_S_T * self.anisotropy_field_T)

    def at_voltage(self, voltage_V: Real) -> "MTJ":
        """The junction with the constants that it has under a voltage: here the same."""
        return self

    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """R_P, or R_P (1 + TMR(V))."""
        tmr = self.tmr / (1 + (voltage_V / self.tmr_half_voltage_V) ** 2)
        return self.parallel_resistance_ohm * (1 + as_number(antiparallel) * tmr)

    def at_temperature(self, temperature_K: float) -> "MTJ":
        """The junction at another temperature.

        With the Curie temperature Tc the magnetisation follows m = (1 - (T/Tc)^1.5)/(1 - (T0/Tc)^1.5) from the
        temperature T0 of the constants. E_b and Ic0 go with m^`ANISOTROPY_EXPONENT` and the anisotropy field with 1/m
        of that. The spin polarisation goes with m (Shang et al. 1998, Phys. Rev. B 58, R2917), and of it TMR =
        2p²/(1 - p²) (Jullière); R_P stays (arXiv 1710.09561).
        """
        changed = replace(self, temperature_K=temperature_K)
        before, after = (
            1 - (kelvin / self.curie_temperature_K) ** 1.5 for kelvin in (self.temperature_K, temperature_K)
        )
        m = after / before
        anisotropy = m**ANISOTROPY_EXPONENT
        polarisation_2 = m**2 * self.tmr / (2 + self.tmr)
        return replace(
            changed,
            energy_barrier_J=self.energy_barrier_J * anisotropy,
            critical_current_A=self.critical_current_A * anisotropy,
            anisotropy_field_T=self.anisotropy_field_T * anisotropy / m,
            tmr=2 * polarisation_2 / (1 - polarisation_2),
        )

    def overdrive(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """I/Ic0 and what the stray field does, positive where they drive the junction out of its state.

        At one voltage it is smaller for an antiparallel junction, whose resistance is higher.
        """
        current_A = voltage_V / self.resistance_ohm(antiparallel, voltage_V=voltage_V)
        critical_A = self.critical_current_A * self._ratio(antiparallel)
        return (1 - 2 * as_number(antiparallel)) * (current_A / critical_A + self._field)

    @property
    def _field(self) -> Real:
        """The stray field in units of the anisotropy field."""
        return self.stray_field_T / self.anisotropy_field_T

    def voltage_V(self, antiparallel: State, *, overdrive: Real) -> Tensor:
        """See `DeviceModel.voltage_V`."""
        require_positive("the overdrive", overdrive)
        state = antiparallel.double() if isinstance(antiparallel, Tensor) else float(antiparallel)
        current = overdrive - (1 - 2 * state) * self._field
        require_positive("the overdrive, less what the stray field does,", current)
        critical_A = self.critical_current_A * self._ratio(antiparallel)
        parallel_V = tensors(current * critical_A * self.parallel_resistance_ohm)[0].double()
        low, high = parallel_V, parallel_V * (1 + self.tmr)
        for _ in range(60):  # halves the bracket, until float64 has no number between
            middle = (low + high) / 2
            enough = middle > parallel_V * (1 + self.tmr / (1 + (middle / self.tmr_half_voltage_V) ** 2))
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return torch.where(torch.as_tensor(antiparallel), -high, parallel_V)

    def _ratio(self, antiparallel: State) -> Real:
        """Ic0 out of a state over that out of parallel."""
        return 1 + as_number(antiparallel) * (self.critical_current_ratio - 1)

    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:  # noqa: D102
        overdrive = self.overdrive(antiparallel, voltage_V=voltage_V)
        return self.model.probability(self.thermal_stability, overdrive, pulse_width_s / self.time_unit_s)

    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:  # noqa: D102
        overdrive = self.overdrive(antiparallel, voltage_V=voltage_V)
        return self.model.quantile(self.thermal_stability, overdrive, probability) * self.time_unit_s


def perpendicular_critical_current_A(*, energy_barrier_J: float, damping: float, spin_efficiency: float) -> float:
    """Ic0 = (4eα/ħη) E_b of a perpendicular junction whose barrier is its anisotropy.

    Args:
        energy_barrier_J: E_b.
        damping: Gilbert's α.
        spin_efficiency: η, in 0..1: the spin that each electron transfers, in units of ħ/2.
    """
    return 4 * ELEMENTARY_CHARGE_C * damping * energy_barrier_J / (REDUCED_PLANCK_JS * spin_efficiency)
