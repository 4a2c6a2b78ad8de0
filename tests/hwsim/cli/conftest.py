"""What the tests of the commands share."""

import pytest

from hwsim.cli import main


@pytest.fixture
def hwsim(capsys):
    """Runs a command in this process; gives exit status, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:  # of --help
            code = exit.code
        return code, *capsys.readouterr()

    return run
