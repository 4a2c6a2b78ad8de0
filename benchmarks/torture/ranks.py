"""Kills of one of two ranks that torchrun has started: the other ends soon, nothing is lost, and the run goes on.

`python -m benchmarks.torture.ranks STRIKE COMMAND...` is `bnn COMMAND...` of a rank that a kill may await.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from benchmarks.torture.runs import difference, results
from benchmarks.torture.trials import Kind, one_line, require
from bnn.distributed import MODES
from bnn.training import Trainer, TrainingStep

ROOT = Path(__file__).parents[2]
TRAIN = [
    *("train", "digits", "--preset", "edge-min", "--epochs", "3", "--batch-size", "64", "--width", "32"),
    *("--hidden-layers", "1"),
]
# So long that an engine which pauses all processes for a while ends none of them.
_PATIENCE = ["--patience", "150"]
_LONGEST_S = 30.0
_LATEST_S = 0.03
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "training": (TrainingStep, "take", 60),
    "evaluation": (Trainer, "_evaluate", 4),
    "saving": (Trainer, "save", 3),
}
"""What a rank is killed in: a method, and how often a run calls it at least."""


def trial(chance: Random, folder: Path) -> None:
    """Kills a rank at a moment of a run, which then has to come to what it would have come to."""
    mode, moment = chance.choice(list(MODES)), chance.choice(list(MOMENTS))
    strike = {
        "rank": chance.randrange(2),
        "moment": moment,
        "call": chance.randint(1, MOMENTS[moment][2]),
        "after_s": chance.random() * _LATEST_S,
        "mark": str(folder / "killed"),
    }
    run = folder / "run"
    status, errors = _torchrun(strike, [*TRAIN, "--exchange", mode, "--out", str(run)])
    if Path(strike["mark"]).exists():
        require(status != 0, "the launcher does not say that a rank was killed")
        require("\nbnn: " in f"\n{errors}", f"the other rank says nothing: {one_line(errors[-400:])}")
        status, errors = _torchrun(None, ["train", "--resume", str(run)])
    if not (status and "is complete" in errors):
        require(status == 0, f"{moment}, {mode}: it does not go on: {one_line(errors[:450])}")
    differs = difference(results(run), whole(mode))
    require(not differs, f"killed in {moment} under {mode}, it ends with other {differs}")


@cache
def whole(mode: str) -> dict[str, Any]:
    """What a run of two ranks ends in when nothing happens."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        status, errors = _torchrun(None, [*TRAIN, "--exchange", mode, "--out", str(out)])
        require(status == 0, one_line(errors[:450]))
        return results(out)


def _whole_ones() -> None:
    with ThreadPoolExecutor() as threads:
        list(threads.map(whole, MODES))


def _torchrun(strike: dict[str, Any] | None, command: list[str]) -> tuple[int, str]:
    """Runs a command on two ranks; one that is struck ends all of it in time."""
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    program = ["--rdzv-endpoint", "127.0.0.1:0", "-m", __spec__.name, json.dumps(strike)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *launcher, *program, *command, *_PATIENCE],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        killed_for_s = 0.0
        while process.poll() is None:
            began = time.monotonic()
            time.sleep(0.05)
            if strike and Path(strike["mark"]).exists():
                killed_for_s += min(time.monotonic() - began, 0.5)  # what pauses all processes pauses this one
            if killed_for_s > _LONGEST_S:
                process.send_signal(signal.SIGTERM)
                require(False, f"it hangs when a rank is killed in {strike and strike['moment']}")
        errors.seek(0)
        return process.returncode, errors.read()


def _await(strike: dict[str, Any]) -> Any:
    """A patch: the call of a method that a kill awaits starts its clock."""
    owner, name, _ = MOMENTS[strike["moment"]]
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def kill() -> None:
        Path(strike["mark"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == strike["call"]:
            threading.Timer(strike["after_s"], kill).start()
        return method(*arguments, **options)

    return patch.object(owner, name, counted)


def main() -> int:
    """Is `bnn`, as torchrun starts it."""
    from bnn.__main__ import run
    from bnn.cli import main as program

    strike, command = json.loads(sys.argv[1]), sys.argv[2:]
    if strike is not None and os.environ["RANK"] == str(strike["rank"]):
        _await(strike).start()
    return run("bnn", lambda: program(command))


KINDS = (
    Kind(
        "ranks",
        "kills of one of two ranks in training, evaluation and saving, through torchrun",
        trial,
        short=0,
        long=20,
        before=_whole_ones,
        limit_s=1200.0,
    ),
)

if __name__ == "__main__":
    sys.exit(main())
