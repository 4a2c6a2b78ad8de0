"""The command line. What is slow to import is imported by the command that needs it: `hwsim --help` answers at once."""

from collections.abc import Sequence

from bnn.cli.program import run_program

_HELP = """usage: hwsim COMMAND ...

Simulated magnetic tunnel junctions as the weights of a network.

commands:
  hwsim switching [options]        probability that a pulse switches a junction
  hwsim switching --help           its options
  hwsim fit COUNTS.csv -o DEVICE   a junction's constants from counts of switching: device file and figure
  hwsim export -o MODULE.va        a junction as a Verilog-A module for simulators of circuits
  hwsim sweep switching [options]  a probability over pulse width, overdrive, voltage or temperature: CSV and figure
  hwsim sweep schemes [options]    what each write scheme makes of a step
  hwsim sweep energy [options]     a training step in CMOS beside one on tiles, under each price table
  hwsim sweep accuracy RECIPE ...  trainings over an option of a recipe, such as spread, stuck or temperature-K
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: those behind `hwsim`; by default the process's own.

    Returns:
        The exit status, see `bnn.cli.program.run_program`.
    """
    return run_program(
        "hwsim",
        {"switching": _switching, "fit": _fit, "export": _export, "sweep": _sweep},
        arguments,
        help_text=_HELP,
        on_interrupt="interrupted; what was finished is as it was",
    )


def _switching(arguments: list[str]) -> None:
    from hwsim.cli.switching import switching

    switching(arguments)


def _fit(arguments: list[str]) -> None:
    from hwsim.cli.fit import fit

    fit(arguments)


def _export(arguments: list[str]) -> None:
    from hwsim.cli.export import export

    export(arguments)


def _sweep(arguments: list[str]) -> None:
    from hwsim.cli.sweep import sweep

    sweep(arguments)
