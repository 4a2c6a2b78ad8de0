"""Runs a command of a command line; prints errors and warnings as one line."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bnn
from bnn.cli.output import drop
from bnn.errors import BnnError, UsageError, near_match

Command = Callable[[list[str]], None]
"""Takes the arguments behind its name."""


def run_program(
    name: str,
    commands: Mapping[str, Command],
    arguments: Sequence[str] | None,
    *,
    help_text: str,
    on_interrupt: str,
    on_memory: str = "out of memory",
) -> int:
    """Runs one of a program's commands.

    Args:
        name: of the program; errors and warnings begin with it.
        commands: by their names.
        arguments: those behind the program's name; None: the process's own.
        help_text: what `--help` prints; `--version` prints the package's version.
        on_interrupt: what to say where the user has interrupted the command.
        on_memory: what to say where the memory was not enough.

    Returns:
        The exit status: 0 for success, 2 for a command line that cannot be understood, 128 + n after signal n, 1 for
        other errors. An output that nobody reads any more is a SIGPIPE.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments == ["--version"]:
            print(f"{name} {bnn.__version__}")
        elif not arguments or asks_for_help(arguments):
            print(help_text, end="")
        elif arguments[0] not in commands:
            near = near_match(arguments[0], commands)
            raise UsageError(f"there is no command {arguments[0]!r}{near}; see `{name} --help`")
        else:
            with _one_line_warnings(name):
                commands[arguments[0]](arguments[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except BnnError as error:
        return _fail(name, str(error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        # Python's own has no number.
        number, *_ = (*interrupt.args, signal.SIGINT)
        return _fail(name, on_interrupt, 128 + number)
    except MemoryError:
        return _fail(name, on_memory, 1)
    except BrokenPipeError:
        drop(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        drop(sys.stdout)
        return _fail(name, f"{error.filename or 'the output'}: {error.strerror or error}", 1)
    return 0 if arguments else 2


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether help is all that is asked for."""
    return list(arguments) in (["-h"], ["--help"])


def _fail(name: str, message: str, code: int) -> int:
    try:
        print(f"{name}:", " ".join(message.split()), file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)
    return code


@contextmanager
def _one_line_warnings(name: str) -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{name}: warning:", " ".join(str(message).split()), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
