"""Trainings of one recipe where some of its options are swept, each in a process and a folder of its own.

A folder that holds the summary of its run is left alone, so the same command goes on where it was broken off, and
further values and seeds can be added later.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from bnn.errors import RecipeError, RunError, UsageError
from bnn.training.directory import CHECKPOINTS, CONFIGURATION, SUMMARY, read_json, write_json, writing
from bnn.training.recipe import Recipe, load_recipe, locate_recipe, parse_arguments, recipe_parser, values_to_json
from hwsim.studies.tables import Table, write_csv

SWEEP = "sweep.json"
"""In a sweep's folder: what all of its runs share."""
RESULTS = "accuracy.csv"

_SEPARATOR = ", "

_RESULTS_OF_RUN = ("test_accuracy", "validation_accuracy", "epochs")
_RESULTS_OF_JUNCTIONS = ("pulses", "switches", "write_energy_J", "read_energy_J", "fraction_in_0_s")


def train(arguments: Sequence[str]) -> int:
    """Runs `bnn train` in a process of its own, so that what ends it ends nothing else; gives its exit status."""
    with subprocess.Popen([sys.executable, "-m", "bnn", "train", *arguments]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It got the signal as well, and keeps its state.
            process.wait()
            raise


def sweep(
    recipe_path: Path,
    over: Mapping[str, Sequence[str]],
    *,
    seeds: Sequence[int] = (0,),
    recipe_arguments: Sequence[str] = (),
    out: Path,
    train: Callable[[Sequence[str]], int] = train,
) -> list[str]:
    """Trains a recipe with each value of one of its options or each combination of several, and with each seed.

    Args:
        recipe_path: a recipe with an option `--seed`: the name of one of the package, or a file.
        over: the options, without dashes in front, and their values, as on a command line.
        seeds: of the recipe.
        recipe_arguments: further options of all runs, as on a command line.
        out: folder of the runs and of `accuracy.csv`.
        train: gets the arguments after `bnn train`, and gives the exit status.

    Returns:
        What is to be said of runs that failed: their folders' names and exit statuses. `accuracy.csv` has the others,
        if there are any.

    Raises:
        UsageError: an option or a value does not fit the recipe; nothing has been trained.
        RunError: the folder is of another sweep; nothing has been trained.
    """
    over = {option.lstrip("-"): values for option, values in over.items()}
    recipe = load_recipe(locate_recipe(str(recipe_path)))
    runs = {}
    for values, seed in product(product(*over.values()), seeds):
        swept = [f"--{option}={value}" for option, value in zip(over, values, strict=True)]
        options = [*swept, f"--seed={seed}", *recipe_arguments]
        parsed = _parsed(recipe, list(over), options)
        runs[_folder_name([parsed[_parameter(option)] for option in over], seed)] = options
    _claim(out, {"recipe": str(recipe.path), "over": _SEPARATOR.join(over), "options": list(recipe_arguments)})
    failed = []
    for name, options in runs.items():
        folder = out / name
        if not (folder / SUMMARY).exists():
            if any((folder / CHECKPOINTS).glob("*.json")):
                status = train(["--resume", str(folder), "--recipe", str(recipe.path)])
            else:
                shutil.rmtree(folder, ignore_errors=True)
                status = train([str(recipe.path), *options, "--out", str(folder)])
            if status or not (folder / SUMMARY).exists():
                failed.append(f"{name} (exit status {status})")
        if any(out.glob(f"*/{SUMMARY}")):
            write_csv(out / RESULTS, results(out))
    if not any(out.glob(f"*/{CONFIGURATION}")):
        (out / SWEEP).unlink()  # the folder is free for another sweep
    return failed


def results(out: Path) -> Table:
    """What the complete runs of a sweep's folder came to, in the order of values and seeds.

    Returns:
        The values by the options' names; `seed`; `test_accuracy`, and `validation_accuracy` after the last epoch; and
        those of the junctions, see `DeviceMeter`. What a run does not have is None.

    Raises:
        RunError: a file is missing or damaged.
    """
    over = read_json(out / SWEEP)["over"].split(_SEPARATOR)
    rows = []
    for path in out.glob(f"*/{SUMMARY}"):
        summary, arguments = read_json(path), read_json(path.with_name(CONFIGURATION))["arguments"]
        junctions: Mapping[str, Any] = summary.get("junctions") or {}
        rows.append(
            (
                *(arguments[_parameter(option)] for option in over),
                arguments["seed"],
                *(summary.get(name) for name in _RESULTS_OF_RUN),
                *(junctions.get(name) for name in _RESULTS_OF_JUNCTIONS),
            )
        )
    # Numbers by size, and texts after them.
    rows.sort(key=lambda row: [_place(value) for value in row[: len(over) + 1]])
    names = (*over, "seed", *_RESULTS_OF_RUN, *_RESULTS_OF_JUNCTIONS)
    return {name: [row[column] for row in rows] for column, name in enumerate(names)}


def swept(table: Table) -> list[str]:
    """The options of a table of `results`: the columns in front of the seed."""
    names = list(table)
    return names[: names.index("seed")]


def best(table: Table) -> dict[str, Any] | None:
    """Values with the highest mean validation accuracy over the seeds, which is what options are chosen by.

    Args:
        table: as of `results`.

    Returns:
        The values by the options' names, and their mean `validation_accuracy`; None where no run has one.
    """
    options = swept(table)
    by_values: dict[tuple[Any, ...], list[float]] = {}
    for values, correct in zip(
        zip(*(table[option] for option in options), strict=True), table["validation_accuracy"], strict=True
    ):
        if correct is not None:
            by_values.setdefault(values, []).append(correct)
    if not by_values:
        return None
    means = {values: sum(each) / len(each) for values, each in by_values.items()}
    chosen = max(means, key=lambda values: means[values])
    return {**dict(zip(options, chosen, strict=True)), "validation_accuracy": means[chosen]}


def _place(value: Any) -> tuple[bool, float, str]:
    return isinstance(value, str), value if is_number(value) else 0, str(value)


def is_number(value: Any) -> bool:
    """Whether a value of an option has a place on an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parsed(recipe: Recipe, over: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """A recipe's arguments, as `bnn train` would understand them."""
    parser = recipe_parser(recipe, prog=f"bnn train {recipe.path.name}")
    # An option of every run; the others would collide with what a sweep does.
    parser.add_argument("--device", type=str, default="auto")
    for option in (*over, "seed"):
        if sum(argument.partition("=")[0] == f"--{option}" for argument in arguments) > 1:
            raise UsageError(f"--{option} is swept: leave it away after `--`")
    values = parse_arguments(parser, arguments)
    values.pop("device")
    for option in over:
        if _parameter(option) not in values:
            raise UsageError(f"a sweep is over an option of the recipe, and {recipe.path.name} has no --{option}")
    try:
        return values_to_json(values)
    except RecipeError as error:
        raise UsageError(str(error)) from None


def _parameter(option: str) -> str:
    return option.replace("-", "_")


def _folder_name(values: Sequence[Any], seed: int) -> str:
    return "-".join(re.sub(r"[^\w.+-]", "_", str(value)) for value in values) + f"-seed-{seed}"


def _claim(out: Path, sweep: dict[str, Any]) -> None:
    """Notes what is swept, or makes sure that it is what was swept before."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    if not (out / SWEEP).exists():
        write_json(out / SWEEP, sweep)
    elif (before := read_json(out / SWEEP)) != sweep:
        raise RunError(
            f"{out} has a sweep of {before.get('recipe')} over {before.get('over')} with the options"
            f" {' '.join(before.get('options', [])) or 'by default'}: name another folder with --out"
        )
