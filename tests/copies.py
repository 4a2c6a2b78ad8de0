"""Programs in a copy of the process that tests run in: it has loaded torch, which takes a new one seconds."""

import os
import sys
import tempfile
import traceback
import warnings


def run_in_a_copy(program: str, *arguments: str) -> tuple[int, str]:
    """Executes a program that ends, fails or is killed by itself.

    Args:
        program: source; it finds the arguments in `sys.argv[1:]`.
        arguments: of it.

    Returns:
        Its exit status, below 0 the signal that ended it; and what it printed, to stdout and stderr.
    """
    with tempfile.TemporaryFile() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which none of the programs has
        child = os.fork()
        if child == 0:
            os._exit(_execute(program, arguments, output.fileno()))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return status, output.read().decode()


def _execute(program: str, arguments: tuple[str, ...], output: int) -> int:
    """Its exit status."""
    with open(output, "w", closefd=False) as sys.stdout:
        sys.stderr, sys.argv = sys.stdout, ["-c", *arguments]
        try:
            exec(program, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            return 1
    return 0
