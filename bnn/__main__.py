"""The command `bnn`, and `python -m bnn`: signals are in good hands before anything slow is imported."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


def main() -> int:
    """Runs `bnn` with the process's arguments and gives its exit status."""

    def program() -> int:
        from bnn.cli import main

        return main()

    return run("bnn", program)


def run(name: str, program: Callable[[], int]) -> int:
    """Runs a command line so that SIGINT, SIGTERM and SIGHUP end it with one line and the status 128 + n at any moment.

    A training has handlers of its own meanwhile. When the program has ended, signals no longer matter.

    Args:
        name: of the program; the line begins with it.
        program: imports and runs it.

    Returns:
        The exit status.
    """
    end = partial(_end, name)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, end)
    sys.unraisablehook = partial(_unraisable, name, sys.unraisablehook)
    try:
        return program()
    except KeyboardInterrupt as interrupt:
        return _say(name, *interrupt.args)
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _end(name: str, number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        # There, an exception could be lost or become another; and imports leave nothing half done.
        _leave(name, number)
    raise KeyboardInterrupt(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(name: str, usual: Callable[[Any], Any], what: Any) -> None:
    """An interrupt that a destructor or a callback has caught ends the process all the same."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        _leave(name, *what.exc_value.args)
    usual(what)


def _leave(name: str, number: int = signal.SIGINT) -> None:
    for number_of_any in _SIGNALS:
        signal.signal(number_of_any, signal.SIG_IGN)
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(_say(name, number))


def _say(name: str, number: int = signal.SIGINT) -> int:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"{name}: interrupted\n".encode())
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
