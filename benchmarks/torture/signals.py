"""Signals at any moment of a process's life: one line, the right exit status, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from benchmarks.torture.commands import answer
from benchmarks.torture.resume import SIGNALS
from benchmarks.torture.runs import difference, results
from benchmarks.torture.trials import Kind, forked, one_line, require, status_of
from benchmarks.torture.writes import DIGITS, trained
from bnn.__main__ import run
from bnn.cli import main

_ROOT = Path(__file__).parents[2]
# Before `run`, Python itself starts, and nothing of the package can handle a signal.
_PROGRAM = """
import sys
from bnn.__main__ import run

def program():
    print("started", flush=True)
    from bnn.cli import main
    return main()

sys.exit(run("bnn", program))
"""
_COMMAND = ["train", *DIGITS, "--out", "run"]


def trial(chance: Random, folder: Path) -> None:
    """Sends a signal to a training, which has just been started or has all of its modules already."""
    expected = results(trained())
    number = chance.choice(SIGNALS)
    status, errors = (_fresh if chance.random() < 0.3 else _forked)(number, chance)
    what = f"{number.name}: it leaves with {status} and says {one_line(errors)!r}"
    require(status in (0, 128 + number), what)
    lines = [line for line in errors.splitlines() if not line.startswith("bnn: warning: ")]
    require(len(lines) == (1 if status else 0), what)
    require(all(line.startswith("bnn: ") for line in lines), what)
    if status == 0:
        require(Path("run/summary.json").exists(), f"{what}, without a summary")
    elif Path("run/config.json").exists():
        found = answer(["train", "--resume", "run"])
        require(found.status == 0, f"{what}, and the run does not go on: {one_line(found.errors)}")
    else:
        require(answer(_COMMAND).status == 0, f"{what}, and the run cannot be started")
    differs = difference(results(Path("run")), expected)
    require(not differs, f"{what}; the run that went on differs in {differs}")


def _fresh(number: signal.Signals, chance: Random) -> tuple[int, str]:
    """A process from its start."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *_COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _send(process.pid, number, chance.uniform(0, 6))
        _, errors = process.communicate()
    return process.returncode, errors


def _forked(number: signal.Signals, chance: Random) -> tuple[int, str]:
    """A process that has imported everything already, so that most of its time is the training."""
    ready, go = os.pipe()

    def program() -> int:
        os.write(go, b"!")
        return main(_COMMAND)

    def act() -> int:
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
        return run("bnn", program)

    process = forked(act)
    os.read(ready, 1)
    for descriptor in (ready, go):
        os.close(descriptor)
    _send(process, number, chance.uniform(0, 1.5))
    return status_of(process), Path("errors").read_text()


def _send(process: int, number: signal.Signals, after_s: float) -> None:
    """Sends a signal when the process has computed for some seconds, so that other work beside does not matter."""
    while _computed_s(process) < after_s:
        time.sleep(0.005)
    os.kill(process, number)


def _computed_s(process: int) -> float:
    """CPU seconds of a child; endless once it has ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") if fields[0] != "Z" else float("inf")


KINDS = (
    Kind(
        "signals",
        "SIGINT, SIGTERM or SIGHUP to `bnn train` at a random moment, in three of ten from the first line of the"
        " package on; then it is resumed or started again",
        trial,
        short=1,
        before=trained,
        long=300,
    ),
)
