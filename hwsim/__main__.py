"""The command `hwsim`, and `python -m hwsim`."""

import sys

from bnn.__main__ import run


def main() -> int:
    """Runs `hwsim` with the process's arguments and gives its exit status."""

    def program() -> int:
        from hwsim.cli import main

        return main()

    return run("hwsim", program)


if __name__ == "__main__":
    sys.exit(main())
