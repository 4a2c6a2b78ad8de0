"""`bnn data`, and a training on shards."""

from pathlib import Path

import pytest

from bnn.training.directory import read_json
from tests.recipes.small_data import write_images

pytest.importorskip("PIL", reason="pictures need Pillow, an optional dependency")


@pytest.fixture
def pictures(tmp_path):
    write_images(tmp_path / "pictures")
    return tmp_path / "pictures"


def test_shards_are_made_and_inspected(bnn, pictures):
    code, output, errors = bnn("data", "shard", str(pictures), "-o", "shards")
    assert (code, output) == (0, "shards: shards\n")
    assert "pictures" in errors
    code, output, _ = bnn("data", "inspect", "shards", "--verify")
    assert code == 0
    assert "train: every picture is as it was written" in output


@pytest.mark.slow
def test_a_recipe_trains_on_shards(bnn, pictures):
    assert bnn("data", "shard", str(pictures), "-o", "shards")[0] == 0
    options = ("--image-size", "32", "--epochs", "1", "--batch-size", "8", "--validation", "0.2", "--out", "run")
    code, _, _ = bnn("train", "imagenet", "--data-dir", "shards", *options)
    assert code == 0
    assert read_json(Path("run") / "summary.json")["epochs"] == 1
    code, output, _ = bnn("eval", "run", "--json")
    assert code == 0
    assert '"accuracy_top_5"' in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data", "shard", "missing", "-o", "out"), "bnn: there is no folder missing/train"),
        (("data", "inspect", "missing"), "bnn: there are no shards in missing"),
        (("train", "imagenet", "--data-dir", "missing"), "bnn: there are no shards in "),
    ],
)
def test_what_is_missing_is_one_line(bnn, words, told):
    code, _, errors = bnn(*words)
    assert code == 1
    assert errors.startswith(told)
    assert errors.count("\n") == 1
