"""A filament of a resistive memory, which forms and breaks at random: the part of a device of many levels."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel
from hwsim.devices.values import Real, State, as_number, require, require_positive, tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class Filament(DeviceModel):
    """P = 1 - exp(-t/τ) with τ = τ0 exp(-|V|/V0), the same for both directions.

    Without memory of earlier pulses: whatever the width, a filament has the same chance in the next moment. It is
    `antiparallel` where it is broken; a positive voltage breaks it and a negative one forms it.

    Source: S. H. Jo, K.-H. Kim and W. Lu, Nano Lett. 9, 496 (2009), for the law.

    Args:
        slowest_s: τ0.
        scale_V: V0.
        parallel_resistance_ohm: of a formed filament.
        antiparallel_resistance_ohm: of a broken one.

    Raises:
        ValueError: a constant is not a finite number above 0.
    """

    constants: ClassVar[tuple[str, ...]] = (
        "slowest_s",
        "scale_V",
        "parallel_resistance_ohm",
        "antiparallel_resistance_ohm",
    )

    slowest_s: Real
    scale_V: Real
    parallel_resistance_ohm: Real
    antiparallel_resistance_ohm: Real

    def __post_init__(self) -> None:
        for name in self.constants:
            require_positive(name, getattr(self, name))

    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:  # noqa: D102
        more_ohm = self.antiparallel_resistance_ohm - self.parallel_resistance_ohm
        return self.parallel_resistance_ohm + as_number(antiparallel) * more_ohm

    def mean_time_s(self, *, voltage_V: Real) -> Tensor:
        """τ at a voltage that drives a filament out of its state."""
        (voltage,) = tensors(voltage_V)
        require(voltage.isfinite(), "a voltage is a finite number", voltage)
        return self.slowest_s * torch.exp(-voltage.abs() / self.scale_V)

    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:  # noqa: D102
        voltage, width = tensors(voltage_V, pulse_width_s)
        require(width >= 0, "the width of a pulse is 0 or more seconds", width)
        p = -torch.expm1(-width / self.mean_time_s(voltage_V=voltage))
        return torch.where(self._drives(antiparallel, voltage), p, 0.0)

    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:  # noqa: D102
        voltage, p = tensors(voltage_V, probability)
        require((p >= 0) & (p <= 1), "a probability is in 0..1", p)
        time_s = -torch.log1p(-p) * self.mean_time_s(voltage_V=voltage)
        return torch.where(self._drives(antiparallel, voltage) | (p == 0), time_s, torch.inf)

    @staticmethod
    def _drives(antiparallel: State, voltage_V: Tensor) -> Tensor:
        return torch.as_tensor((1 - 2 * as_number(antiparallel)) * voltage_V) > 0


def filament() -> Filament:
    """A fast filament whose constants are CHOSEN: τ = 1 ns at 1 V, a decade for 0.37 V, 10 kΩ formed and 1 MΩ broken.

    V0 = 0.16 V is what the source of the law is remembered to have measured, NOT VERIFIED.
    """
    return Filament(
        slowest_s=5.18e-7,
        scale_V=0.16,
        parallel_resistance_ohm=1e4,
        antiparallel_resistance_ohm=1e6,
    )
