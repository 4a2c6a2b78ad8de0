"""`hwsim sweep`: tables and figures over one quantity, written to a folder. Each study has a file of its own."""

from types import ModuleType

from bnn.cli.arguments import ArgumentParser
from bnn.errors import RunError, UsageError
from hwsim.cli import sweep_accuracy, sweep_energy, sweep_schemes, sweep_switching


def sweep(arguments: list[str]) -> None:
    """Sweeps one quantity, by the arguments after `hwsim sweep`.

    Raises:
        UsageError: arguments that cannot be understood, or a quantity that is not physical.
        RunError: files cannot be written, or runs failed.
    """
    parser = ArgumentParser(prog="hwsim sweep", description="Tables and figures over one quantity.")
    studies = parser.add_subparsers(metavar="STUDY", required=True)
    for study in (sweep_switching, sweep_schemes, sweep_energy, sweep_accuracy):
        study.add_parser(studies)
    # Arguments after `--` are options of a recipe.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    options.recipe_arguments = arguments[end + 1 :]
    if options.recipe_arguments and options.study is not sweep_accuracy.accuracy:
        raise UsageError("options after `--` are those of a recipe, for `hwsim sweep accuracy`")
    try:
        options.study(options, _figures())
    except ValueError as error:
        raise UsageError(str(error)) from None


def _figures() -> ModuleType:
    try:
        from hwsim.studies import figures
    except ModuleNotFoundError as error:
        raise RunError(f"a figure cannot be drawn ({error}): pip install 'bnn-edge[report]'") from None
    return figures
