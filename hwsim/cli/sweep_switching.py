"""`hwsim sweep switching`: the probability that a pulse switches a junction, over one quantity of the pulse."""

import argparse
from types import ModuleType
from typing import Any, get_args

import torch

from bnn.errors import UsageError
from hwsim.cli.sweep_options import add_junction, add_points, add_study, check_points, junction, listed, name_of, write
from hwsim.devices import named
from hwsim.devices.mtj import MTJ
from hwsim.studies import physics


def add_parser(studies: Any) -> None:
    """Adds the study to those of `hwsim sweep`."""
    parser = add_study(
        studies, "switching", switching, "Probability that a pulse switches a junction, by one or more models."
    )
    names = ", ".join([*named.laws(), physics.SIMULATION])
    parser.add_argument("--over", choices=get_args(physics.Quantity), required=True, help="what is swept")
    parser.add_argument("--from", dest="start", type=float, required=True)
    parser.add_argument("--to", dest="stop", type=float, required=True)
    add_points(parser, default=61)
    parser.add_argument("--models", type=listed(str), help=f"of {names}, with commas between")
    add_junction(parser)
    parser.add_argument("--overdrive", type=float, help="current over the critical current (default: 3)")
    parser.add_argument("--voltage-V", type=float, help="in place of the overdrive")
    parser.add_argument("--pulse-width-s", type=float)
    parser.add_argument("--trajectories", type=int, default=2_000, help="of the model llg (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the model llg (default: %(default)s)")


def switching(options: argparse.Namespace, figures: ModuleType) -> None:
    """Sweeps, and writes the table and the figure."""
    given = {name for name in get_args(physics.Quantity) if getattr(options, name.replace("-", "_")) is not None}
    if options.over in given:
        raise UsageError(f"--{options.over} is swept: leave it away")
    if {"overdrive", "voltage-V"} <= given | {options.over}:
        raise UsageError("sweep or give --overdrive or --voltage-V, not both")
    if options.over != "pulse-width-s" and options.pulse_width_s is None:
        raise UsageError(f"a sweep over {options.over} needs --pulse-width-s")
    check_points(options)
    device = junction(options)
    if options.temperature_K is not None:
        device = device.at_temperature(options.temperature_K)
    models = options.models or [device.model.name]
    if unknown := set(models) - {*named.laws(), physics.SIMULATION}:
        raise UsageError(f"there is no model {unknown.pop()!r}; see `hwsim sweep switching --help`")
    overdrive = 3.0 if options.overdrive is None else options.overdrive
    table = physics.switching(
        device,
        options.over,
        torch.linspace(options.start, options.stop, options.points, dtype=torch.float64).tolist(),
        models=models,
        antiparallel=options.state == "AP",
        overdrive=overdrive,
        voltage_V=options.voltage_V,
        pulse_width_s=options.pulse_width_s,
        trajectories=options.trajectories,
        seed=options.seed,
    )
    path = options.out / f"switching-{options.over}.csv"
    write(path, table, figures.switching, options, _title(options, device, overdrive))


def _title(options: argparse.Namespace, device: MTJ, overdrive: float) -> str:
    """What is not swept."""
    parts = [f"{name_of(options)}, out of {options.state}"]
    if options.over != "temperature-K":
        parts.append(f"Δ = {float(device.thermal_stability):.3g}")
    if options.voltage_V is not None:
        parts.append(f"{options.voltage_V:g} V")
    elif options.over not in ("overdrive", "voltage-V"):
        parts.append(f"I/Ic0 = {overdrive:g}")
    if options.over != "pulse-width-s":
        parts.append(f"{1e9 * options.pulse_width_s:g} ns")
    return ", ".join(parts)
