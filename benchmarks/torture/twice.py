"""Two processes on one run: one trains, the other says so, and the results are those of one."""

import os
import time
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.torture.runs import RUNS, Pause, difference, results, whole
from benchmarks.torture.trials import Kind, forked, killed, one_line, require, status_of
from bnn.errors import AlreadyComplete, BnnError, RunError
from bnn.training import Trainer

_NAMES = ("adam", "recu", "edge, perceptron", "edge-min, convolutions")


def _trainer(name: str, out: Path, pause_s: float = 0.0) -> Trainer:
    return Trainer(RUNS[name](), out, callbacks=[Pause(pause_s)], checkpoint_every_s=0.0)


def trial(chance: Random, folder: Path) -> None:
    """Starts or resumes a run in two or three processes at nearly the same time."""
    name, out = chance.choice(_NAMES), folder / "run"
    expected = whole(name)
    if chance.random() < 0.7:
        killed(lambda: _trainer(name, out, 0.01).fit(), after_s=chance.uniform(0.05, 0.4))
    makes = [partial(_trainer, name, out, chance.uniform(0, 0.02)) for _ in range(chance.choice([2, 2, 3]))]
    processes = []
    for number, make in enumerate(makes):
        processes.append(forked(partial(_train, make, folder / f"said-{number}")))
        time.sleep(chance.uniform(0, 0.05))
    statuses = list(map(status_of, processes))
    said = [one_line(path.read_text()) for path in sorted(folder.glob("said-*"))]
    require(set(statuses) <= {0, 1}, f"the processes left with {statuses}: {said}")
    there = sorted(os.listdir(out))
    require(0 in statuses, f"no process trained: {said}; there are {there}")
    differs = difference(results(out), expected)
    require(not differs, f"{name}: what {len(processes)} processes made differs in {differs}: {statuses}, {said}")


def _train(make: partial[Trainer], said: Path) -> int:
    """Resumes, or starts where there is nothing to resume: 0 where it ends well, 1 for an error of one line, else 2."""
    try:
        try:
            make().resume()
        except AlreadyComplete:
            return 0
        except RunError as error:
            if "is missing" not in str(error):
                raise
            make().fit()
    except BnnError as error:
        said.write_text(str(error))
        return 1
    except BaseException as error:
        said.write_text(f"{type(error).__name__}: {error}")
        return 2
    return 0


KINDS = (Kind("twice", "two or three processes that start or resume one run at once", trial, short=2, long=200),)
