"""A junction that switches as a measured table says."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel, ValidityWarning
from hwsim.devices.measured_table import MeasuredTable
from hwsim.devices.values import Real, State, as_number, require, require_positive, tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredDevice(DeviceModel):
    """A junction of measured tables, interpolated linearly in voltage and pulse width.

    The probability is 0 at no voltage and at no width, and is interpolated from there to the first measurement, with a
    warning. Above the last one it is held, with a warning. A voltage that drives a junction into the state that it has
    does nothing.

    Args:
        to_antiparallel: for positive voltages.
        to_parallel: for negative ones.
        parallel_resistance_ohm: at every voltage; a number, or one for each junction.
        antiparallel_resistance_ohm: likewise.
    """

    to_antiparallel: MeasuredTable
    to_parallel: MeasuredTable
    parallel_resistance_ohm: Real
    antiparallel_resistance_ohm: Real

    def __post_init__(self) -> None:
        require_positive("parallel_resistance_ohm", self.parallel_resistance_ohm)
        require_positive("antiparallel_resistance_ohm", self.antiparallel_resistance_ohm)

    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:  # noqa: D102
        more_ohm = self.antiparallel_resistance_ohm - self.parallel_resistance_ohm
        return self.parallel_resistance_ohm + as_number(antiparallel) * more_ohm

    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:  # noqa: D102
        voltage, width = tensors(voltage_V, pulse_width_s)
        require(width >= 0, "the width of a pulse is 0 or more seconds", width)
        for table in (self.to_antiparallel, self.to_parallel):
            _warn_outside(table.pulse_width_s, width, "pulse width", "s")
        return self._by_direction(antiparallel, voltage, width, MeasuredTable.interpolate)

    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:  # noqa: D102
        voltage, p = tensors(voltage_V, probability)
        require((p >= 0) & (p <= 1), "a probability is in 0..1", p)
        return self._by_direction(antiparallel, voltage, p, MeasuredTable.width_s)

    def _by_direction(
        self,
        antiparallel: State,
        voltage_V: Tensor,
        argument: Tensor,
        evaluate: Callable[[MeasuredTable, Tensor, Tensor], Tensor],
    ) -> Tensor:
        if isinstance(antiparallel, Tensor):
            voltage_V, argument = voltage_V.to(antiparallel.device), argument.to(antiparallel.device)
        require(voltage_V.isfinite(), "a voltage is a finite number", voltage_V)
        _warn_outside(self.to_antiparallel.voltage_V, voltage_V, "voltage", "V")
        _warn_outside(self.to_parallel.voltage_V, -voltage_V, "voltage", "V")
        return torch.where(
            torch.as_tensor(antiparallel, device=voltage_V.device),
            evaluate(self.to_parallel, (-voltage_V).clamp_min(0), argument),
            evaluate(self.to_antiparallel, voltage_V.clamp_min(0), argument),
        )


def _warn_outside(axis: Tensor, x: Tensor, name: str, unit: str) -> None:
    low, high = float(axis[0]), float(axis[-1])
    # A hair of slack for numbers of lower precision than the table's.
    if bool(((x > 0) & ((x < low * (1 - 1e-6)) | (x > high * (1 + 1e-6)))).any()):
        warnings.warn(
            f"a {name} is outside the measured {low:g}..{high:g} {unit}; measure there, or use an MTJ",
            ValidityWarning,
            stacklevel=4,
        )
