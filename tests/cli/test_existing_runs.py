"""Commands on runs that exist, whole and damaged."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bnn.training.directory import read_json
from tests.cli.command_line import DIGITS, QUICK, assert_one_line


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
    assert_one_line(bnn("train", "--resume", "run"), "run is complete: all of its 2 epochs are done")


@pytest.mark.parametrize("command", [["eval"], ["train", "--resume"]])
def test_what_is_no_run_is_named(command, bnn):
    assert_one_line(bnn(*command, "gone"), "gone/config.json is missing")
    Path("empty").mkdir()
    assert_one_line(bnn(*command, "empty"), "empty/config.json is missing")


def _without(name: str):
    return lambda c: {key: value for key, value in c.items() if key != name}


CONFIGURATIONS = {
    "not JSON": (lambda c: None, ["run/config.json cannot be read"]),
    "no recipe": (_without("recipe"), ["run/config.json is not the configuration of a run"]),
    "no arguments": (_without("arguments"), ["run/config.json is not the configuration"]),
    "recipe of another type": (lambda c: {**c, "recipe": 5}, ["run/config.json is not the configuration"]),
    "recipe gone": (lambda c: {**c, "recipe": "gone.py"}, ["gone.py of this run is gone", "--recipe PATH"]),
    "arguments of another type": (lambda c: {**c, "arguments": "x"}, ["does not fit"]),
    "an unknown argument": (lambda c: {**c, "arguments": {**c["arguments"], "colour": 1}}, ["does not fit", "colour"]),
    "a wrong value": (lambda c: {**c, "arguments": {**c["arguments"], "epochs": "x"}}, ["does not fit", "epochs"]),
    "device of another type": (lambda c: {**c, "device": [1]}, ["device [1] cannot be used here"]),
    "another width": (lambda c: {**c, "arguments": {**c["arguments"], "width": 17}}, ["belongs to another"]),
}


@pytest.mark.parametrize(("change", "parts"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_damaged_configuration(change, parts, finished, bnn):
    changed = change(read_json(finished / "config.json"))
    (finished / "config.json").write_text("{" if changed is None else json.dumps(changed))
    assert_one_line(bnn("eval", "run"), *parts)


def test_damaged_checkpoints_are_named(finished, bnn):
    for path in (finished / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    assert_one_line(bnn("eval", "run"), "run/checkpoints/step-", "damaged")
    for path in (finished / "checkpoints").iterdir():
        path.unlink()
    assert_one_line(bnn("eval", "run"), "there is no checkpoint in run/checkpoints")
    shutil.rmtree(finished / "checkpoints")
    assert_one_line(bnn("eval", "run"), "run/checkpoints")


@pytest.mark.filterwarnings("default")
def test_one_damaged_checkpoint_is_a_warning_of_one_line(finished, bnn):
    newest = max((finished / "checkpoints").glob("*.json"))
    newest.write_text("{}")
    code, output, errors = bnn("eval", "run")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: [^\n]+\n", errors)
    assert newest.name in errors
    assert "after 1 of 2 epochs" in output


def test_damaged_metrics_are_named(finished, bnn):
    (finished / "summary.json").unlink()
    (finished / "metrics.jsonl").write_text("[]\n")
    assert_one_line(bnn("train", "--resume", "run"), "run/metrics.jsonl, line 1, is damaged")


def test_damaged_summary_does_not_matter_to_eval(finished, bnn):
    (finished / "summary.json").write_text("{")
    assert bnn("eval", "run")[0] == 0


@pytest.mark.filterwarnings("default")
def test_moved_and_changed_recipe(finished, bnn):
    configuration = read_json(finished / "config.json")
    (finished / "config.json").write_text(json.dumps({**configuration, "recipe": "/gone/digits.py"}))
    shutil.copy(DIGITS, "moved.py")
    code, _, errors = bnn("eval", "run", "--recipe", "moved.py")
    assert (code, errors) == (0, "")
    Path("moved.py").write_text(Path("moved.py").read_text() + "# changed\n")
    code, _, errors = bnn("eval", "run", "--recipe", "moved.py")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: moved.py has changed since the run began[^\n]+\n", errors)
