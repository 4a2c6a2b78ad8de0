"""`bnn eval` and `bnn predict`, of runs and of files, where the run was made and elsewhere."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bnn
from bnn.cli import main
from bnn.training import Trainer
from bnn.training.directory import read_json
from tests.training.tiny_runs import adam_run, sgd_run

QUICK = ["--model", "resnet8", "--image-size", "16", "--epochs", "3", "--batch-size", "8"]


def write_pictures(folder: Path, each: int = 12) -> None:
    """Dark, middle and bright pictures of several sizes, colours and formats."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "bright", "middle")):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(each):
            height, width = random.integers(17, 40, 2)
            level = (0, 190, 90)[label]
            pixels = Image.fromarray((random.integers(0, 60, (height, width, 3)) + level).astype(np.uint8))
            mode, suffix = (("RGB", "jpg"), ("L", "png"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "jpg"))[number % 5]
            pixels.convert(mode).save(place / f"{number}.{suffix}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures, a run on them and its file; the run has then been moved, and the pictures are gone."""
    place, cache = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNN_CACHE", str(cache))
        write_pictures(place / "pets")
        assert main(["train", "images", "--data-dir", str(place / "pets"), *QUICK, "--out", str(place / "run")]) == 0
    moved = tmp_path_factory.mktemp("there") / "elsewhere"
    shutil.move(place, moved)
    return moved


@pytest.fixture
def call(made, monkeypatch, tmp_path, capsys):
    """Runs a command in the folder to which everything has been moved."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("BNN_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


def refused(result: tuple[int, str, str], *parts: str, code: int = 1) -> None:
    status, _, errors = result
    assert status == code
    assert re.fullmatch(r"bnn: [^\n]+\n", errors), errors
    for part in parts:
        assert part in errors


def test_a_run_that_was_moved_predicts_and_compresses_without_data(call):
    shutil.move("pets", "some pictures")
    picture = "some pictures/bright/3.png"
    code, output, errors = call("predict", "run", picture, "--top", "3")
    assert (code, errors) == (0, "")
    assert re.fullmatch(rf"{picture}: \w+ [\d.]+ %, \w+ [\d.]+ %, \w+ [\d.]+ %\n", output)
    assert call("compress", "run", "-o", "m.bnnz")[0] == 0
    of_run = json.loads(call("predict", "run", picture, "some pictures/dark/0.jpg", "--json")[1])
    assert of_run == json.loads(call("predict", "m.bnnz", picture, "some pictures/dark/0.jpg", "--json")[1])
    assert [row["picture"] for row in of_run] == [picture, "some pictures/dark/0.jpg"]
    assert Path("m.bnnz").stat().st_size < Path("run/model.bnnz").stat().st_size


def test_a_run_that_was_moved_is_evaluated_on_its_own_test_images(call):
    refused(call("eval", "run"), "there is no folder", "pets")
    code, output, errors = call("eval", "run", "--data-dir", "pets")
    assert (code, errors) == (0, "")
    summary = read_json(Path("run/summary.json"))
    assert f"test accuracy {100 * summary['test_accuracy']:.2f} %, loss {summary['test_loss']:.4f}" in output
    assert "after 3 of 3 epochs; 6 examples, 95 % interval" in output
    assert summary["test_accuracy"] > 0.6


def test_classes_intervals_and_confusion(call):
    _, output, _ = call("eval", "run", "--data-dir", "pets", "--json")
    figures = json.loads(output)
    assert [row["class"] for row in figures["classes"]] == ["bright", "dark", "middle"]
    assert np.array(figures["confusion"]).sum(axis=1).tolist() == [2, 2, 2]
    assert (
        figures["accuracy"]
        == np.trace(figures["confusion"]) / 6
        == read_json(Path("run/summary.json"))["test_accuracy"]
    )
    low, high = figures["interval_95"]
    assert 0 <= low <= figures["accuracy"] <= high <= 1
    _, table, _ = call("eval", "run", "--data-dir", "pets", "--confusion")
    assert all(part in table for part in ("bright", "middle", "most often taken for", "were taken for (columns)"))


def test_a_file_is_evaluated_on_any_pictures_of_its_classes(call):
    call("compress", "run", "-o", "m.bnnz")
    code, output, _ = call("eval", "m.bnnz", "--data-dir", "pets", "--json")
    assert code == 0
    assert json.loads(output)["images"] == 36
    shutil.rmtree("pets/dark")
    figures = json.loads(call("eval", "m.bnnz", "--data-dir", "pets", "--json")[1])
    assert [row["images"] for row in figures["classes"]] == [12, 0, 12]
    Path("pets/bright").rename("pets/sunny")
    refused(call("eval", "m.bnnz", "--data-dir", "pets"), "does not know the class 'sunny'", "bright, dark, middle")


def test_a_run_that_was_moved_goes_on_where_its_data_are_now(call):
    refused(call("train", "--resume", "run", "--epochs", "4"), "there is no folder")
    code, output, errors = call("train", "--resume", "run", "--epochs", "4", "--data-dir", "pets")
    assert (code, errors) == (0, "")
    assert "epoch 4/4" in output
    arguments = read_json(Path("run/config.json"))["arguments"]
    assert (arguments["epochs"], arguments["data_dir"]) == (4, str(Path("pets").absolute()))
    assert "after 4 of 4 epochs" in call("eval", "run")[1]


def test_a_report_needs_no_data(call):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    shutil.rmtree("pets")
    assert call("report", "run")[0] == 0
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "No layers are shown" not in page
    assert "Predicted, by variable" in page


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["predict", "gone", "a.png"], ["gone/config.json is missing"]),
        (["predict", "gone.bnnz", "a.png"], ["there is no gone.bnnz"]),
        (["predict", "pets/dark/0.jpg", "a.png"], ["this is no model file"]),
        (
            ["predict", "run", "gone.png", "pets", "run/config.json", "pets/dark/0.jpg"],
            ["3 of 4 pictures cannot be decoded", "gone.png (No such file", "pets (Is a directory)", "config.json ("],
        ),
        (["eval", "run", "--data-dir", "gone"], ["there is no folder", "gone"]),
        (["eval", "run", "--data-dir", "pets/dark"], ["has no class folders"]),
    ],
)
def test_what_cannot_be_used(words, parts, call):
    refused(call(*words), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["predict", "run"], ["FILE"]),
        (["predict", "run", "a.png", "--top", "0"], ["--top is at least 1"]),
        (["eval", "run/model.bnnz"], ["say what to test", "--data-dir FOLDER"]),
    ],
)
def test_command_lines_that_are_refused(words, parts, call):
    refused(call(*words), *parts, code=2)


def test_a_run_made_in_python_is_compressed_evaluated_and_predicts(call, tmp_path):
    trainer = Trainer(sgd_run(epochs=2), tmp_path / "made")
    summary = trainer.fit()
    model = bnn.load(tmp_path / "made" / "model.bnnz")
    assert model.classes == ("a", "b", "c", "d")
    refused(call("eval", str(tmp_path / "made")), "was made without a recipe", "Trainer")
    for label, name in enumerate(model.classes):
        place = Path("squares", name)
        place.mkdir(parents=True)
        for number, image in enumerate(trainer.run.data.test.images[trainer.run.data.test.labels == label]):
            Image.fromarray(image[0].numpy()).save(place / f"{number}.png")
    figures = json.loads(call("eval", str(tmp_path / "made"), "--data-dir", "squares", "--json")[1])
    assert figures["accuracy"] == summary["test_accuracy"]
    assert call("compress", str(tmp_path / "made"), "-o", "m.bnnz")[0] == 0
    of_run, of_file = (call("predict", str(path), "squares/a/0.png")[1] for path in (tmp_path / "made", "m.bnnz"))
    assert of_run == of_file
    assert call("report", str(tmp_path / "made"))[0] == 0


def test_a_network_of_a_class_that_is_not_known_says_how_to_go_on(call, tmp_path):
    Trainer(adam_run(epochs=1), tmp_path / "made").fit()
    refused(
        call("predict", str(tmp_path / "made"), "pets/dark/0.jpg"), "its part 1 (Noise) keeps generator", "load_into"
    )
    assert call("compress", str(tmp_path / "made"), "-o", "m.bnnz")[0] == 0


OWN = '''"""Modules of a user's own."""
import torch
from torch import nn
from bnn import BinaryLinear
from bnn.data import digits
from bnn.training import Run

print("EXECUTED")

class Unit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear, self.factor = BinaryLinear(64, width), 0.5

    def forward(self, x):
        return self.factor * self.linear(x)


def recipe():
    model = nn.Sequential(nn.Flatten(), Unit(16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Run(model=model, data=digits(), optimizer=optimizer, epochs=1, batch_size=200, seed=0)
'''


def test_classes_of_a_recipe_of_the_user_s_own_are_taken_from_where_it_is_named(call):
    Path("own.py").write_text(OWN)
    assert call("train", "own.py", "--out", "made")[0] == 0
    code, output, errors = call("predict", "made", "pets/dark/0.jpg")
    refused((code, output, errors), "a class that this package does not know, 'Unit'", "--recipe")
    assert "EXECUTED" not in output
    for named in ("made/recipe.py", "own.py"):
        code, output, errors = call("predict", "made", "pets/dark/0.jpg", "--recipe", named)
        assert (code, errors, "EXECUTED" in output) == (0, "", True)
    summary = read_json(Path("made/summary.json"))
    assert f"{100 * summary['test_accuracy']:.2f} %" in call("eval", "made", "--recipe", "own.py")[1]
