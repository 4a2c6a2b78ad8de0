"""Measured switching probabilities over voltage and pulse width, and their CSV files."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hwsim.devices.measurements import Measurement, read_measurements
from hwsim.devices.monotone import contradiction, monotone
from hwsim.devices.values import require, require_positive


class SmoothedWarning(UserWarning):
    """A measured table falls somewhere, within its noise, and has been smoothed."""


@dataclass(frozen=True, eq=False)
class MeasuredTable:
    """Switching probability over voltage and pulse width, for one direction.

    Args:
        voltage_V: magnitudes, ascending and above 0: float [v].
        pulse_width_s: ascending and above 0: float [t].
        probability: in 0..1, rising or level along both: float [v, t].

    Raises:
        ValueError: the axes do not ascend, or the probability falls or is outside 0..1.
    """

    voltage_V: Tensor
    pulse_width_s: Tensor
    probability: Tensor

    def __post_init__(self) -> None:
        for name, axis in (("voltage_V", self.voltage_V), ("pulse_width_s", self.pulse_width_s)):
            require_positive(name, axis)
            require(axis.diff() > 0, f"{name} ascends from entry to entry, the step", axis.diff())
        p = self.probability
        if p.shape != (len(self.voltage_V), len(self.pulse_width_s)):
            raise ValueError(f"the probabilities are [voltages, widths], got {tuple(p.shape)}")
        require((p >= 0) & (p <= 1), "a probability is in 0..1", p)
        for dimension, name in enumerate(("voltage", "pulse width")):
            require(
                p.diff(dim=dimension) >= 0, f"the probability rises with the {name}, the step", p.diff(dim=dimension)
            )

    @classmethod
    def from_csv(cls, path: str | Path) -> "MeasuredTable":
        """Reads a table of one direction, see `read_measurements`; voltages are magnitudes.

        Where the probability falls from a pulse to a stronger one, within the noise of its trials, the table is
        smoothed and a `SmoothedWarning` says so.

        Raises:
            ValueError: as `read_measurements`; a combination of voltage and width is missing; or the probability
                falls by more than its noise; the message names the line.
            OSError: the file cannot be read.
        """
        measurements = read_measurements(path, signed=False)
        voltage_V, width_s, grid = _grid(measurements, path)
        probability, trials = (
            torch.tensor([[getattr(one, name) for one in row] for row in grid], dtype=torch.float64)
            for name in ("probability", "trials")
        )
        flat = [one for row in grid for one in row]
        if pair := contradiction(probability, trials):
            weaker, stronger = (flat[position] for position in pair)
            raise ValueError(
                f"{path}:{stronger.line}: the probability is {stronger.probability:g}, below the"
                f" {weaker.probability:g} of line {weaker.line}, by more than the noise of {stronger.trials:g} trials"
            )
        smooth = monotone(probability, trials)
        changes = (smooth - probability).abs().flatten()
        if float(changes.max()) > 1e-6:
            most = int(changes.argmax())
            warnings.warn(
                f"{path}: the probability falls here and there, within the noise of its trials, and was smoothed; most"
                f" in line {flat[most].line}, by {float(changes[most]):.2g}",
                SmoothedWarning,
                stacklevel=2,
            )
            probability = smooth.clamp(0, 1)
        return cls(voltage_V, width_s, probability)

    def interpolate(self, voltage_V: Tensor, pulse_width_s: Tensor) -> Tensor:
        """Probability at voltages and widths of 0 or more, which broadcast."""
        row, across = _cell(self.voltage_V, voltage_V)
        column, along = _cell(self.pulse_width_s, pulse_width_s)
        p = _from_zero(self.probability).to(voltage_V)
        low = p[row, column] + across * (p[row + 1, column] - p[row, column])
        high = p[row, column + 1] + across * (p[row + 1, column + 1] - p[row, column + 1])
        return low + along * (high - low)

    def width_s(self, voltage_V: Tensor, probability: Tensor) -> Tensor:
        """Shortest pulse that reaches a probability; `inf` where the longest measured one does not."""
        row, across = _cell(self.voltage_V, voltage_V)
        p = _from_zero(self.probability).to(voltage_V)
        widths = [0.0, *self.pulse_width_s.tolist()]
        low = torch.zeros_like(across)
        result = torch.where(probability > 0, torch.inf, torch.zeros_like(across * probability))
        for k in range(1, len(widths)):
            high = p[row, k] + across * (p[row + 1, k] - p[row, k])
            here = widths[k - 1] + (widths[k] - widths[k - 1]) * (probability - low) / (high - low)
            result = torch.where((probability > low) & (probability <= high), here, result)
            low = high
        return result


def _from_zero(grid: Tensor) -> Tensor:
    """The grid with a row and a column of zeros before it."""
    return torch.nn.functional.pad(grid, (1, 0, 1, 0))


def _cell(axis: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of each value, on the axis with 0 before it, and where in it: 0..1, held at 1 beyond the last point."""
    axis = torch.cat([axis.new_zeros(1), axis]).to(x)
    cell = torch.searchsorted(axis, x.contiguous(), right=True).clamp(1, len(axis) - 1) - 1
    return cell, ((x - axis[cell]) / (axis[cell + 1] - axis[cell])).clamp_max(1)


def _grid(measurements: list[Measurement], path: str | Path) -> tuple[Tensor, Tensor, list[list[Measurement]]]:
    """Voltages and widths, ascending, and the measurement at each pair of them."""
    by_place = {(one.voltage_V, one.pulse_width_s): one for one in measurements}
    voltages, widths = (sorted({key[axis] for key in by_place}) for axis in (0, 1))
    for voltage in voltages:
        for width in widths:
            if (voltage, width) not in by_place:
                line = max(one.line for one in measurements if one.voltage_V == voltage)
                raise ValueError(f"{path}:{line}: there is no measurement of {voltage:g} V at {width:g} s as well")
    grid = [[by_place[voltage, width] for width in widths] for voltage in voltages]
    return torch.tensor(voltages, dtype=torch.float64), torch.tensor(widths, dtype=torch.float64), grid
