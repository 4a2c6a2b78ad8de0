"""`bnn sweep`: a recipe with several values of its options, each training as `bnn train` does it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.output import outlived_output
from bnn.cli.program import asks_for_help
from bnn.errors import BnnError, RunError, UsageError

if TYPE_CHECKING:
    from bnn.training.recipe import Recipe

CSV, PAGE = "sweep.csv", "report.html"
_HELP = """usage: bnn sweep RECIPE [options of the recipe] [--out DIR] [--device DEVICE]

Trains a recipe with every combination of its options' values, one run after the other:

  bnn sweep digits --seed 0,1,2 --width 64,128

Commas separate values. Runs that are complete are not trained again, and one that was interrupted goes on: the same
command goes on with a sweep that was broken off, and values can be added. Means, sample deviations and differences
paired by seed are printed, and written to sweep.csv and report.html.

options:
  --out DIR        folder of the runs (default: runs/sweep-RECIPE)
  --device DEVICE  as of `bnn train`
"""


def sweep(arguments: list[str]) -> None:
    """Runs the command.

    Raises:
        UsageError: an option or a value does not fit the recipe; nothing has been trained.
        RunError: a folder holds another run, and nothing has been trained; or runs failed.
    """
    if asks_for_help(arguments):
        print(_HELP, end="")
        return
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("name a recipe first, as in `bnn sweep digits --seed 0,1,2`; see `bnn sweep --help`")
    with outlived_output():
        _sweep(arguments)


def _sweep(arguments: list[str]) -> None:
    recipe_name, options = arguments[0], _options(arguments[1:])
    out = Path(_one(options.pop("--out", [f"runs/sweep-{Path(recipe_name).stem}"]), "--out"))
    device = options.pop("--device", None)
    swept = {name: values for name, values in options.items() if len(values) > 1}
    runs = {}
    for values in product(*options.values()):
        chosen = dict(zip(options, values, strict=True))
        runs[out / _folder_name({name: chosen[name] for name in swept})] = _words(chosen)
    _check(recipe_name, runs)
    failed = _train_each(recipe_name, runs, [] if device is None else ["--device", _one(device, "--device")])
    _sum_up(out, recipe_name, list(runs), [name.lstrip("-").replace("-", "_") for name in swept])
    if failed:
        raise RunError(f"these runs failed: {', '.join(failed)}; the same command tries them again")


def _options(words: Sequence[str]) -> dict[str, list[str | None]]:
    """The values of each option; None of one that has none, such as --download."""
    options: dict[str, list[str | None]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, text = word.partition("=")
            if name in options:
                raise UsageError(f"{name} is there twice: give its values with commas between them")
            options[name] = list(_split(text)) if equals else [None]
        elif name and options[name] == [None]:
            options[name] = list(_split(word))
        else:
            raise UsageError(f"{word!r} belongs to no option; see `bnn sweep --help`")
    return options


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    return re.split(r",(?![^\[({]*[\])}])", text)


def _one(values: Sequence[str | None], name: str) -> str:
    if len(values) != 1 or not values[0]:
        raise UsageError(f"{name} takes one value")
    return values[0]


def _words(chosen: Mapping[str, str | None]) -> list[str]:
    return [name if value is None else f"{name}={value}" for name, value in chosen.items()]


def _folder_name(chosen: Mapping[str, str | None]) -> str:
    parts = [f"{name.lstrip('-')}-{value}" for name, value in chosen.items()]
    return re.sub(r"[^\w.+-]", "_", "-".join(parts)) or "run"


def _check(recipe_name: str, runs: Mapping[Path, Sequence[str]]) -> None:
    """Refuses values that the recipe does not take, and folders with other runs."""
    from bnn.training.directory import CONFIGURATION, read_json
    from bnn.training.recipe import load_recipe, locate_recipe, parse_arguments, recipe_parser, values_to_json

    recipe: Recipe = load_recipe(locate_recipe(recipe_name))
    parser = recipe_parser(recipe, prog=f"bnn train {recipe_name}")
    for folder, words in runs.items():
        values = values_to_json(parse_arguments(parser, words))
        if (folder / CONFIGURATION).exists() and read_json(folder / CONFIGURATION).get("arguments") != values:
            raise RunError(f"{folder} holds a run of other options: name another folder with --out")


def _train_each(recipe_name: str, runs: Mapping[Path, Sequence[str]], common: Sequence[str]) -> list[str]:
    """Trains what is not complete; gives the folders of what failed, with exit statuses."""
    from bnn.training.directory import CONFIGURATION, SUMMARY
    from bnn.training.recipe import locate_recipe

    recipe, failed = str(locate_recipe(recipe_name)), []
    for number, (folder, words) in enumerate(runs.items(), start=1):
        print(f"{number}/{len(runs)}: {folder}", flush=True)
        if (folder / SUMMARY).exists():
            continue
        if (folder / CONFIGURATION).exists():
            status = _train(["--resume", str(folder), "--recipe", recipe])
        else:
            status = _train([recipe_name, *words, *common, "--out", str(folder)])
        if status > 128:
            raise KeyboardInterrupt(status - 128)
        if status:
            failed.append(f"{folder} (exit status {status})")
    return failed


def _train(arguments: Sequence[str]) -> int:
    """`bnn train` in a process of its own, whose peak of memory is that of one run; gives its exit status."""
    with subprocess.Popen([sys.executable, "-m", "bnn", "train", *arguments]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as interrupt:
            # It saves its state; of a Ctrl-C it knows already, and a second signal would end it at once.
            if interrupt.args == (signal.SIGTERM,):
                process.terminate()
            process.wait()
            raise


def _sum_up(out: Path, recipe_name: str, folders: Sequence[Path], swept: Sequence[str]) -> None:
    from rich.console import Console

    from bnn.reports.sweep import print_sweep, read_swept, write_csv
    from bnn.training.directory import SUMMARY
    from bnn.training.recipe import locate_recipe

    complete = [folder for folder in folders if (folder / SUMMARY).exists()]
    if not complete:
        return
    runs: list[Any] = [read_swept(folder) for folder in complete]
    print_sweep(Console(), runs)
    write_csv(out / CSV, runs, swept)
    print(f"table: {out / CSV}")
    try:
        from bnn.reports.page import write_page

        write_page(complete, out / PAGE, recipe=locate_recipe(recipe_name))
        print(f"page: {out / PAGE}")
    except (ModuleNotFoundError, BnnError) as error:
        print(f"no page: {error}")
