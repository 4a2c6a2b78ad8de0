"""A magnetic tunnel junction whose anisotropy, and with it barrier and critical current, follows the voltage."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from hwsim.devices.mtj import MTJ
from hwsim.devices.values import Real, State, require, require_positive, tensors

_HALVINGS = 100  # of a bracket, until float64 has no number between
_HIGHEST_V = 100.0


@dataclass(frozen=True, kw_only=True, eq=False)
class VoltageControlledMTJ(MTJ):
    """An `MTJ` whose anisotropy falls by a fraction kV under the voltage V: voltage control of magnetic anisotropy.

    E_b, Ic0 and the anisotropy field are (1 - kV) times those without voltage. A pulse that drives out of parallel
    lowers them where k is positive, so that it needs less current, and one that drives back raises them. The switching
    itself is by the current, within the law of the `MTJ`; precession around a field in the plane, by which a voltage
    alone turns a junction over, is no part of it.

    k = ξ A/(d E_b), with the coefficient ξ in J/(V m), the area A and the thickness d of the barrier, see
    `anisotropy_per_V`: the energy of the interface changes by ξ V/d per area.

    Args:
        anisotropy_per_V: k, of either sign.

    Raises:
        ValueError: a constant is not physical, see `MTJ`.
    """

    constants: ClassVar[tuple[str, ...]] = (*MTJ.constants, "anisotropy_per_V")

    anisotropy_per_V: Real

    def __post_init__(self) -> None:
        super().__post_init__()
        k = torch.as_tensor(self.anisotropy_per_V)
        require(k.isfinite(), "anisotropy_per_V is a finite number", k)

    def at_voltage(self, voltage_V: Real) -> MTJ:
        """The junction under a voltage, as one whose constants are those that it then has.

        Raises:
            ValueError: the voltage leaves no anisotropy; a junction without a barrier has another law.
        """
        k, voltage = tensors(self.anisotropy_per_V, voltage_V)
        left = 1 - k * voltage
        require(left > 0, "the voltage leaves an anisotropy above 0, as a fraction of that without", left)
        constants = {field.name: getattr(self, field.name) for field in fields(MTJ)}
        for name in ("energy_barrier_J", "critical_current_A", "anisotropy_field_T"):
            constants[name] = constants[name] * left
        return MTJ(**constants)

    def overdrive(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """See `MTJ.overdrive`; over the critical current that the voltage leaves."""
        return self.at_voltage(voltage_V).overdrive(antiparallel, voltage_V=voltage_V)

    def voltage_V(self, antiparallel: State, *, overdrive: Real) -> Tensor:
        """See `DeviceModel.voltage_V`.

        Raises:
            ValueError: no voltage reaches the overdrive, as the anisotropy rises with the voltage that drives.
        """
        require_positive("the overdrive", overdrive)
        state = torch.as_tensor(antiparallel)
        wanted, k = (value.double() for value in tensors(overdrive, self.anisotropy_per_V))
        sign = 1 - 2 * state.double()
        # Just below the voltage that leaves no anisotropy.
        highest = (1 - 1e-9) / (k * sign).clamp_min(1 / _HIGHEST_V)
        low, high = torch.broadcast_tensors(torch.zeros(()), highest + 0 * wanted)  # type: ignore[no-untyped-call]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            enough = torch.as_tensor(self.overdrive(antiparallel, voltage_V=sign * middle)) > wanted
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        reached = high < highest
        require(reached, f"an overdrive that a voltage below {_HIGHEST_V:g} V reaches", wanted)
        found: Tensor = sign * high
        return found

    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:  # noqa: D102
        junction = self.at_voltage(voltage_V)
        return junction.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=pulse_width_s)

    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:  # noqa: D102
        junction = self.at_voltage(voltage_V)
        return junction.switching_time_s(antiparallel, voltage_V=voltage_V, probability=probability)


def anisotropy_per_V(
    *, coefficient_J_per_V_m: float, diameter_m: float, barrier_thickness_m: float, energy_barrier_J: float
) -> float:
    """k = ξ A/(d E_b) of a round junction.

    Args:
        coefficient_J_per_V_m: ξ, energy of the interface per field in the barrier.
        diameter_m: of the junction.
        barrier_thickness_m: d.
        energy_barrier_J: E_b without voltage.
    """
    area_m2 = math.pi * diameter_m**2 / 4
    return coefficient_J_per_V_m * area_m2 / (barrier_thickness_m * energy_barrier_J)
