"""Signals and a full disk: what a training loses, which is nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.cli.command_line import BNN, assert_one_line, recipe, results

SLOW = """
import os
import resource
import time

from bnn.models import initialize, mlp


class Outside(Callback):
    # What happens around the process, told by its environment so that the configuration is the same without it.
    def on_step_end(self, trainer, loss):
        time.sleep(float(os.environ.get("PAUSE_S", "0")))

    def on_epoch_begin(self, trainer):
        if trainer.epoch == 2 and "DISK_BYTES" in os.environ:
            limit = int(os.environ["DISK_BYTES"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def recipe():
    model = mlp(input_shape=(1, 8, 8), hidden=(16,))
    initialize(model, generator=torch.Generator().manual_seed(0))
    return Run(model=model, data=digits(), optimizer=torch.optim.Adam(model.parameters(), lr=0.01), epochs=4,
               batch_size=128, seed=0, callbacks=[Outside()])
"""


@pytest.fixture
def slow(bnn) -> str:
    """A recipe, and the results of its whole run in `whole`."""
    path = recipe(SLOW)
    assert bnn("train", path, "--out", "whole")[0] == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_process_with_its_state_kept(number, code, slow, bnn, monkeypatch):
    monkeypatch.setenv("PAUSE_S", "0.1")
    process = subprocess.Popen(
        [*BNN, "train", slow, "--out", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not process.stdout.readline().startswith("epoch 1/4"):
        pass
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 10
    again = ("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert_one_line((process.returncode, "", errors), "interrupted", f"`bnn {' '.join(again)}`", code=code)
    assert not Path("run/summary.json").exists()
    monkeypatch.delenv("PAUSE_S")
    assert bnn(*again)[0] == 0
    assert results("run") == results("whole")


@pytest.mark.parametrize(
    ("disk_bytes", "message"),
    [
        pytest.param(2000, "cannot save the checkpoint", marks=pytest.mark.slow),
        pytest.param(10, "run/metrics.jsonl cannot be written", marks=pytest.mark.slow),
    ],
)
def test_full_disk_is_one_line_and_the_run_goes_on_later(disk_bytes, message, slow, bnn, monkeypatch):
    monkeypatch.setenv("DISK_BYTES", str(disk_bytes))
    ran = subprocess.run([*BNN, "train", slow, "--out", "run"], capture_output=True, text=True)
    assert_one_line((ran.returncode, ran.stdout, ran.stderr), message)
    monkeypatch.delenv("DISK_BYTES")
    assert "after 2 of 2 epochs" in bnn("eval", "run", "--recipe", "run/recipe.py")[1]
    code, _, errors = bnn("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    assert results("run") == results("whole")


# Before `run`, Python itself starts, and nothing of the package can handle a signal.
STARTED = (
    sys.executable,
    "-c",
    """
import sys
from bnn.__main__ import run

def program():
    print("started", flush=True)
    from bnn.cli import main
    return main()

sys.exit(run("bnn", program))
""",
)
# What a run takes from there to its end, at least on a busy machine.
WALL_S = 4.0


def ends_well(number: signal.Signals, delay_s: float, folder: str) -> None:
    """Sends a signal so many seconds after the process has started: the run ends, and goes on, or is complete."""
    process = subprocess.Popen(
        [*STARTED, "train", "mine.py", "--out", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(delay_s)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        assert errors == ""
        assert Path(folder, "summary.json").exists()
    else:
        assert_one_line((process.returncode, "", errors), "interrupted", code=128 + number)
        assert not list(Path(folder).rglob(".*")), "nothing is half written"


def goes_on(folder: str, bnn) -> None:
    """A run that has begun loses nothing; one that has not leaves no folder behind."""
    if not Path(folder).exists():
        return
    if not Path(folder, "summary.json").exists():
        assert bnn("train", "--resume", folder, "--recipe", f"{folder}/recipe.py")[0] == 0
    assert results(folder) == results("whole")


def moments(count: int, seed: int) -> list[tuple[signal.Signals, float]]:
    random = Random(seed)
    return [(random.choice((signal.SIGINT, signal.SIGTERM)), random.uniform(0, WALL_S)) for _ in range(count)]


@pytest.mark.parametrize(("number", "delay_s"), [(signal.SIGINT, 0.0), *moments(2, seed=0)])
def test_a_signal_at_any_moment_is_one_line(number, delay_s, slow, bnn):
    ends_well(number, delay_s, "run")
    goes_on("run", bnn)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_signals_at_many_moments_are_one_line(seed, slow, bnn):
    for count, (number, delay_s) in enumerate(moments(30, seed)):
        ends_well(number, delay_s, f"run-{count}")
        goes_on(f"run-{count}", bnn)


def test_a_signal_that_a_destructor_swallows_ends_the_process_all_the_same(in_an_empty_folder):
    program = """
import os, signal, sys
from bnn.__main__ import run

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def program():
    del Swallows.used
    return 0

Swallows.used = Swallows()
sys.exit(run("bnn", program))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert_one_line((ran.returncode, ran.stdout, ran.stderr), "interrupted", code=143)


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c(in_an_empty_folder):
    program = """
import os, signal, sys
from bnn.__main__ import run

signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(run("bnn", lambda: os.kill(os.getpid(), signal.SIGINT) or 0))
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).returncode == 0
