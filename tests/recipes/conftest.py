from pathlib import Path

import pytest

from tests.recipes.small_data import write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """An image folder of 40 training and 10 test images."""
    folder = tmp_path_factory.mktemp("cifar")
    write_images(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="module")
def quick_trainings(steps_beside_float_are_not_measured):
    """Trainings are not what is tested here."""
