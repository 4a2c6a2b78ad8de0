"""`bnn sweep`: trainings with every combination of options."""

import csv
import os
import shutil
import sys
from pathlib import Path

import pytest

from bnn.cli import main
from bnn.cli.sweep import _options
from bnn.training.directory import read_json
from tests.cli.command_line import DIGITS, assert_one_line, recipe

SMALL = ("--epochs=1", "--hidden-layers=1", "--batch-size", "256")


@pytest.fixture
def in_this_process(monkeypatch):
    """Trainings in this process, which is quicker."""
    monkeypatch.setattr(sys.modules["bnn.cli.sweep"], "_train", lambda words: main(["train", *words]))


def test_trains_what_is_missing_and_sums_up(in_this_process, bnn):
    words = ("sweep", DIGITS, *SMALL, "--seed", "0,1", "--width=8,16", "--out", "all")
    code, output, errors = bnn(*words)
    assert (code, errors) == (0, "")
    names = [f"seed-{seed}-width-{width}" for seed in (0, 1) for width in (8, 16)]
    assert sorted(path.name for path in Path("all").iterdir() if path.is_dir()) == sorted(names)
    rows = list(csv.DictReader(Path("all/sweep.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == names
    for row in rows:
        summary = read_json(Path("all", row["run"], "summary.json"))
        assert float(row["test_accuracy"]) == summary["test_accuracy"]
        assert int(row["step_bytes"].partition(".")[0]) == int(summary["beside_float"]["step_bytes"]["this"])
        assert f"seed-{row['seed']}-width-{row['width']}" == row["run"]
    assert "width 8" in output
    assert "Means ± sample deviations." in output
    assert "width 16" in Path("all/report.html").read_text()
    # One that is complete stays, one that is gone is trained again and comes out the same.
    before = (Path("all/seed-0-width-8/summary.json").read_bytes(), Path("all/sweep.csv").read_text())
    shutil.rmtree("all/seed-1-width-8")
    assert bnn(*words)[0] == 0
    assert Path("all/seed-0-width-8/summary.json").read_bytes() == before[0]
    accuracies = [[row["test_accuracy"] for row in csv.DictReader(text.splitlines())] for text in before[1:]]
    assert accuracies == [
        [row["test_accuracy"] for row in csv.DictReader(Path("all/sweep.csv").read_text().splitlines())]
    ]
    # Options that differ in what is not swept are other runs.
    assert_one_line(bnn(*words, "--learning-rate=0.1"), "holds a run of other options", "--out")


def test_an_interrupted_run_of_the_user_s_own_recipe_goes_on(in_this_process, bnn):
    words = ("sweep", recipe("def recipe(*, seed: int = 0): return run()"), "--seed", "0,1", "--out", "all")
    assert bnn(*words)[0] == 0
    whole = [read_json(Path(f"all/seed-{seed}/summary.json"))["test_accuracy"] for seed in (0, 1)]
    Path("all/seed-1/summary.json").unlink()
    code, output, errors = bnn(*words)
    assert (code, errors) == (0, "")
    assert [read_json(Path(f"all/seed-{seed}/summary.json"))["test_accuracy"] for seed in (0, 1)] == whole
    assert "page: all/report.html" in output


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_are_summed_up(bnn):
    path = recipe("""
def recipe(*, seed: int = 0, fails: bool = False):
    if seed == 1:
        raise ValueError("no luck")
    return run()
""")
    code, output, errors = bnn("sweep", path, "--seed", "0,1", "--out", "all")
    assert_one_line((code, output, errors), "these runs failed: all/seed-1 (exit status 1)")
    assert [row["run"] for row in csv.DictReader(Path("all/sweep.csv").read_text().splitlines())] == ["seed-0"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["name a recipe first"]),
        (["--seed", "0,1"], ["name a recipe first"]),
        ([DIGITS, "--sed", "0,1"], ["unrecognized arguments: --sed=0", "but there is '--seed'"]),
        ([DIGITS, "--seed", "0,many"], ["seed", "many"]),
        ([DIGITS, "--seed", "0", "--seed", "1"], ["--seed is there twice"]),
        ([DIGITS, "stray"], ["'stray' belongs to no option"]),
        ([DIGITS, "--seed", "0", "1"], ["'1' belongs to no option"]),
        ([DIGITS, "--out", "a,b"], ["--out takes one value"]),
    ],
)
def test_what_cannot_be_swept_trains_nothing(words, parts, bnn):
    assert_one_line(bnn("sweep", *words), *parts, code=2)
    assert os.listdir() == []


def test_commas_within_brackets_separate_nothing():
    assert _options(["--sizes", "[4,5],[6]", "--kind=a,b", "--deep"]) == {
        "--sizes": ["[4,5]", "[6]"],
        "--kind": ["a", "b"],
        "--deep": [None],
    }
