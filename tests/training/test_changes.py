"""A run goes on with what it began with, or says that it does not."""

import pytest

from bnn.errors import Interrupted, RunError
from bnn.training import Trainer, changes
from bnn.training.changes import threads_of
from bnn.training.directory import read_json, versions, write_json
from tests.training.tiny_runs import SignalAt, adam_run


@pytest.fixture
def interrupted(tmp_path):
    """Makes a run that was interrupted at some moment, elsewhere."""

    def make(moment: tuple[str, int, int] = ("step ends", 1, 2), **began: str):
        with pytest.raises(Interrupted):
            Trainer(adam_run(), tmp_path / "run", callbacks=[SignalAt(moment)]).fit()
        configuration = read_json(tmp_path / "run" / "config.json")
        write_json(tmp_path / "run" / "config.json", {**configuration, "versions": {**versions(), **began}})
        return tmp_path / "run"

    return make


CHANGED = {
    "bnn": "release (0, now",
    "torch": "torch (0, now",
    "kernels": "kernels (0, now",
    "threads": "threads (0, now",
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_that_results_depend_on_is_refused_unless_it_is_allowed(name, interrupted):
    run = interrupted(**{name: "0"})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"would not end in the same bits: .* with --allow-changes$") as refused:
        Trainer(adam_run(), run).resume()
    assert f"{run} was trained with other {CHANGED[name]}" in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    Trainer(adam_run(), run).resume(allow_changes=True)
    configuration = read_json(run / "config.json")
    assert configuration["versions"] == versions()
    assert configuration["earlier_versions"] == [{"until_step": 6, "versions": {**versions(), name: "0"}}]


def test_all_changes_are_told_at_once_and_unknown_versions_are_changes(interrupted, monkeypatch):
    run = interrupted()
    write_json(run / "config.json", {**read_json(run / "config.json"), "versions": None})
    with pytest.raises(RunError, match=r"release \(unknown.*torch \(unknown.*kernels \(unknown.*threads \(unknown"):
        Trainer(adam_run(), run).resume()


def test_what_changes_no_result_is_not_asked_about(interrupted):
    assert Trainer(adam_run(), interrupted(python="2.7.18")).resume()["epochs"] == 3


def test_a_run_that_has_taken_no_step_may_change(interrupted, monkeypatch):
    run = interrupted()
    assert changes.noting_changes({"versions": {"torch": "0"}}, run, step=0, allowed=False) == {
        "versions": {"torch": "0"}
    }


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "9" * 20, 4, None])
def test_what_is_no_number_of_threads_is_not_taken(text):
    assert threads_of({"versions": {"threads": text}}) is None
    assert threads_of({"versions": text}) is None
    assert threads_of({"versions": {"threads": "4"}}) == 4
