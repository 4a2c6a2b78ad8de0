"""`hwsim sweep energy`: a training step in CMOS beside one on tiles, under each price table."""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from hwsim.cli.sweep_options import add_study, junction, name_of
from hwsim.devices import named
from hwsim.studies import energy as study
from hwsim.studies.tables import write_csv
from hwsim.tiles import Tiles


def add_parser(studies: Any) -> None:
    """Adds the study to those of `hwsim sweep`."""
    parser = add_study(studies, "energy", energy, "Energy of a training step in CMOS and on tiles, by price table.")
    parser.add_argument("--network", choices=get_args(study.NetworkName), default="mnist", help="of GXNOR")
    parser.add_argument("--batch-size", type=int, default=100, help="examples of a step (default: %(default)s)")
    parser.add_argument("--junction", choices=list(named.mtjs()), default="consistent", help="(default: %(default)s)")
    parser.add_argument("--device", metavar="TOML", type=Path, help="in its place a file, as `hwsim fit` writes")
    parser.add_argument("--tile-size", type=int, default=128, help="cells on a line (default: %(default)s)")
    parser.add_argument("--adc-bits", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--dac-bits", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument(
        "--write-J",
        type=float,
        required=True,
        help="of the junctions of a cell in one update: write_energy_per_update_J of a run's summary",
    )
    parser.add_argument("--write-V", type=float, default=0.6, help="of the pulses (default: %(default)s)")
    parser.add_argument("--blind", action="store_true", help="cells are not read before they are written")


def energy(options: argparse.Namespace, figures: ModuleType) -> None:
    """Writes the table and the figure."""
    from hwsim.studies import energy_figure

    tiles = Tiles(size=options.tile_size, adc_bits=options.adc_bits, dac_bits=options.dac_bits)
    for name in ("batch_size", "write_V"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} is above 0, got {getattr(options, name):g}")
    if not 0 <= options.write_J < 1:
        raise ValueError(f"--write-J is an energy of 0 or more in joules, got {options.write_J:g}")
    table = study.energy(
        options.network,
        junction(options),
        tiles,
        batch_size=options.batch_size,
        write_J=options.write_J,
        write_V=options.write_V,
        reads_first=not options.blind,
    )
    path = options.out / f"energy-{options.network}.csv"
    write_csv(path, table)
    picture = path.with_suffix(f".{options.format}")
    title = (
        f"one step of GXNOR's network for {options.network}, batch {options.batch_size}; {name_of(options)}, tiles of"
        f" {options.tile_size}, {options.adc_bits}-bit ADC"
    )
    energy_figure.draw(table, picture, title=title)
    print(path, picture, sep="\n")
