"""The recipe for measurements of one's own: trained, evaluated and predicted, here and elsewhere; what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import bnn
from bnn.cli import main
from bnn.errors import DataError, RecipeError
from bnn.training.directory import read_json
from bnn.training.recipe import find_recipe, load_recipe
from bnn.weights import AccumulatorStore, named_stores

ARRAYS = load_recipe(find_recipe("arrays"))
QUICK = ["--epochs", "12", "--width", "64", "--batch-size", "16"]


def write_table(path: Path, rows: int = 120, *, header: bool = True, seed: int = 0) -> None:
    """Three classes, two columns that tell them apart, on scales far apart, and one of noise."""
    random = np.random.default_rng(seed)
    lines = ["pressure,noise,current,state"] if header else []
    for n in range(rows):
        label = n % 3
        values = (
            100_000 + 500 * (label == 1) + random.normal(0, 40),
            random.normal(),
            1e-3 * (label + 0.2 * random.normal()),
        )
        lines.append(",".join([*(f"{value:.7g}" for value in values), ("idle", "valve open", "motor on")[label]]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A table with one to test on beside it, and a run; all of it has then been moved."""
    place = tmp_path_factory.mktemp("here")
    write_table(place / "plant.csv")
    write_table(place / "held.csv", 30, seed=1)
    words = ["--data-dir", str(place / "plant.csv"), "--test", str(place / "held.csv"), *QUICK]
    assert main(["train", "arrays", *words, "--out", str(place / "run")]) == 0
    moved = tmp_path_factory.mktemp("there") / "elsewhere"
    shutil.move(place, moved)
    return moved


@pytest.fixture
def call(made, monkeypatch, tmp_path, capsys):
    """Runs a command in the folder to which everything has been moved."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")

    def run(*words: str) -> tuple[int, str, str]:
        return main(words), *capsys.readouterr()

    return run


def test_a_table_is_learned_evaluated_and_predicted_elsewhere(call):
    summary = read_json(Path("run/summary.json"))
    assert summary["test_accuracy"] > 0.8
    code, output, errors = call("eval", "run", "--data-dir", "plant.csv", "--json")
    assert (code, errors) == (0, "")
    figures = json.loads(output)
    assert (figures["accuracy"], figures["images"]) == (summary["test_accuracy"], 30)
    assert [row["class"] for row in figures["classes"]] == ["idle", "motor on", "valve open"]
    assert call("compress", "run", "-o", "m.bnnz")[0] == 0
    assert json.loads(call("eval", "m.bnnz", "--data-dir", "held.csv", "--json")[1])["accuracy"] == figures["accuracy"]
    rows = json.loads(call("predict", "m.bnnz", "held.csv", "--json")[1])
    assert rows == json.loads(call("predict", "run", "held.csv", "--json")[1])
    assert [row["row"] for row in rows] == list(range(1, 31))
    told = [line.rpartition(",")[2] for line in Path("held.csv").read_text().splitlines()[1:]]
    right = sum(row["guesses"][0]["class"] == name for row, name in zip(rows, told, strict=True))
    assert right / 30 == figures["accuracy"]
    _, text, _ = call("predict", "run", "held.csv", "--top", "2")
    assert re.match(r"held.csv row 1: [a-z ]+ \d+\.\d %, [a-z ]+ \d+\.\d %\nheld.csv row 2: ", text)


def test_a_run_goes_on_and_is_reported_elsewhere(call):
    code, _, errors = call("train", "--resume", "run", "--epochs", "13", "--data-dir", "plant.csv")
    assert (code, errors) == (0, "")
    assert read_json(Path("run/config.json"))["arguments"]["test"] == str(Path("held.csv").absolute())
    assert call("report", "run")[0] == 0
    assert "table" in Path("run/report.html").read_text()


def test_a_model_file_in_python(call):
    model = bnn.load("run/model.bnnz")
    ((guess,), *others) = model.predict(["held.csv"])
    assert guess.name in model.classes == ("idle", "motor on", "valve open")
    assert len(others) == 29
    logits = model(model.preprocessing.normalized(model.preprocessing.decode([Path("held.csv")])))
    assert model.classes[logits[0].argmax()] == guess.name


def test_what_does_not_fit_a_model_is_one_line(call):
    Path("other.csv").write_text("pressure,current\n1,2\n")
    for words, message in (
        (("predict", "run", "other.csv"), "other.csv has no column 'noise'"),
        (("predict", "run", "gone.csv"), "there is no file gone.csv"),
        (("predict", "run", "run/config.json"), "run/config.json is none of the files that are read"),
        (("eval", "run/model.bnnz", "--data-dir", "other.csv"), "other.csv has no column 'state'"),
        (("eval", "run/model.bnnz"), "say what to test run/model.bnnz on"),
    ):
        code, _, errors = call(*words)
        assert code in (1, 2)
        assert re.fullmatch(r"bnn: [^\n]+\n", errors)
        assert message in errors


def test_signals_and_presets(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=random.normal(size=(40, 3, 16)), y=np.arange(40) % 4)
    run = ARRAYS(data_dir=tmp_path / "a.npz", preset="edge-min", width=8, hidden_layers=1)
    assert {type(store) for _, store in named_stores(run.model)} == {AccumulatorStore}
    assert run.data.image_shape == (3, 16)
    assert run.augment == ()
    assert main(["train", "arrays", "--data-dir", str(tmp_path / "a.npz"), "--preset", "edge", "--epochs", "1",
                 "--out", str(tmp_path / "run")]) == 0  # fmt: skip


def test_what_cannot_be_trained_on(tmp_path, capsys):
    path = tmp_path / "t.csv"
    write_table(path)
    with pytest.raises(RecipeError, match="--hidden-layers is at least 1"):
        ARRAYS(data_dir=path, hidden_layers=0)
    path.write_text("a,b,kind\n" + "1,2,x\n3,4,x\n" * 3)
    with pytest.raises(DataError, match="has the one class x"):
        ARRAYS(data_dir=path)
    write_table(path)
    for words, message in (
        (["--target", "stat"], "has no column 'stat', but there is 'state'"),
        (["--target", "pressure"], "line 2, column 'state': 'idle'"),
        (["--test", str(tmp_path / "gone.csv")], "there is no file"),
        (["--test-part", "0"], "lies between 0 and 1"),
    ):
        assert main(["train", "arrays", "--data-dir", str(path), *words, "--out", str(tmp_path / "run")]) == 1
        errors = capsys.readouterr().err
        assert re.fullmatch(r"bnn: [^\n]+\n", errors)
        assert message in errors
        assert not (tmp_path / "run").exists()
