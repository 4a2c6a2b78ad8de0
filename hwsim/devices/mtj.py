"""A magnetic tunnel junction by its physical constants, or an array of them."""

from dataclasses import dataclass, field
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
from hwsim.devices.values import Real, State, as_number, require_positive, tensors


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
        temperature_K: of the junction. It acts through Δ = E_b/kT; that of the constants themselves is not modelled.
        critical_current_ratio: Ic0 out of antiparallel over that out of parallel.
        model: law of switching.

    Raises:
        ValueError: a constant is not a finite number above 0.
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
    model: SwitchingModel = field(default_factory=FokkerPlanck)

    def __post_init__(self) -> None:
        for name in self.constants:
            require_positive(name, getattr(self, name))

    @property
    def thermal_stability(self) -> Real:
        """Δ = E_b/kT."""
        return self.energy_barrier_J / (BOLTZMANN_J_PER_K * self.temperature_K)

    @property
    def time_unit_s(self) -> Real:
        """Time of τ = 1: (1 + α²)/(αγB)."""
        return (1 + self.damping**2) / (self.damping * GYROMAGNETIC_RATIO_RAD_PER_S_T * self.anisotropy_field_T)

    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """R_P, or R_P (1 + TMR(V))."""
        tmr = self.tmr / (1 + (voltage_V / self.tmr_half_voltage_V) ** 2)
        return self.parallel_resistance_ohm * (1 + as_number(antiparallel) * tmr)

    def overdrive(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """I/Ic0, positive where the voltage drives the junction out of its state.

        At one voltage it is smaller for an antiparallel junction, whose resistance is higher.
        """
        current_A = voltage_V / self.resistance_ohm(antiparallel, voltage_V=voltage_V)
        direction = 1 - 2 * as_number(antiparallel)
        return direction * (current_A / (self.critical_current_A * self._ratio(antiparallel)))

    def voltage_V(self, antiparallel: State, *, overdrive: Real) -> Tensor:
        """See `DeviceModel.voltage_V`."""
        require_positive("the overdrive", overdrive)
        critical_A = self.critical_current_A * self._ratio(antiparallel)
        parallel_V = tensors(overdrive * critical_A * self.parallel_resistance_ohm)[0].double()
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
