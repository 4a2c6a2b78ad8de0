"""Measured switching probabilities over voltage and pulse width, and their CSV files."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hwsim.devices.values import require, require_positive

_COLUMNS = ["voltage_V", "pulse_width_s", "probability"]
# Values outside are in other units: millivolts, nanoseconds or per cent.
_PLAUSIBLE = {"voltage_V": (1e-3, 20.0), "pulse_width_s": (1e-13, 1e-2), "probability": (0.0, 1.0)}


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
        """Reads lines `voltage_V,pulse_width_s,probability`, in any order, with this header.

        Raises:
            ValueError: a value is missing, no number or in other units, a combination of voltage and width is
                missing or twice there, or the probability falls; the message names the line.
            OSError: the file cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: this is no text, so no table") from None
        header, *rows = [line.split(",") for line in text.splitlines()] or [[]]
        header = [name.strip() for name in header]
        if header != _COLUMNS:
            raise ValueError(f"{path}:1: the header is {','.join(_COLUMNS)}, got {','.join(header) or 'nothing'}")
        measurements: dict[tuple[float, float], tuple[int, float]] = {}
        for line, row in enumerate(rows, start=2):
            if row != [""]:
                voltage, width, p = _values(row, f"{path}:{line}")
                if (voltage, width) in measurements:
                    first = measurements[voltage, width][0]
                    raise ValueError(f"{path}:{line}: the same voltage and width as in line {first}")
                measurements[voltage, width] = (line, p)
        if not measurements:
            raise ValueError(f"{path}: there is no measurement below the header")
        return cls(*_grid(measurements, path))

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


def _values(row: list[str], place: str) -> list[float]:
    if len(row) != len(_COLUMNS):
        raise ValueError(f"{place}: a line has {len(_COLUMNS)} values, got {len(row)}")
    values = []
    for name, text in zip(_COLUMNS, row, strict=True):
        low, high = _PLAUSIBLE[name]
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{place}: {name} is no number: {text.strip()!r}") from None
        if not low <= value <= high:
            raise ValueError(f"{place}: {name} is {value:g}, outside {low:g}..{high:g}; look at its unit")
        values.append(value)
    return values


def _grid(lines: dict[tuple[float, float], tuple[int, float]], path: str | Path) -> list[Tensor]:
    """Voltages, widths and probabilities of measurements by voltage and width, each with its line."""
    voltages, widths = (sorted({key[axis] for key in lines}) for axis in (0, 1))
    for j, voltage in enumerate(voltages):
        for k, width in enumerate(widths):
            if (voltage, width) not in lines:
                line = max(line for (v, _), (line, _) in lines.items() if v == voltage)
                raise ValueError(f"{path}:{line}: there is no measurement of {voltage:g} V at {width:g} s as well")
            line, p = lines[voltage, width]
            for before in [(voltages[j - 1], width)] * (j > 0) + [(voltage, widths[k - 1])] * (k > 0):
                other, lower = lines[before]
                if p < lower:
                    raise ValueError(f"{path}:{line}: the probability is {p:g}, below the {lower:g} of line {other}")
    probabilities = [[lines[voltage, width][1] for width in widths] for voltage in voltages]
    return [torch.tensor(values, dtype=torch.float64) for values in (voltages, widths, probabilities)]
