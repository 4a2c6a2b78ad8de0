"""A small run that has been trained."""

import shutil
from pathlib import Path

import pytest

from bnn.cli import main
from bnn.errors import RunError
from bnn.reports import run_record
from tests.reports.pages import DIGITS, report


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "small"
    words = ("--epochs", "3", "--width", "16", "--hidden-layers", "1", "--batch-size", "128")
    assert main(["train", DIGITS, *words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, capsys) -> Path:
    """A complete run to change at will."""
    capsys.readouterr()
    return Path(shutil.copytree(trained, tmp_path / "small"))


@pytest.fixture(autouse=True, scope="module")
def quick_trainings(steps_beside_float_are_not_measured):
    """Trainings are not what is tested here."""


@pytest.fixture
def without_memory(monkeypatch):
    """Pages say nothing of a step's memory, which takes most of their time."""

    def refuse(runs: object) -> None:
        raise RunError("not here")

    monkeypatch.setattr(run_record, "memory_figures", refuse)


@pytest.fixture(scope="session")
def page(trained, tmp_path_factory) -> str:
    """The page of the run as it is."""
    return report(shutil.copytree(trained, tmp_path_factory.mktemp("page") / "small"))
