"""Measured switching, pulse by pulse: the lines of a CSV file, with their units looked at."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bnn import files

TRIALS = 100
"""Pulses a point where a file does not say how many there were."""

_COLUMNS = (
    ("voltage_V", "pulse_width_s", "switched", "trials"),
    ("voltage_V", "pulse_width_s", "probability", "trials"),
    ("voltage_V", "pulse_width_s", "probability"),
)
# Values outside are in other units: millivolts, nanoseconds or per cent.
_PLAUSIBLE = {
    "voltage_V": (1e-3, 20.0),
    "pulse_width_s": (1e-13, 1e-2),
    "probability": (0.0, 1.0),
    "switched": (0.0, math.inf),
    "trials": (1.0, 1e12),
}
# No junction is measured over more, without breaking down at one end or keeping still at the other.
_WIDEST_VOLTAGES = 100.0
_MOST_BYTES = 1 << 24


class Measurement(NamedTuple):
    """One line: what pulses of one voltage and width did."""

    line: int
    """In the file; the first is 1."""
    voltage_V: float
    """Positive out of parallel, negative out of antiparallel."""
    pulse_width_s: float
    probability: float
    """The fraction that switched, 0..1."""
    trials: float
    """Number of pulses."""


def read_measurements(path: str | Path, *, signed: bool) -> list[Measurement]:
    """Reads lines `voltage_V,pulse_width_s,switched,trials`, in any order, with this header.

    In place of `switched` there may be `probability`, and `trials` may then be missing: the noise is taken to be that
    of `TRIALS` pulses.

    Args:
        path: of the file.
        signed: whether voltages have a sign, which tells the direction, or are magnitudes above 0.

    Raises:
        ValueError: a value is missing, no number or in other units, more pulses switched than there were, or voltage
            and width are those of another line; the message names the line and the column.
        OSError: the file cannot be read.
    """
    try:
        text = files.read_bytes(Path(path), limit_bytes=_MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: this is no text, so no table") from None
    header, *rows = [line.split(",") for line in text.splitlines()] or [[]]
    columns = tuple(name.strip() for name in header)
    if columns not in _COLUMNS:
        expected = " or ".join(",".join(names) for names in _COLUMNS)
        raise ValueError(f"{path}:1: the header is {expected}, got {','.join(columns) or 'nothing'}")
    found: dict[tuple[float, float], Measurement] = {}
    for line, row in enumerate(rows, start=2):
        if row != [""]:
            measured = _measurement(line, columns, row, f"{path}:{line}", signed)
            if (twin := found.setdefault(measured[1:3], measured)) is not measured:
                raise ValueError(f"{path}:{line}: the same voltage and width as in line {twin.line}")
    if not found:
        raise ValueError(f"{path}: there is no measurement below the header")
    _refuse_mixed_units(list(found.values()), path)
    return list(found.values())


def _measurement(line: int, columns: Sequence[str], row: list[str], place: str, signed: bool) -> Measurement:
    if len(row) != len(columns):
        raise ValueError(f"{place}: a line has {len(columns)} values, got {len(row)}")
    values = {}
    for name, text in zip(columns, row, strict=True):
        low, high = _PLAUSIBLE[name]
        try:
            values[name] = float(text)
        except ValueError:
            raise ValueError(f"{place}: {name} is no number: {text.strip()!r}") from None
        size = abs(values[name]) if signed and name == "voltage_V" else values[name]
        if not low <= size <= high:
            raise ValueError(f"{place}: {name} is {values[name]:g}, outside {low:g}..{high:g}; look at its unit")
    for name in {"switched", "trials"} & values.keys():
        if values[name] % 1:
            raise ValueError(f"{place}: {name} is {values[name]:g}, and a count is a whole number")
    trials = values.get("trials", TRIALS)
    if values.get("switched", 0) > trials:
        raise ValueError(f"{place}: switched is {values['switched']:g}, more than the {trials:g} trials")
    probability = values["probability"] if "probability" in values else values["switched"] / trials
    return Measurement(line, values["voltage_V"], values["pulse_width_s"], probability, trials)


def _refuse_mixed_units(measurements: list[Measurement], path: str | Path) -> None:
    """Raises a ValueError where voltages lie so far apart that some of them are millivolts."""
    low, high = (pick(measurements, key=lambda one: abs(one.voltage_V)) for pick in (min, max))
    if abs(high.voltage_V) > _WIDEST_VOLTAGES * abs(low.voltage_V):
        raise ValueError(
            f"{path}:{high.line}: voltage_V is {high.voltage_V:g} and in line {low.line} {low.voltage_V:g}: units are"
            " mixed; write volts in every line"
        )
