"""The errors that a user can cause and fix. Each message is one line: what is wrong, and how to go on."""

import difflib
from collections.abc import Iterable


class BnnError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1


class UsageError(BnnError):
    """A command line that cannot be understood."""

    exit_code = 2


class DataError(BnnError):
    """A data file or folder is missing, damaged or does not fit; the message names its path."""


class CheckpointError(BnnError):
    """A checkpoint is missing, damaged or belongs to another run, or cannot be written."""


class RecipeError(BnnError):
    """A recipe file or its arguments cannot be used."""


class RunError(BnnError):
    """A run's directory cannot be used."""


class AlreadyComplete(RunError):
    """There is nothing left to do, which is a success for whatever starts a run again and again."""

    exit_code = 0


class DistributedError(BnnError):
    """Processes that train together are not alike, or one of them is missing."""


class NonFiniteError(BnnError, ValueError):
    """A NaN reached a place where it would silently become an ordinary value, such as a sign bit."""


class TrainingStopped(BnnError):
    """Training ended early on its own account; the last good state has been kept."""


class Interrupted(BnnError):
    """A signal ended the training; its state has been kept."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def first_line(error: BaseException) -> str:
    """The first line of an error's text: torch puts the frames of its C++ code below it."""
    return (str(error).strip().splitlines() or [""])[0]


def near_match(name: str, choices: Iterable[str]) -> str:
    """What an error adds where a name is nearly one of the choices, as `, but there is 'edge'`; else nothing."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    return f", but there is {near[0]!r}" if near else ""


def near_options(message: str, options: Iterable[str]) -> str:
    """The same for the options that a parser's message does not recognize."""
    if not message.startswith("unrecognized arguments"):
        return ""
    words = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
    return next((hint for hint in (near_match(word, options) for word in words) if hint), "")
