"""`hwsim sweep accuracy`: trainings of a recipe, one for each combination of values of its options, and each seed."""

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

from bnn.errors import RunError, UsageError
from hwsim.cli.sweep_options import add_study, listed
from hwsim.studies.accuracy import RESULTS, best, results, swept
from hwsim.studies.accuracy import sweep as train_each


def add_parser(studies: Any) -> None:
    """Adds the study to those of `hwsim sweep`."""
    parser = add_study(
        studies, "accuracy", accuracy, "Test accuracy and write energy of a recipe, one training for each value."
    )
    parser.usage = (
        "hwsim sweep accuracy RECIPE --over OPTION --values V,V,... [--over OPTION --values V,V,... ...]"
        " [--seeds N,N,...] --out FOLDER [-- OPTIONS]"
    )
    parser.epilog = (
        "Every combination is trained where there is more than one --over, each with --values behind it, and the best"
        " by validation accuracy is named. Arguments after `--` are options of the recipe, for all trainings. What has"
        " been trained in FOLDER is not trained again: the same command goes on with a sweep that was broken off, and"
        " more values can be added."
    )
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a name, such as mtj, or a file")
    parser.add_argument(
        "--over", metavar="OPTION", action="append", required=True, help="of the recipe, such as spread or gate"
    )
    parser.add_argument(
        "--values", type=listed(str), action="append", required=True, help="of that option, with commas between"
    )
    parser.add_argument(
        "--seeds", type=listed(int), default=[0], help="of the recipe, with commas between (default: 0)"
    )


def accuracy(options: argparse.Namespace, figures: ModuleType) -> None:
    """Trains, and writes the table and the figure."""
    if not all(options.over):
        raise UsageError("name an option of the recipe, as in --over spread")
    if len(options.over) != len(options.values) or len(set(options.over)) < len(options.over):
        raise UsageError("give each option once, as in --over gain --values 10,30 --over gate --values 0,0.01")
    failed = train_each(
        options.recipe,
        dict(zip(options.over, options.values, strict=True)),
        seeds=options.seeds,
        recipe_arguments=options.recipe_arguments,
        out=options.out,
    )
    path = options.out / RESULTS
    table = results(options.out) if path.exists() else {}
    if table.get("test_accuracy"):
        picture = options.out / f"accuracy-{'-'.join(swept(table))}.{options.format}"
        epochs = " or ".join(sorted({str(number) for number in table["epochs"]}))
        figures.accuracy(table, picture, title=f"{options.recipe.stem}, epochs: {epochs}")
        print(path, picture, sep="\n")
        if len(options.over) > 1 and (found := best(table)):
            *values, (_, correct) = found.items()
            words = ", ".join(f"{name} {value}" for name, value in values)
            print(f"best by validation accuracy: {words}: {100 * correct:.2f} %")
    if failed:
        others = f"{path} has the others, and " if path.exists() else ""
        raise RunError(f"these runs failed: {', '.join(failed)}; {others}the same command tries these again")
