"""Commands on runs that exist, whole and damaged."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bnn.training.directory import read_json, read_metrics
from tests.cli.command_line import DIGITS, QUICK, assert_one_line, recipe


def test_eval_gives_the_summary_s_accuracy_and_writes_nothing(bnn):
    bnn("train", DIGITS, *QUICK, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, output, _ = bnn("eval", "run")
    summary = read_json(Path("run/summary.json"))
    assert code == 0
    assert f"test accuracy {100 * summary['test_accuracy']:.2f} %, loss {summary['test_loss']:.4f}" in output
    assert "after 2 of 2 epochs" in output
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_directory_of_a_run_is_not_overwritten(finished, bnn):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert_one_line(bnn("train", DIGITS, *QUICK, "--out", "run"), "run is not empty", "--resume run")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_complete_run_says_so(finished, bnn):
    # Nothing is left to do: what starts a run again after every boot is not to take that for a failure.
    assert_one_line(bnn("train", "--resume", "run"), "run is complete: all of its 2 epochs are done", code=0)


@pytest.mark.parametrize("command", [["eval"], ["train", "--resume"], ["compress", "-o", "m.bnnz"]])
def test_what_is_no_run_is_named(command, bnn):
    assert_one_line(bnn(*command, "gone"), "gone/config.json is missing")
    Path("empty").mkdir()
    assert_one_line(bnn(*command, "empty"), "empty/config.json is missing")


def _without(name: str):
    return lambda c: {key: value for key, value in c.items() if key != name}


RESUMED = {
    "not JSON": (lambda c: None, ["run/config.json is damaged"]),
    "no version": (_without("version"), ["run was written by release", "whose runs this release", "does not open"]),
    "another version": (lambda c: {**c, "version": 99}, ["run was written by release", "train anew"]),
    "no recipe": (_without("recipe"), ["a file in it is only executed where you name it", "--recipe run/recipe.py"]),
    "no arguments": (_without("arguments"), ["run/config.json is not the configuration"]),
    "recipe of another type": (lambda c: {**c, "recipe": 5}, ["--recipe run/recipe.py"]),
    "another recipe": (lambda c: {**c, "recipe": "gone.py"}, ["is not one of the package", "--recipe run/recipe.py"]),
    "arguments of another type": (lambda c: {**c, "arguments": "x"}, ["run/config.json is not the configuration"]),
    "an unknown argument": (lambda c: {**c, "arguments": {**c["arguments"], "colour": 1}}, ["does not fit", "colour"]),
    "a wrong value": (lambda c: {**c, "arguments": {**c["arguments"], "epochs": "x"}}, ["does not fit", "epochs"]),
    "device of another type": (lambda c: {**c, "device": [1]}, ["device [1] cannot be used here"]),
    "device of a long number": (lambda c: {**c, "device": 10**30}, ["cannot be used here"]),
    "another width": (lambda c: {**c, "arguments": {**c["arguments"], "width": 17}}, ["belongs to another"]),
    "other data": (
        lambda c: {**c, "data": {**c["data"], "classes": ["a", "b"]}},
        ["the data are not those that run began with", "their classes"],
    ),
}


@pytest.mark.parametrize(("change", "parts"), RESUMED.values(), ids=RESUMED)
def test_damaged_configuration(change, parts, finished, bnn):
    changed = change(read_json(finished / "config.json"))
    (finished / "config.json").write_text("{" if changed is None else json.dumps(changed))
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert_one_line(bnn("train", "--resume", "run"), *parts)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_run_of_an_earlier_release_is_refused_by_its_version(finished, bnn):
    configuration = _without("version")(read_json(finished / "config.json"))
    (finished / "config.json").write_text(json.dumps({**configuration, "versions": {"bnn": "0.3.0"}}))
    for words in (["eval", "run"], ["train", "--resume", "run"], ["compress", "run", "-o", "m.bnnz"]):
        assert_one_line(bnn(*words), "run was written by release 0.3.0, whose runs this release")


def test_damaged_checkpoints_are_named(finished, bnn):
    more = ("train", "--resume", "run", "--epochs", "3")
    for path in (finished / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    assert_one_line(bnn(*more), "run/checkpoints/step-", "damaged")
    for path in (finished / "checkpoints").iterdir():
        path.unlink()
    assert_one_line(bnn(*more), "there is no checkpoint in run/checkpoints")
    shutil.rmtree(finished / "checkpoints")
    assert_one_line(bnn(*more), "run/checkpoints")
    assert bnn("eval", "run")[0] == 0


@pytest.mark.filterwarnings("default")
def test_one_damaged_checkpoint_is_a_warning_of_one_line(finished, bnn):
    newest = max((finished / "checkpoints").glob("*.json"))
    newest.write_text("{}")
    code, _, errors = bnn("train", "--resume", "run")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: [^\n]+\n", errors)
    assert newest.name in errors
    assert len(read_metrics(finished)) == 2


def test_a_damaged_model_is_named(finished, bnn):
    model = finished / "model.bnnz"
    model.write_bytes(model.read_bytes()[:-1])
    assert_one_line(bnn("eval", "run"), "run/model.bnnz: the file should have", "get it again")
    model.unlink()
    assert_one_line(bnn("eval", "run"), "run has no model yet", "bnn train --resume run")


def test_damaged_metrics_are_named(finished, bnn):
    (finished / "summary.json").unlink()
    (finished / "metrics.jsonl").write_text("[]\n")
    assert_one_line(bnn("train", "--resume", "run"), "run/metrics.jsonl, line 1, is damaged")


def test_damaged_summary_does_not_matter_to_eval(finished, bnn):
    (finished / "summary.json").write_text("{")
    assert bnn("eval", "run")[0] == 0


def test_a_finished_run_goes_on_to_more_epochs(bnn):
    assert bnn("train", DIGITS, *QUICK, "--out", "run")[0] == 0
    code, _, errors = bnn("train", "--resume", "run", "--epochs", "4")
    assert (code, errors) == (0, "")
    assert [record["epoch"] for record in read_metrics(Path("run"))] == [0, 1, 2, 3]
    assert read_json(Path("run/config.json"))["arguments"]["epochs"] == 4
    assert read_json(Path("run/summary.json"))["epochs"] == 4
    assert "after 4 of 4 epochs" in bnn("eval", "run")[1]
    assert_one_line(bnn("train", "--resume", "run"), "run is complete: all of its 4 epochs are done", code=0)
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "3"), "has 4 epochs done, this run ends after 3")
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "0"), "at least 1 epoch")


@pytest.mark.filterwarnings("default")
def test_a_recipe_of_the_user_s_own_is_executed_only_where_it_is_named(bnn):
    path = recipe("print('EXECUTED')\n\ndef recipe(): return run()")
    code, output, _ = bnn("train", path, "--out", "run")
    assert (code, "EXECUTED" in output) == (0, True)
    (Path("run") / "summary.json").unlink()
    Path(path).unlink()
    for words in (["train", "--resume", "run"], ["eval", "run"]):
        code, output, errors = bnn(*words)
        assert_one_line((code, output, errors), "only executed where you name it", "add --recipe run/recipe.py")
        assert "EXECUTED" not in output
    code, output, errors = bnn("eval", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    assert bnn("train", "--resume", "run", "--recipe", "run/recipe.py")[0] == 0
    Path("changed.py").write_text(Path("run/recipe.py").read_text() + "# changed\n")
    code, _, errors = bnn("eval", "run", "--recipe", "changed.py")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: changed.py is not the recipe that the run began with[^\n]+\n", errors)


def test_nothing_compiled_that_lies_in_a_run_is_executed(bnn):
    path = recipe("def recipe(): return run()")
    assert bnn("train", path, "--out", "run")[0] == 0
    assert not list(Path("run").rglob("__pycache__"))
