"""Whatever is typed ends with a result or with one line and the right status, and destroys nothing."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

import bnn.cli
import hwsim.cli
import hwsim.studies.accuracy
from tests.cli.argument_lists import ArgumentList, argument_lists, furnish

PROGRAMS = {"bnn": bnn.cli.main, "hwsim": hwsim.cli.main}
TOO_LONG_S = 60  # of the processor's time


def call(words: ArgumentList) -> tuple[int, str]:
    """Exit status and errors of a command in this process, whose traceback is among the errors if there is one."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            status = PROGRAMS[words.program](words.words)
        except SystemExit as exit:  # of --help
            status = exit.code
        except BaseException:
            status = -1
            traceback.print_exc(file=errors)
    return status, errors.getvalue()


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def complaint(words: ArgumentList, place: Path) -> str:
    """What is wrong with what a command did in its folder; nothing if all is well."""
    before = contents(place)
    status, errors = call(words)
    if not words.words:
        return ""  # the help
    after = contents(place)
    lines = [line for line in errors.splitlines() if not line.startswith(f"{words.program}: warning: ")]
    if status not in (0, 1, 2):
        return f"status {status}: {errors}"
    if status == 0:  # `--resume` of a complete run has nothing left to do
        lines = [line for line in lines if " is complete: " not in line]
    most = 5 if words.words[:1] == ("sweep",) else 1  # each run of a sweep says why it failed
    if not (
        lines == []
        if status == 0
        else 0 < len(lines) <= most and all(re.match(rf"{words.program}: \S", line) for line in lines)
    ):
        return f"status {status} with the errors {errors!r}"
    if any(Path(name).name.startswith(".") for name in after):
        return f"a temporary file is left: {sorted(after)}"
    if status and any(after.get(name) != content for name, content in before.items()):
        return "a file that was there has changed, and the command failed"
    if status:
        return half_written(place, sorted(after.keys() - before.keys()))
    return ""


def half_written(place: Path, new: list[str]) -> str:
    """What is wrong with the files that a command left behind which failed: only a run with its state is of use."""
    runs = {Path(name).parent for name in new if name.endswith("config.json")}
    for run in runs:
        json.loads((place / run / "config.json").read_text())
        if not any((place / run / "checkpoints").glob("*.json")):
            return f"a run without a checkpoint: {new}"
    others = [name for name in new if not any(run in Path(name).parents for run in runs)]
    return f"left behind: {others}" if others else ""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("furnished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("BNN_CACHE", str(place.parent / "cache"))
        furnish(place)
    return place


@pytest.fixture
def trainings_in_this_process(monkeypatch) -> None:
    """Sweeps train in processes of their own, which take seconds to begin."""

    def train(words: Sequence[str]) -> int:
        return PROGRAMS["bnn"](["train", *words])

    # The package's attribute of this name is the command.
    monkeypatch.setattr(sys.modules["bnn.cli.sweep"], "_train", train)
    monkeypatch.setattr("hwsim.cli.sweep_accuracy.train_each", partial(hwsim.studies.accuracy.sweep, train=train))


@pytest.fixture
def no_endless_command() -> Iterator[None]:
    signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("number", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("trainings_in_this_process", "no_endless_command")
def test_no_argument_list_ends_in_a_traceback_or_leaves_half_a_result(number, furnished, tmp_path, monkeypatch):
    seed = int(os.environ.get("BNN_SEED", 0))
    monkeypatch.setenv("BNN_CACHE", str(furnished.parent / "cache"))
    found = []
    for place, words in enumerate(argument_lists(number, seed=seed)):
        folder = Path(shutil.copytree(furnished, tmp_path / "place" / str(place)))
        monkeypatch.chdir(folder)
        signal.setitimer(signal.ITIMER_PROF, TOO_LONG_S)
        wrong = complaint(words, folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
        if wrong:
            found.append(f"{words.program} {' '.join(map(repr, words.words))}\n    {wrong}")
    assert not found, f"{len(found)} of {number}, seed {seed}:\n" + "\n".join(found)


def test_the_lists_are_many_and_of_every_command():
    lists = list(argument_lists(500, seed=0))
    assert lists == list(argument_lists(500, seed=0)) != list(argument_lists(500, seed=1))
    assert len(set(lists)) > 400
    begun = {words[:1] for _, words in lists}
    commands = ("train", "sweep", "recipes", "eval", "predict", "budget", "report", "models", "compress", "decompress")
    assert begun >= {(command,) for command in (*commands, "inspect", "switching")}


@pytest.mark.parametrize("words", [("compress", "run", "-o", "pipe"), ("report", "run", "-o", "pipe")])
def test_what_is_no_ordinary_file_is_not_replaced(words, furnished, tmp_path, monkeypatch):
    shutil.copytree(furnished / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    status, errors = call(ArgumentList("bnn", words))
    assert status == 1
    assert errors.startswith("bnn: pipe cannot be written: ")
    assert Path("pipe").is_fifo()


HUGE = "9" * 30


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (
            ("budget", "mlp", "--no-measure", f"--batch={HUGE}", f"--epoch={HUGE}"),
            2,
            "--batch is at most 2,147,483,648",
        ),
        (("budget", "mlp", "--fit=2MiB", f"--batch={HUGE}", f"--epoch={HUGE}"), 2, "--batch is at most"),
        (("budget", "mlp", f"--input={HUGE}"), 2, "an example has at most 268,435,456 values"),
        (("budget", "mlp", f"--fit={HUGE * 20}GiB"), 2, "is not a size"),
        (("train", "arrays", "--data-dir=t.csv", f"--seed={HUGE}"), 1, "int too big"),
        (("train", "arrays", "--data-dir=t.csv", f"--width={HUGE}"), 1, "verflow"),
        (("train", "arrays", "--data-dir=t.csv", f"--batch-size={HUGE}"), 1, "a batch has at most 2,147,483,648"),
    ],
)
def test_numbers_beyond_all_measure(words, status, message, furnished, monkeypatch):
    monkeypatch.chdir(furnished)
    found, errors = call(ArgumentList("bnn", words))
    (line,) = errors.splitlines()
    assert found == status
    assert message in line
    assert "frame #" not in line
