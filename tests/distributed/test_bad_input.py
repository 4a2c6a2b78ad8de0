"""What ranks are started with and cannot train on: one line on every rank, an exit status, and nothing half-written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bnn.data.shards import write_shards
from bnn.data.shards.files import shard_path
from bnn.ops import cpu
from tests.distributed.processes import ROOT, start
from tests.distributed.test_train import DIGITS, TRAIN, lines_of, torchrun
from tests.recipes.small_data import write_images

pytestmark = pytest.mark.slow
IMAGES = ["--model", "resnet8", "--image-size", "32", "--batch-size", "8", "--epochs", "1", "--patience", "120"]
SHARDS = ["imagenet", "--model", "quicknet_small", "--image-size", "32", "--batch-size", "8", "--patience", "120"]


@contextmanager
def nothing_written(run: Path) -> Iterator[list[str]]:
    """Gives the option for a run's directory, which must not be there afterwards."""
    yield ["--out", str(run)]
    assert not run.exists()


def lines_through_torchrun(*words: str) -> list[str]:
    process = torchrun(2, *words)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode not in (0, None)
    return [line for line in errors.splitlines() if line.startswith("bnn: ")]


def test_ranks_with_different_recipes(tmp_path):
    recipes = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        recipes.append(shutil.copy(ROOT / "recipes" / "digits.py", tmp_path / name / "own.py"))
    with open(recipes[1], "a") as file:
        file.write("# changed\n")
    with nothing_written(tmp_path / "run") as out:
        for line in lines_of(start([[*TRAIN, recipe, *DIGITS[1:], *out] for recipe in recipes])):
            assert "ranks 0 and 1 differ in their recipe" in line


def test_ranks_with_different_data(tmp_path):
    folders = [tmp_path / name / "pictures" for name in ("one", "other")]
    for folder in folders:
        write_images(folder)
    (folders[1] / "train" / "class3" / "2.png").unlink()
    with nothing_written(tmp_path / "run") as out:
        commands = [[*TRAIN, "images", "--data-dir", str(folder), *IMAGES, *out] for folder in folders]
        for line in lines_of(start(commands, BNN_CACHE=str(tmp_path / "cache")), 600):
            assert "ranks 0 and 1 differ in their training data" in line


@pytest.mark.skipif(cpu.instruction_set() in ("generic", "reference"), reason="there is one kind of kernels here")
def test_ranks_with_different_kernels(tmp_path):
    def with_kernels(name: str) -> list[str]:
        program = f"import os, bnn.__main__ as m; os.environ['BNN_KERNELS'] = {name!r}; raise SystemExit(m.main())"
        return ["-c", program, "train", *DIGITS, *out]

    with nothing_written(tmp_path / "run") as out:
        for line in lines_of(start([with_kernels("generic"), with_kernels("")])):
            assert "ranks 0 and 1 differ in their kernels: generic and" in line


@pytest.fixture
def shards(tmp_path) -> Path:
    write_images(tmp_path / "pictures")
    write_shards(tmp_path / "pictures", tmp_path / "shards")
    return tmp_path / "shards"


def test_a_damaged_shard(shards, tmp_path):
    path = shard_path(shards, "train", 0)
    path.write_bytes(path.read_bytes()[:-9])
    with nothing_written(tmp_path / "run") as out:
        lines = lines_through_torchrun(*SHARDS, "--data-dir", str(shards), *out)
    assert len(lines) == 2
    assert all(str(path) in line for line in lines)
