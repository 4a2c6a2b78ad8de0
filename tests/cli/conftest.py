"""The command line, as a user meets it: in this process where that is enough, in one of its own where it is not."""

import shutil
from pathlib import Path

import pytest

from bnn.cli import main
from tests.cli.command_line import DIGITS, QUICK, ROOT


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def bnn(in_an_empty_folder, capsys):
    """Runs a command in this process; gives exit status, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as exit:  # of --help
            code = exit.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "run"
    assert main(("train", DIGITS, *QUICK, "--out", str(directory))) == 0
    return directory


@pytest.fixture
def finished(in_an_empty_folder, trained, capsys) -> Path:
    """A complete run to change at will."""
    capsys.readouterr()
    return Path(shutil.copytree(trained, "run"))


@pytest.fixture(autouse=True, scope="module")
def quick_trainings(steps_beside_float_are_not_measured):
    """Trainings are not what is tested here."""
