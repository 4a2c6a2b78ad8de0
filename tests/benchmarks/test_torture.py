"""The short form of the torture, and that it finds what is broken."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path
from random import Random

import pytest

from benchmarks.torture.__main__ import KINDS, main, table
from benchmarks.torture.faults import FAULTS, Storage
from benchmarks.torture.hostile import mutated_json, text_of
from benchmarks.torture.trials import Broken, Kind, attempt, forked, run, status_of
from benchmarks.torture.writes import a_model_file
from bnn import files

# A fork of a process with threads of its own, as those of pytest are; the children use none of them.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.short])
def test_short_form(kind, capfd):
    assert main(["--short", "--only", kind, "--processes", "1"]) == 0, capfd.readouterr().out


@pytest.mark.slow
def test_ranks_that_are_killed(capfd):
    assert main(["--only", "ranks", "--trials", "3", "--processes", "1"]) == 0, capfd.readouterr().out


def kind_of(trial, **options) -> Kind:
    return Kind("made up", "nothing", trial, short=1, long=1, **options)


def test_what_breaks_dies_or_hangs_is_counted_and_the_others_go_on():
    def trial(chance, folder):
        number = chance.randrange(5)
        if number == 0:
            raise Broken("of several\nlines")
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 2:
            time.sleep(60)
        if number == 3:
            raise ValueError("unexpected")

    outcome = run(kind_of(trial, limit_s=0.5), range(12), processes=2)
    lines = set(outcome.broken.values())
    assert outcome.trials == 12
    assert {"of several lines", "the process died of signal 11", "took more than 0 s"} <= lines
    assert any(line.startswith("ValueError: unexpected (test_torture.py, line ") for line in lines)
    assert 0 < len(outcome.broken) < 12
    for seed in (seed for seed, line in outcome.broken.items() if line == "of several lines"):
        assert attempt(kind_of(trial), seed) == "of several lines", "a seed repeats its trial"
    assert f"| 12 | {len(outcome.broken)} |" in table([outcome])


def test_a_trial_is_in_an_empty_folder_which_goes(tmp_path):
    seen = []

    def trial(chance, folder):
        assert list(folder.iterdir()) == []
        assert Path.cwd().samefile(folder)
        (folder / "left").touch()
        seen.append(folder)

    assert attempt(kind_of(trial), 0) is None
    assert not seen[0].exists()


def test_a_broken_trial_gives_status_1(monkeypatch, capsys):
    def trial(chance, folder):
        raise Broken("lost")

    monkeypatch.setitem(KINDS, "made up", kind_of(trial))
    assert main(["--only", "made up", "--seed", "7"]) == 1
    assert "made up --seed 7: lost\n" in capsys.readouterr().out


def test_other_kinds_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "kill"])
    assert "there is no kind 'kill'" in capsys.readouterr().err


def storage(folder: Path, fault: str, at: int, chance) -> Storage:
    return Storage(folder, fault, at, chance, Path(tempfile.mkdtemp(dir=folder.parent)))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def chance():
    return Random(0)


@pytest.mark.parametrize("fault", ["full", "error", "read-only"])
def test_a_disk_fails_at_a_change(fault, folder, chance):
    made = storage(folder, fault, 3, chance)
    with made.watched():
        (folder / "one").write_bytes(b"1")  # opens, writes
        with pytest.raises(OSError, match=r"No space left|Input/output|Read-only"):
            (folder / "two").write_bytes(b"2")
        (folder.parent / "elsewhere").write_bytes(b"3")
        if fault == "error":
            (folder / "two").write_bytes(b"2")
        else:
            with pytest.raises(OSError, match=r"No space left|Read-only"):
                (folder / "two").write_bytes(b"2")
        if fault != "read-only":
            (folder / "one").unlink()
    assert (folder / "two").exists() == (fault == "error")
    (folder / "two").write_bytes(b"2")
    assert fault in FAULTS


def test_a_kill_leaves_what_came_before(folder, chance):
    def act() -> int:
        with storage(folder, "kill", 4, chance).watched():
            (folder / "one").write_bytes(b"1")
            (folder / "two").write_bytes(b"22")
        return 0

    assert status_of(forked(act)) == -signal.SIGKILL
    assert (folder / "one").read_bytes() == b"1"
    assert b"22".startswith((folder / "two").read_bytes())


@pytest.mark.parametrize("forced", [False, True])
def test_a_loss_of_power_takes_what_was_not_forced_to_disk(forced, folder):
    (folder / "old").write_bytes(b"old")

    def act(seed: int) -> int:
        with storage(folder, "power", 6 if forced else 4, Random(seed)).watched():
            with (folder / "new").open("wb") as file:
                file.write(b"new")
                if forced:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(folder / "new", folder / "old")
            if forced:
                descriptor = os.open(folder, os.O_RDONLY)
                os.fsync(descriptor)
            (folder / "later").touch()
        return 0

    found = set()
    for seed in range(12):
        assert status_of(forked(lambda seed=seed: act(seed))) == -signal.SIGKILL
        found.add((folder / "old").read_bytes())
        (folder / "old").write_bytes(b"old")
        (folder / "new").unlink(missing_ok=True)
    assert found == {b"new"} if forced else b"old" in found and found - {b"old", b"new"}


def test_the_torture_finds_a_write_that_is_not_atomic(monkeypatch):
    """Without this, trials that pass could be trials that see nothing."""
    monkeypatch.setattr(files, "replacing", lambda path: path.open("wb"))

    def trial(chance, folder):
        write = a_model_file(chance, folder)

        def act() -> int:
            with Storage(folder, "kill", 2, chance, Path(tempfile.mkdtemp(dir=folder.parent))).watched():
                return bool(write.act()) and 0

        assert status_of(forked(act)) == -signal.SIGKILL
        write.check()

    assert run(kind_of(trial), range(4), processes=1).broken


def test_mutations_differ_and_are_repeated(chance):
    value = {"a": [1, 2.5, {"b": "text"}], "c": None}
    texts = {text_of(mutated_json(value, Random(seed))) for seed in range(100)}
    assert len(texts) > 50
    assert texts == {text_of(mutated_json(value, Random(seed))) for seed in range(100)}
    assert value == {"a": [1, 2.5, {"b": "text"}], "c": None}
    with pytest.raises(RecursionError):
        json.loads(next(text for text in texts if "[[[[" in text))
