"""The command line. What is slow to import is imported by the command that needs it: `--help` answers at once."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bnn.errors import BnnError, DataError, UsageError

if TYPE_CHECKING:
    from hwsim.devices.base import Real

_HELP = """usage: hwsim COMMAND ...

Simulated magnetic tunnel junctions as the weights of a network.

commands:
  hwsim switching [options]        probability that a pulse switches a junction
  hwsim switching --help           its options
  hwsim sweep switching [options]  the same over pulse width, overdrive, voltage or temperature: CSV and figure
  hwsim sweep schemes [options]    what each write scheme makes of a step
  hwsim sweep accuracy RECIPE ...  trainings over an option of a recipe, such as spread, stuck or temperature-K
"""

# Of `hwsim.devices`, by their names on the command line; "llg" is the simulation.
_MODELS = {"fokker-planck": "FokkerPlanck", "butler": "Butler", "neel-brown": "NeelBrown", "erf": "Erf", "llg": "llg"}
# Functions of `hwsim.devices.junctions`, by their names on the command line.
_PRESETS = {"consistent": "consistent", "paper": "paper", "ut-austin": "ut_austin", "sot": "sot"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after `hwsim`; by default the process's own.

    Returns:
        The exit status: 0 for success, 2 for a command line that cannot be understood, 1 for other errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words in (["-h"], ["--help"]):
        print(_HELP, end="")
        return 0 if words else 2
    commands: dict[str, Callable[[list[str]], None]] = {"switching": _switching, "sweep": _sweep}
    try:
        if words[0] not in commands:
            raise UsageError(f"there is no command {words[0]!r}; see `hwsim --help`")
        with _one_line_warnings():
            commands[words[0]](words[1:])
    except BnnError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is as it was", 130)
    return 0


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _fail(message: str, code: int) -> int:
    print("hwsim:", " ".join(message.split()), file=sys.stderr)
    return code


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print("hwsim: warning:", " ".join(str(message).split()), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _sweep(words: list[str]) -> None:
    from hwsim.cli_sweep import sweep

    sweep(_ArgumentParser(prog="hwsim sweep", description="Tables and figures over one quantity."), words)


# --- switching ------------------------------------------------------------------------------------------------------


def _switching(words: list[str]) -> None:
    parser = _ArgumentParser(
        prog="hwsim switching",
        description="Probability that a pulse switches a junction, which starts in thermal equilibrium.",
        epilog="Reduced units: tau = alpha gamma B t / (1 + alpha^2), of which a unit is 0.947 ns for the default "
        "preset. Not a number, not physical or unknown: exit status 2.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", choices=_MODELS, help="law (default: fokker-planck; for --preset paper: erf)")
    parser.add_argument("--json", action="store_true", help='print {"probability": ...}')
    reduced = parser.add_argument_group("in reduced units")
    reduced.add_argument("--delta", type=float, help="thermal stability")
    reduced.add_argument("--overdrive", type=float, help="current over the critical current")
    reduced.add_argument("--tau", type=float, help="time")
    physical = parser.add_argument_group("in physical units")
    physical.add_argument("--preset", choices=_PRESETS, help="junction (default: consistent)")
    physical.add_argument("--measured", metavar="CSV", type=Path, help="table of voltage_V,pulse_width_s,probability")
    physical.add_argument("--voltage-V", type=float, help="positive drives from parallel to antiparallel")
    physical.add_argument("--pulse-width-s", type=float)
    physical.add_argument("--state", choices=("P", "AP"), help="before the pulse (default: that which V drives out)")
    physical.add_argument("--temperature-K", type=float, help="(default: 300)")
    simulation = parser.add_argument_group("of the model llg")
    simulation.add_argument("--trajectories", type=int, default=10_000, help="junctions (default: %(default)s)")
    simulation.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    simulation.add_argument("--alpha", type=float, help="damping (default: the preset's, else 0.02)")
    options = parser.parse_args(words)

    given = {name for name, value in vars(options).items() if value is not None}
    in_reduced = {"delta", "overdrive", "tau"}
    in_physical = {"preset", "measured", "voltage_V", "pulse_width_s", "state", "temperature_K"}
    if given & in_reduced and given & in_physical:
        both = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given & (in_reduced | in_physical)))
        raise UsageError(f"give reduced units or physical ones, not both: {both}")
    needed = in_reduced if given & in_reduced else {"voltage_V", "pulse_width_s"}
    if missing := needed - given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(missing))
        raise UsageError(f"{names} is missing; see `hwsim switching --help`")

    try:
        probability = _reduced_probability(options) if given & in_reduced else _physical_probability(options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    print(json.dumps({"probability": probability}) if options.json else f"probability {probability:.6g}")


def _reduced_probability(options: argparse.Namespace) -> float:
    """By --delta, --overdrive and --tau; the damping matters to the simulation alone."""
    from hwsim.devices.base import require_positive

    damping = 0.02 if options.alpha is None else options.alpha
    require_positive("alpha", damping)
    return _evaluate(options, options.delta, options.overdrive, options.tau, damping)


def _physical_probability(options: argparse.Namespace) -> float:
    """By --preset or --measured, --voltage-V and --pulse-width-s."""
    from hwsim.devices import MTJ, MeasuredDevice, MeasuredTable, junctions

    if options.measured is not None:
        if options.preset is not None:
            raise UsageError("give --preset or --measured, not both")
        try:
            table = MeasuredTable.from_csv(options.measured)
        except OSError as error:
            raise DataError(f"{options.measured} cannot be read: {error.strerror}") from None
        # The resistances do not enter into the probability.
        device: MTJ | MeasuredDevice = MeasuredDevice(
            to_antiparallel=table, to_parallel=table, parallel_resistance_ohm=1, antiparallel_resistance_ohm=2
        )
    else:
        device = getattr(junctions, _PRESETS[options.preset or "consistent"])()
    antiparallel = options.voltage_V < 0 if options.state is None else options.state == "AP"
    if isinstance(device, MeasuredDevice):
        if unused := [name for name in ("model", "temperature_K", "alpha") if getattr(options, name) is not None]:
            raise UsageError(f"--{unused[0].replace('_', '-')} has no effect on a measured junction")
        return float(
            device.switch_probability(antiparallel, voltage_V=options.voltage_V, pulse_width_s=options.pulse_width_s)
        )
    changes = {"damping": options.alpha, "temperature_K": options.temperature_K}
    device = replace(device, **{name: value for name, value in changes.items() if value is not None})
    if options.model is None:
        options.model = device.model.name
    return _evaluate(
        options,
        device.thermal_stability,
        device.overdrive(antiparallel, voltage_V=options.voltage_V),
        options.pulse_width_s / device.time_unit_s,
        device.damping,
    )


def _evaluate(options: argparse.Namespace, delta: Real, overdrive: Real, tau: Real, damping: Real) -> float:
    """The probability by --model."""
    import torch

    from hwsim import devices
    from hwsim.devices import llg

    if options.model != "llg":
        model = getattr(devices, _MODELS[options.model or "fokker-planck"])()
        return float(model.probability(delta, overdrive, tau))
    share = llg.switched(
        float(delta),
        float(overdrive),
        torch.tensor(float(tau), dtype=torch.float64),
        generator=torch.Generator().manual_seed(options.seed),
        damping=float(damping),
        trajectories=options.trajectories,
    )
    return float(share)
