"""`hwsim sweep schemes`: the probability of a transition that each write scheme makes of a step."""

import argparse
from types import ModuleType
from typing import Any, get_args

from bnn.errors import UsageError
from hwsim.cli.sweep_options import (
    add_junction,
    add_nonidealities,
    add_points,
    add_study,
    check_points,
    junction,
    listed,
    name_of,
    nonidealities,
    write,
)
from hwsim.nonidealities import NonIdealities
from hwsim.studies import physics
from hwsim.write_schemes import SchemeName

# Of the schemes.
_OPTIONS = ("gate", "gain", "offset_probability")


def add_parser(studies: Any) -> None:
    """Adds the study to those of `hwsim sweep`."""
    names = list(get_args(SchemeName))
    parser = add_study(
        studies, "schemes", schemes, "Probability of a transition against the size of a step, by write scheme."
    )
    parser.add_argument(
        "--schemes",
        type=listed(str),
        default=["linear", "paper", "pedestal", "gated-pedestal", "pre-distorted"],
        help=f"of {', '.join(names)}, with commas between (default: %(default)s)",
    )
    parser.add_argument("--m", type=float, default=3.0, help="of the wanted tanh(m v) (default: %(default)s)")
    parser.add_argument("--overdrive", type=float, default=3.0, help="of the pulses (default: %(default)s)")
    add_points(parser, default=41, help="even in v, and as many in its logarithm ")
    parser.add_argument("--gate", type=float, help="requested probability below which there is no pulse")
    parser.add_argument("--gain", type=float, help="of linear and paper: full pulses that v = 1 adds")
    parser.add_argument(
        "--offset-probability", type=float, help="of linear and paper: with which the least pulse alone switches"
    )
    add_junction(parser)
    add_nonidealities(parser)


def schemes(options: argparse.Namespace, figures: ModuleType) -> None:
    """Sweeps, and writes the table and the figure."""
    if unknown := set(options.schemes) - set(get_args(SchemeName)):
        raise UsageError(f"there is no scheme {unknown.pop()!r}; see `hwsim sweep schemes --help`")
    check_points(options)
    flaws = nonidealities(options)
    given = {name: value for name in _OPTIONS if (value := getattr(options, name)) is not None}
    table = physics.schemes(
        junction(options),
        options.schemes,
        antiparallel=options.state == "AP",
        m=options.m,
        overdrive=options.overdrive,
        options=given,
        nonidealities=flaws,
        points=options.points,
    )
    parts = [f"{name_of(options)}, out of {options.state}, I/Ic0 = {options.overdrive:g}"]
    parts += [f"{name} {value:g}" for name, value in given.items()]
    parts += [f"{name} {value:g}" for name, value in vars(flaws).items() if value != getattr(NonIdealities(), name)]
    write(options.out / "schemes.csv", table, figures.schemes, options, ", ".join(parts))
