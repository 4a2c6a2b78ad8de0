"""The command line. What is slow to import is imported by the command that needs it: `hwsim --help` answers at once.

The parser, the messages and the warnings are those of `bnn`'s command line.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from bnn.errors import BnnError, UsageError

_HELP = """usage: hwsim COMMAND ...

Simulated magnetic tunnel junctions as the weights of a network.

commands:
  hwsim switching [options]        probability that a pulse switches a junction
  hwsim switching --help           its options
  hwsim sweep switching [options]  the same over pulse width, overdrive, voltage or temperature: CSV and figure
  hwsim sweep schemes [options]    what each write scheme makes of a step
  hwsim sweep accuracy RECIPE ...  trainings over an option of a recipe, such as spread, stuck or temperature-K
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after `hwsim`; by default the process's own.

    Returns:
        The exit status: 0 for success, 2 for a command line that cannot be understood, 1 for other errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words in (["-h"], ["--help"]):
        print(_HELP, end="")
        return 0 if words else 2
    commands: dict[str, Callable[[list[str]], None]] = {"switching": _switching, "sweep": _sweep}
    try:
        if words[0] not in commands:
            raise UsageError(f"there is no command {words[0]!r}; see `hwsim --help`")
        with _one_line_warnings():
            commands[words[0]](words[1:])
    except BnnError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is as it was", 130)
    return 0


def _switching(words: list[str]) -> None:
    from hwsim.cli.switching import switching

    switching(words)


def _sweep(words: list[str]) -> None:
    from hwsim.cli.sweep import sweep

    sweep(words)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are a `UsageError`."""

    def error(self, message: str) -> NoReturn:  # noqa: D102
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _fail(message: str, code: int) -> int:
    print("hwsim:", " ".join(message.split()), file=sys.stderr)
    return code


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print("hwsim: warning:", " ".join(str(message).split()), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
