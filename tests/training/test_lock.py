"""One process at a time trains a run, and a lock ends with its process."""

import json
import os
import socket
import subprocess
import sys

import pytest

from bnn.errors import RunError
from bnn.training import Callback, Trainer
from bnn.training.lock import locked, require_unlocked
from tests.training.tiny_runs import EPOCHS, adam_run

HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_its_block(tmp_path):
    with locked(tmp_path):
        for enter in (locked(tmp_path).__enter__, lambda: require_unlocked(tmp_path)):
            with pytest.raises(RunError) as refused:
                enter()
            assert str(refused.value) == (
                f"{tmp_path} is already being trained by process {os.getpid()} on {socket.gethostname()}: wait for it,"
                " or stop it"
            )
    require_unlocked(tmp_path)
    with locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["lock"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="already being trained by another process: wait"):
            require_unlocked(tmp_path)
        (tmp_path / "lock.json").write_text(json.dumps({"process": process.pid, "host": "board"}))
        with pytest.raises(RunError, match=f"by process {process.pid} on board: wait"):
            require_unlocked(tmp_path)
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()


class Tries(Callback):
    """A second trainer of the same run, in the middle of the first one's work."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def on_epoch_begin(self, trainer: Trainer) -> None:
        before = {path: path.read_bytes() for path in trainer.out.rglob("*") if path.is_file()}
        second = Trainer(adam_run(), trainer.out)
        for start in (second.fit, second.resume):
            with pytest.raises(RunError) as refused:
                start()
            self.refused.append(str(refused.value))
        assert {path: path.read_bytes() for path in trainer.out.rglob("*") if path.is_file()} == before


def test_a_run_that_is_being_trained_is_left_alone(tmp_path):
    tries = Tries()
    Trainer(adam_run(), tmp_path / "run", callbacks=[tries]).fit()
    assert len(tries.refused) == 2 * EPOCHS
    assert all("is not empty" in text for text in tries.refused[::2])
    assert all("is already being trained by process" in text for text in tries.refused[1::2])


def test_two_that_begin_at_once_are_told_apart_by_the_lock(tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(RunError, match="already being trained by process"):
        Trainer(adam_run(), tmp_path / "run").fit()
    Trainer(adam_run(epochs=1), tmp_path / "run").fit()
