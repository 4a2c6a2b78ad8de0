"""The command line in this process, and what it may answer."""

import io
import re
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from benchmarks.torture.trials import one_line, require
from bnn.cli import main

_LINES = re.compile(r"((bnn|usage): [^\n]*\n)*")


class Answer(NamedTuple):
    """What a command answers."""

    status: int
    out: str
    errors: str


def answer(words: Sequence[str]) -> Answer:
    """Runs a command. Breaks the trial where it answers with anything but warnings and one line of error."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), warnings.catch_warnings():
        try:
            status = main(list(words))
        except SystemExit as exit:  # of --help
            status = exit.code if isinstance(exit.code, int) else 1
    found = Answer(status, out.getvalue(), errors.getvalue())
    said = one_line(found.errors)
    shown = f"`bnn {' '.join(words)}`"
    require(status in (0, 1, 2), f"{shown} leaves with {status}: {said}")
    require(_LINES.fullmatch(found.errors), f"{shown} says more than a line: {said}")
    if status:
        require(last_line(found).startswith("bnn: "), f"{shown} leaves with {status} and no line: {said}")
        lines = [line for line in found.errors.splitlines() if not line.startswith("bnn: warning: ")]
        require(len(lines) == 1, f"{shown} says {len(lines)} lines: {said}")
    return found


def last_line(found: Answer) -> str:
    """The last line of the errors."""
    return (found.errors.splitlines() or [""])[-1]
