"""What the studies of `hwsim sweep` share: options, and how they end."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import docstring_parser

from bnn.errors import UsageError
from hwsim.cli.files import read_file
from hwsim.devices import named
from hwsim.devices.device_file import read_device
from hwsim.devices.mtj import MTJ
from hwsim.nonidealities import NonIdealities
from hwsim.studies.tables import Table, write_csv

ACTING_ON_A_PULSE = (
    "area_spread",
    "resistance_spread",
    "anisotropy_spread",
    "tmr_spread",
    "barrier_spread",
    "critical_current_spread",
    "critical_current_ratio_spread",
    "stray_field_T",
    "stray_field_spread_T",
    "clock_s",
    "amplitude_noise",
    "jitter_s",
    "write_error",
)

# Gets the options, and the module `hwsim.studies.figures`.
Study = Callable[[argparse.Namespace, ModuleType], None]


def add_study(studies: Any, name: str, study: Study, description: str) -> argparse.ArgumentParser:
    """A parser of one study, with the options of all of them."""
    parser: argparse.ArgumentParser = studies.add_parser(
        name, help=description[0].lower() + description[1:-1], description=description, allow_abbrev=False
    )
    parser.set_defaults(study=study)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the table and the figure")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="of the figure (default: %(default)s)")
    return parser


def add_junction(parser: argparse.ArgumentParser) -> None:
    """Options of the junction that is pulsed."""
    parser.add_argument(
        "--junction", choices=list(named.mtjs()), default="consistent", help="its name (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="TOML", type=Path, help="in its place a file, as `hwsim fit` writes")
    parser.add_argument("--state", choices=("P", "AP"), default="P", help="before the pulse (default: %(default)s)")
    parser.add_argument("--temperature-K", type=float, help="of the junction (default: 300)")


def add_nonidealities(parser: argparse.ArgumentParser) -> None:
    """Options of what makes pulses and junctions differ: the fields of `NonIdealities` that act on a single pulse."""
    group = parser.add_argument_group("non-idealities", "see hwsim.nonidealities.NonIdealities")
    group.add_argument(
        "--spread", type=float, default=0.0, help="of the constants each, from junction to junction: a worst case"
    )
    group.add_argument(
        "--correlated", action="store_true", help="--spread is that of area, R A product, anisotropy field and TMR"
    )
    help_of = {
        parameter.arg_name: parameter.description for parameter in docstring_parser.parse(NonIdealities.__doc__).params
    }
    for name in ACTING_ON_A_PULSE:
        group.add_argument(f"--{name.replace('_', '-')}", type=float, help=help_of[name])


def nonidealities(options: argparse.Namespace) -> NonIdealities:
    """Those of the options, with --temperature-K."""
    return NonIdealities.uniform(
        spread=options.spread,
        correlated=options.correlated,
        temperature_K=options.temperature_K,
        **{name: getattr(options, name) for name in ACTING_ON_A_PULSE},
    )


def junction(options: argparse.Namespace) -> MTJ:
    """The one of --junction or --device, at the temperature of its constants."""
    if options.device is None:
        return named.mtjs()[options.junction]()
    device = read_file(read_device, options.device)
    if not isinstance(device, MTJ):
        raise UsageError(f"{options.device}: the sweep takes the constants of an [mtj], and this has measured tables")
    return device


def name_of(options: argparse.Namespace) -> str:
    """What a title calls the junction."""
    return str(options.junction if options.device is None else options.device.stem)


def add_points(parser: argparse.ArgumentParser, *, default: int, help: str = "") -> None:
    """The number of points of a curve."""
    parser.add_argument("--points", type=int, default=default, help=f"{help}(default: %(default)s)")


def check_points(options: argparse.Namespace) -> None:
    """Raises a UsageError for a curve of less than two points."""
    if options.points < 2:
        raise UsageError(f"a sweep has 2 points or more, got {options.points}")


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """The type of an option of values with commas between them."""

    def values(text: str) -> list[Any]:
        return [kind(word.strip()) for word in text.split(",")]

    values.__name__ = f"list of {kind.__name__}"
    return values


def write(path: Path, table: Table, draw: Callable[..., None], options: argparse.Namespace, title: str) -> None:
    """Writes a table and its figure, and prints where they are."""
    write_csv(path, table)
    picture = path.with_suffix(f".{options.format}")
    draw(table, picture, title=title)
    print(path, picture, sep="\n")
