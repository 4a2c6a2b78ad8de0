"""`hwsim sweep accuracy`: trainings of a recipe, one for each value of one of its options and each seed."""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from bnn.errors import RunError, UsageError
from hwsim.cli.sweep_options import add_study, listed
from hwsim.studies.accuracy import RESULTS, results
from hwsim.studies.accuracy import sweep as train_each


def add_parser(studies: Any) -> None:
    """Adds the study to those of `hwsim sweep`."""
    parser = add_study(
        studies, "accuracy", accuracy, "Test accuracy and write energy of a recipe, one training for each value."
    )
    parser.usage = (
        "hwsim sweep accuracy RECIPE --over OPTION --values V,V,... [--seeds N,N,...] --out FOLDER [-- OPTIONS]"
    )
    parser.epilog = (
        "Arguments after `--` are options of the recipe, for all trainings. What has been trained in FOLDER is not"
        " trained again: the same command goes on with a sweep that was broken off, and more values can be added."
    )
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a name, such as mtj, or a file")
    parser.add_argument("--over", metavar="OPTION", required=True, help="of the recipe, such as spread")
    parser.add_argument("--values", type=listed(str), required=True, help="of that option, with commas between")
    parser.add_argument(
        "--seeds", type=listed(int), default=[0], help="of the recipe, with commas between (default: 0)"
    )


def accuracy(options: argparse.Namespace, figures: ModuleType) -> None:
    """Trains, and writes the table and the figure."""
    if not options.over:
        raise UsageError("name an option of the recipe, as in --over spread")
    failed = train_each(
        options.recipe,
        options.over,
        options.values,
        seeds=options.seeds,
        recipe_arguments=options.recipe_arguments,
        out=options.out,
    )
    path = options.out / RESULTS
    table = results(options.out) if path.exists() else {}
    if table.get("test_accuracy"):
        picture = options.out / f"accuracy-{next(iter(table))}.{options.format}"
        epochs = " or ".join(sorted({str(number) for number in table["epochs"]}))
        figures.accuracy(table, picture, title=f"{options.recipe.stem}, epochs: {epochs}")
        print(path, picture, sep="\n")
    if failed:
        others = f"{path} has the others, and " if path.exists() else ""
        raise RunError(f"these runs failed: {', '.join(failed)}; {others}the same command tries these again")
