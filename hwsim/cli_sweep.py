"""`hwsim sweep`: its options, and from them to tables and figures in a folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bnn.errors import RunError, UsageError

# Those functions of `hwsim.devices.junctions` that make an `MTJ`, by their names on the command line.
_PRESETS = ("consistent", "paper", "ut-austin")


def sweep(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Sweeps one quantity, by the words after `hwsim sweep`.

    Raises:
        UsageError: words that cannot be understood, or a quantity that is not physical.
        RunError: files cannot be written, or runs failed.
    """
    studies = parser.add_subparsers(metavar="STUDY", required=True)
    _add_switching(studies)
    _add_schemes(studies)
    _add_accuracy(studies)
    words, rest = _split(words)
    options = parser.parse_args(words)
    if rest and options.study is not _accuracy:
        raise UsageError("options after `--` are those of a recipe, for `hwsim sweep accuracy`")
    options.rest = rest
    try:
        figures = _figures()
        options.study(options, figures)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    end = words.index("--") if "--" in words else len(words)
    return list(words[:end]), list(words[end + 1 :])


def _figures() -> Any:
    try:
        from hwsim.studies import figures
    except ModuleNotFoundError as error:
        raise RunError(f"a figure cannot be drawn ({error}): pip install 'bnn-edge[report]'") from None
    return figures


def _study(studies: Any, name: str, study: Callable[..., None], description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = studies.add_parser(
        name, help=description[0].lower() + description[1:-1], description=description, allow_abbrev=False
    )
    parser.set_defaults(study=study)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the table and the figure")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="of the figure (default: %(default)s)")
    return parser


def _add_junction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", choices=_PRESETS, default="consistent", help="junction (default: %(default)s)")
    parser.add_argument("--state", choices=("P", "AP"), default="P", help="before the pulse (default: %(default)s)")
    parser.add_argument("--temperature-K", type=float, help="of the junction (default: 300)")


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Values with commas between them."""

    def values(text: str) -> list[Any]:
        return [kind(word.strip()) for word in text.split(",")]

    values.__name__ = f"list of {kind.__name__}"
    return values


# --- switching ------------------------------------------------------------------------------------------------------


def _add_switching(studies: Any) -> None:
    parser = _study(
        studies, "switching", _switching, "Probability that a pulse switches a junction, by one or more models."
    )
    from hwsim.studies.physics import LAWS, SIMULATION, Quantity

    parser.add_argument("--over", choices=get_args(Quantity), required=True, help="what is swept")
    parser.add_argument("--from", dest="start", type=float, required=True)
    parser.add_argument("--to", dest="stop", type=float, required=True)
    parser.add_argument("--points", type=int, default=61, help="(default: %(default)s)")
    parser.add_argument("--models", type=_listed(str), help=f"of {', '.join([*LAWS, SIMULATION])}, with commas between")
    _add_junction(parser)
    parser.add_argument("--overdrive", type=float, help="current over the critical current (default: 3)")
    parser.add_argument("--voltage-V", type=float, help="in place of the overdrive")
    parser.add_argument("--pulse-width-s", type=float)
    parser.add_argument("--trajectories", type=int, default=2_000, help="of the model llg (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the model llg (default: %(default)s)")


def _switching(options: argparse.Namespace, figures: Any) -> None:
    import torch

    from hwsim.studies import physics, tables

    given = {name for name in get_args(physics.Quantity) if getattr(options, name.replace("-", "_")) is not None}
    if options.over in given:
        raise UsageError(f"--{options.over} is swept: leave it away")
    if {"overdrive", "voltage-V"} <= given | {options.over}:
        raise UsageError("sweep or give --overdrive or --voltage-V, not both")
    if options.over != "pulse-width-s" and options.pulse_width_s is None:
        raise UsageError(f"a sweep over {options.over} needs --pulse-width-s")
    if options.points < 2:
        raise UsageError(f"a sweep has 2 points or more, got {options.points}")
    device = _device(options)
    models = options.models or [device.model.name]
    if unknown := set(models) - {*physics.LAWS, physics.SIMULATION}:
        raise UsageError(f"there is no model {unknown.pop()!r}; see `hwsim sweep switching --help`")
    table = physics.switching(
        device,
        options.over,
        torch.linspace(options.start, options.stop, options.points, dtype=torch.float64).tolist(),
        models=models,
        antiparallel=options.state == "AP",
        overdrive=3.0 if options.overdrive is None else options.overdrive,
        voltage_V=options.voltage_V,
        pulse_width_s=options.pulse_width_s,
        trajectories=options.trajectories,
        seed=options.seed,
    )
    path = options.out / f"switching-{options.over}.csv"
    tables.write_csv(path, table)
    picture = path.with_suffix(f".{options.format}")
    figures.switching(table, picture, title=_title(options, device, given))
    _say(path, picture)


def _device(options: argparse.Namespace) -> Any:
    from hwsim.devices import junctions

    device = getattr(junctions, options.preset.replace("-", "_"))()
    return device if options.temperature_K is None else replace(device, temperature_K=options.temperature_K)


def _title(options: argparse.Namespace, device: Any, given: set[str]) -> str:
    """What is not swept."""
    parts = [f"{options.preset}, out of {options.state}"]
    if options.over != "temperature-K":
        parts.append(f"Δ = {float(device.thermal_stability):.3g}")
    if "voltage-V" in given:
        parts.append(f"{options.voltage_V:g} V")
    elif options.over not in ("overdrive", "voltage-V"):
        parts.append(f"I/Ic0 = {3 if options.overdrive is None else options.overdrive:g}")
    if options.over != "pulse-width-s":
        parts.append(f"{1e9 * options.pulse_width_s:g} ns")
    return ", ".join(parts)


def _say(*paths: Path) -> None:
    for path in paths:
        print(path)


# --- schemes --------------------------------------------------------------------------------------------------------


def _add_schemes(studies: Any) -> None:
    from hwsim.write_schemes import SchemeName

    names = list(get_args(SchemeName))
    parser = _study(
        studies, "schemes", _schemes, "Probability of a transition against the size of a step, by write scheme."
    )
    parser.add_argument(
        "--schemes",
        type=_listed(str),
        default=[name for name in names if name != "read-first"],  # has the pulses of pre-distorted
        help=f"of {', '.join(names)}, with commas between (default: all but the last, whose pulses are pre-distorted)",
    )
    parser.add_argument("--m", type=float, default=3.0, help="of the wanted tanh(m v) (default: %(default)s)")
    parser.add_argument("--overdrive", type=float, default=3.0, help="of the pulses (default: %(default)s)")
    parser.add_argument(
        "--points", type=int, default=41, help="even in v, and as many in its logarithm (default: %(default)s)"
    )
    _add_junction(parser)
    parser.add_argument("--spread", type=float, default=0.0, help="of the constants, from junction to junction")


def _schemes(options: argparse.Namespace, figures: Any) -> None:
    from hwsim.devices import junctions
    from hwsim.studies import physics, tables
    from hwsim.write_schemes import SchemeName

    if unknown := set(options.schemes) - set(get_args(SchemeName)):
        raise UsageError(f"there is no scheme {unknown.pop()!r}; see `hwsim sweep schemes --help`")
    if options.points < 2:
        raise UsageError(f"a sweep has 2 points or more, got {options.points}")
    table = physics.schemes(
        getattr(junctions, options.preset.replace("-", "_"))(),
        options.schemes,
        antiparallel=options.state == "AP",
        m=options.m,
        overdrive=options.overdrive,
        spread=options.spread,
        temperature_K=options.temperature_K,
        points=options.points,
    )
    path = options.out / "schemes.csv"
    tables.write_csv(path, table)
    picture = path.with_suffix(f".{options.format}")
    flaws = [f"spread {options.spread:g}"] if options.spread else []
    if options.temperature_K is not None:
        flaws.append(f"pulses for 300 K, junctions at {options.temperature_K:g} K")
    title = ", ".join([f"{options.preset}, out of {options.state}, I/Ic0 = {options.overdrive:g}", *flaws])
    figures.schemes(table, picture, title=title)
    _say(path, picture)


# --- accuracy -------------------------------------------------------------------------------------------------------


def _add_accuracy(studies: Any) -> None:
    parser = _study(
        studies, "accuracy", _accuracy, "Test accuracy and write energy of a recipe, one training for each value."
    )
    parser.usage = (
        "hwsim sweep accuracy RECIPE --over OPTION --values V,V,... [--seeds N,N,...] --out FOLDER [-- OPTIONS]"
    )
    parser.epilog = (
        "Words after `--` are options of the recipe, for all trainings. What has been trained in FOLDER is not trained"
        " again: the same command goes on with a sweep that was broken off, and more values can be added."
    )
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="such as recipes/mtj.py")
    parser.add_argument("--over", metavar="OPTION", required=True, help="of the recipe, such as spread")
    parser.add_argument("--values", type=_listed(str), required=True, help="of that option, with commas between")
    parser.add_argument(
        "--seeds", type=_listed(int), default=[0], help="of the recipe, with commas between (default: 0)"
    )


def _accuracy(options: argparse.Namespace, figures: Any) -> None:
    from hwsim.studies import accuracy

    failed = accuracy.sweep(
        options.recipe, options.over, options.values, seeds=options.seeds, words=options.rest, out=options.out
    )
    path, table = options.out / accuracy.RESULTS, accuracy.results(options.out)
    if table["test_accuracy"]:
        picture = options.out / f"accuracy-{next(iter(table))}.{options.format}"
        epochs = " or ".join(sorted({str(number) for number in table["epochs"]}))
        figures.accuracy(table, picture, title=f"{options.recipe.stem}, epochs: {epochs}")
        _say(path, picture)
    if failed:
        raise RunError(
            f"these runs failed: {', '.join(failed)}; {path} has the others, and the same command tries these again"
        )
