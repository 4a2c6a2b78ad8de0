"""`hwsim switching`: the probability that one pulse switches one junction."""

import argparse
import json
from pathlib import Path

import torch

from bnn.cli.arguments import ArgumentParser
from bnn.errors import UsageError
from hwsim.cli.files import read_file
from hwsim.devices import llg, named
from hwsim.devices.base import DeviceModel
from hwsim.devices.device_file import read_device
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable
from hwsim.devices.mtj import MTJ
from hwsim.devices.values import Real, require_positive
from hwsim.studies.physics import SIMULATION

_REDUCED = {"delta", "overdrive", "tau"}
_PHYSICAL = {"junction", "device", "measured", "voltage_V", "pulse_width_s", "state", "temperature_K"}
_DEFAULT_JUNCTION, _DEFAULT_LAW, _DEFAULT_DAMPING = "consistent", "fokker-planck", 0.02


def switching(arguments: list[str]) -> None:
    """Prints a probability, by the arguments after `hwsim switching`.

    Raises:
        UsageError: arguments that cannot be understood, or a quantity that is not physical.
        DataError: a file cannot be read.
    """
    options = _parser().parse_args(arguments)
    given = {name for name, value in vars(options).items() if value is not None}
    if given & _REDUCED and given & _PHYSICAL:
        raise UsageError(f"give reduced units or physical ones, not both: {_dashed(given & (_REDUCED | _PHYSICAL))}")
    needed = _REDUCED if given & _REDUCED else {"voltage_V", "pulse_width_s"}
    if missing := needed - given:
        raise UsageError(f"{_dashed(missing)} is missing; see `hwsim switching --help`")
    try:
        probability = _reduced(options) if given & _REDUCED else _physical(options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    print(json.dumps({"probability": probability}) if options.json else f"probability {probability:.6g}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="hwsim switching",
        description="Probability that a pulse switches a junction, which starts in thermal equilibrium.",
        epilog="Reduced units: tau = alpha gamma B t / (1 + alpha^2), of which a unit is 0.947 ns for the default "
        "junction. Not a number, not physical or unknown: exit status 2.",
    )
    parser.add_argument(
        "--model",
        choices=[*named.laws(), SIMULATION],
        help=f"law (default: that of the junction, or {_DEFAULT_LAW})",
    )
    parser.add_argument("--json", action="store_true", help='print {"probability": ...}')
    reduced = parser.add_argument_group("in reduced units")
    reduced.add_argument("--delta", type=float, help="thermal stability")
    reduced.add_argument("--overdrive", type=float, help="current over the critical current")
    reduced.add_argument("--tau", type=float, help="time")
    physical = parser.add_argument_group("in physical units")
    physical.add_argument(
        "--junction", choices=list(named.junctions()), help=f"its name (default: {_DEFAULT_JUNCTION})"
    )
    physical.add_argument("--device", metavar="TOML", type=Path, help="in its place a file, as `hwsim fit` writes")
    physical.add_argument("--measured", metavar="CSV", type=Path, help="table of voltage_V,pulse_width_s,probability")
    physical.add_argument("--voltage-V", type=float, help="positive drives from parallel to antiparallel")
    physical.add_argument("--pulse-width-s", type=float)
    physical.add_argument("--state", choices=("P", "AP"), help="before the pulse (default: that which V drives out)")
    physical.add_argument("--temperature-K", type=float, help="(default: 300)")
    simulation = parser.add_argument_group(f"of the model {SIMULATION}")
    simulation.add_argument("--trajectories", type=int, default=10_000, help="junctions (default: %(default)s)")
    simulation.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    simulation.add_argument(
        "--alpha", type=float, help=f"damping (default: that of the junction, or {_DEFAULT_DAMPING})"
    )
    return parser


def _dashed(names: set[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def _reduced(options: argparse.Namespace) -> float:
    """By --delta, --overdrive and --tau; the damping matters to the simulation alone."""
    damping = _DEFAULT_DAMPING if options.alpha is None else options.alpha
    require_positive("alpha", damping)
    return _probability(options, options.model or _DEFAULT_LAW, options.delta, options.overdrive, options.tau, damping)


def _physical(options: argparse.Namespace) -> float:
    """By --junction, --device or --measured, --voltage-V and --pulse-width-s."""
    device = _device(options)
    if options.temperature_K is not None:
        device = device.at_temperature(options.temperature_K)
    if options.alpha is not None:
        device = device.with_constants(damping=options.alpha)
    voltage_V, width_s = options.voltage_V, options.pulse_width_s
    antiparallel = voltage_V < 0 if options.state is None else options.state == "AP"
    if options.model is None:
        return float(device.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=width_s))
    if not isinstance(device, MTJ):
        raise UsageError(f"--model has no effect on a {type(device).__name__}, which has its own law")
    device = device.at_voltage(voltage_V)
    overdrive, tau = device.overdrive(antiparallel, voltage_V=voltage_V), width_s / device.time_unit_s
    return _probability(options, options.model, device.thermal_stability, overdrive, tau, device.damping)


def _device(options: argparse.Namespace) -> DeviceModel:
    named_so = [name for name in ("junction", "device", "measured") if getattr(options, name) is not None]
    if len(named_so) > 1:
        raise UsageError(f"give {' or '.join(f'--{name}' for name in named_so)}, not both")
    if options.measured is not None:
        table = read_file(MeasuredTable.from_csv, options.measured)
        # The resistances do not enter into the probability.
        return MeasuredDevice(
            to_antiparallel=table, to_parallel=table, parallel_resistance_ohm=1, antiparallel_resistance_ohm=2
        )
    if options.device is not None:
        return read_file(read_device, options.device)
    return named.junctions()[options.junction or _DEFAULT_JUNCTION]()


def _probability(
    options: argparse.Namespace, model: str, delta: Real, overdrive: Real, tau: Real, damping: Real
) -> float:
    if model != SIMULATION:
        return float(named.laws()[model]().probability(delta, overdrive, tau))
    fraction = llg.switched(
        float(delta),
        float(overdrive),
        torch.tensor(float(tau), dtype=torch.float64),
        generator=torch.Generator().manual_seed(options.seed),
        damping=float(damping),
        trajectories=options.trajectories,
    )
    return float(fraction)
