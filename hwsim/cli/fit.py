"""`hwsim fit`: a junction's constants from counts of switching, as a device file, with a figure of data and fit."""

import math
from functools import partial
from pathlib import Path

from bnn.cli.arguments import ArgumentParser
from bnn.errors import RunError, UsageError
from bnn.training.directory import replace_file
from hwsim.cli.files import read_file
from hwsim.devices import junctions
from hwsim.devices.device_file import device_text
from hwsim.devices.fit import CONFIDENCE, JunctionFit, fit_junction
from hwsim.devices.measurements import read_measurements

_UNLIKELY = 1e-3
_FAR = 1e6
"""Volts, out of reach: the magnetoresistance does not depend on the voltage."""


def fit(arguments: list[str]) -> None:
    """Fits, by the arguments after `hwsim fit`; writes a device file and a figure, and prints the constants.

    Raises:
        UsageError: arguments that cannot be understood, or counts that tell nothing.
        DataError: the counts cannot be read.
        RunError: a file cannot be written.
    """
    options = _parser().parse_args(arguments)
    try:
        start = junctions.consistent().with_constants(
            parallel_resistance_ohm=options.parallel_resistance_ohm,
            tmr=options.tmr,
            tmr_half_voltage_V=options.tmr_half_voltage_V,
            temperature_K=options.temperature_K,
            damping=options.damping,
            **({} if options.anisotropy_field_T is None else {"anisotropy_field_T": options.anisotropy_field_T}),
        )
        measurements = read_file(partial(read_measurements, signed=True), options.counts)
        found = fit_junction(measurements, start, fit_pace=options.anisotropy_field_T is None)
    except ValueError as error:
        place = "" if str(error).startswith(str(options.counts)) else f"{options.counts}: "
        raise UsageError(f"{place}{error}") from None
    replace_file(options.output, device_text(found, source=options.counts.name))
    picture = options.output.with_suffix(f".{options.format}")
    _draw(found, picture, options.counts.name)
    print(*_lines(found), options.output, picture, sep="\n")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="hwsim fit",
        description="Fits barrier, critical currents and pace of a junction to counts of switching.",
        epilog="The counts are a CSV file with the header voltage_V,pulse_width_s,switched,trials; a positive voltage "
        "drives out of parallel, a negative one out of antiparallel. Every pulse starts from thermal equilibrium.",
    )
    parser.add_argument("counts", metavar="COUNTS.csv", type=Path)
    parser.add_argument("-o", "--output", metavar="DEVICE.toml", type=Path, required=True, help="the device file")
    parser.add_argument("--parallel-resistance-ohm", type=float, required=True, help="measured at low voltage")
    parser.add_argument("--tmr", type=float, required=True, help="(R_AP - R_P)/R_P at low voltage, a fraction")
    parser.add_argument(
        "--tmr-half-voltage-V", type=float, default=_FAR, help="at which that has halved (default: it never does)"
    )
    parser.add_argument("--temperature-K", type=float, default=300.0, help="of the measurement (default: %(default)s)")
    parser.add_argument("--damping", type=float, default=0.02, help="assumed (default: %(default)s)")
    parser.add_argument("--anisotropy-field-T", type=float, help="where it is known; else the pace is fitted by it")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="of the figure (default: %(default)s)")
    return parser


def _draw(found: JunctionFit, picture: Path, title: str) -> None:
    try:
        from hwsim.studies import fit_figure
    except ModuleNotFoundError as error:
        raise RunError(f"a figure cannot be drawn ({error}): pip install 'bnn-edge[report]'") from None
    fit_figure.draw(found, picture, title=title)


def _lines(found: JunctionFit) -> list[str]:
    errors, junction = found.relative_errors, found.junction
    lines = [
        f"{name:24} {float(junction.constant(name)):.4g} ± {100 * errors[name]:.2g} %, {low:.4g} to {high:.4g}"
        for name, (low, high) in found.intervals.items()
    ]
    lines.append(f"{'thermal stability':24} {float(junction.thermal_stability):.4g}")
    lines.append(f"the ranges hold all of them with {100 * CONFIDENCE:g} %, if the law is the junction's")
    verdict = "" if math.isnan(found.p_value) or found.p_value > _UNLIKELY else ": it is not, look at the residuals"
    return [*lines, f"residuals as large have the probability {found.p_value:.2g} under it{verdict}"]
