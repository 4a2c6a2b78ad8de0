"""A device in a TOML file: an MTJ by its constants, with or without control by voltage, or measured tables."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from bnn import files
from hwsim.devices.base import DeviceModel
from hwsim.devices.fit import JunctionFit
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable
from hwsim.devices.mtj import MTJ
from hwsim.devices.vcma import VoltageControlledMTJ

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLES = ("to_antiparallel", "to_parallel")
_RESISTANCES = ("parallel_resistance_ohm", "antiparallel_resistance_ohm")
_MOST_BYTES = 1 << 20


def read_device(path: str | Path) -> DeviceModel:
    """The device of a TOML file with a table `[mtj]`, `[vcma]` or `[measured]`.

    `[mtj]` has the constants of `MTJ` by their names; those with defaults may be missing. `[vcma]` has those of
    `VoltageControlledMTJ`. `[measured]` has
    `to_antiparallel` and `to_parallel`, the names of CSV files beside this one (see `MeasuredTable.from_csv`), and
    `parallel_resistance_ohm` and `antiparallel_resistance_ohm`. Other tables, such as `[fit]`, are left alone.

    Raises:
        ValueError: this is no such file, or a constant is missing, unknown or not physical; the message names it.
        OSError: a file cannot be read.
    """
    path = Path(path)
    with files.open_regular(path) as file:
        content = file.read(_MOST_BYTES + 1)
    try:
        if len(content) > _MOST_BYTES:
            raise ValueError("it is too large")
        tables = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: this is no device file: {error}") from None
    readers: dict[str, Callable[[Mapping[str, Any], Path], DeviceModel]] = {
        "mtj": partial(_mtj, MTJ),
        "vcma": partial(_mtj, VoltageControlledMTJ),
        "measured": _measured,
    }
    kinds = [kind for kind in readers if isinstance(tables.get(kind), dict)]
    if len(kinds) != 1:
        raise ValueError(f"{path}: a device file has one table, [mtj], [vcma] or [measured]; `hwsim fit` writes one")
    try:
        return readers[kinds[0]](tables[kinds[0]], path.parent)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path.parent)) else f"{path}: [{kinds[0]}] {text}") from None


def device_text(fit: JunctionFit, *, source: str) -> str:
    """The device file of a fit.

    Args:
        fit: the junction with its error bars.
        source: of the counts, a line.
    """
    junction, errors = fit.junction, fit.relative_errors
    lines = [f"# A junction fitted by `hwsim fit` to {' '.join(source.split())}", "", "[mtj]"]
    lines += [f"{name} = {float(junction.constant(name))!r}" for name in junction.constants]
    lines += ["", "[fit]", f"measurements = {len(fit.measurements)}", f"p_value = {fit.p_value!r}"]
    lines += ["# Standard errors, relative; and the correlations of the constants, in the same order."]
    lines += [f"{name} = {error!r}" for name, error in errors.items()]
    deviation = fit.covariance.diagonal().sqrt()
    correlation = (fit.covariance / deviation / deviation[:, None]).tolist()
    rows = ", ".join(f"[{', '.join(f'{value:.6f}' for value in row)}]" for row in correlation)
    return "\n".join([*lines, f"correlations = [{rows}]", ""])


def _mtj(kind: type[MTJ], values: Mapping[str, Any], folder: Path) -> MTJ:
    _refuse_unknown(values, kind.constants)
    required = [field.name for field in fields(kind) if field.name in kind.constants and field.default is MISSING]
    constants: dict[str, Any] = _numbers(values, required)
    return kind(**constants)


def _measured(values: Mapping[str, Any], folder: Path) -> MeasuredDevice:
    _refuse_unknown(values, (*_TABLES, *_RESISTANCES))
    numbers = _numbers({name: value for name, value in values.items() if name in _RESISTANCES}, _RESISTANCES)
    for name in _TABLES:
        if not isinstance(values.get(name), str):
            raise ValueError(f"{name} is the name of a CSV file, got {values.get(name)!r}")
    tables = [MeasuredTable.from_csv(folder / values[name]) for name in _TABLES]
    parallel_ohm, antiparallel_ohm = (numbers[name] for name in _RESISTANCES)
    return MeasuredDevice(
        to_antiparallel=tables[0],
        to_parallel=tables[1],
        parallel_resistance_ohm=parallel_ohm,
        antiparallel_resistance_ohm=antiparallel_ohm,
    )


def _refuse_unknown(values: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            raise ValueError(f"has no constant {name!r}{f', but there is {near[0]!r}' if near else ''}")


def _numbers(values: Mapping[str, Any], required: Iterable[str]) -> dict[str, float]:
    for name in required:
        if name not in values:
            raise ValueError(f"{name} is missing")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} is a number, got {value!r}")
    return {name: float(value) for name, value in values.items()}
