"""Trials: what a kind of them is, and how they are run so that no trial can hang or take down the others."""

import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

# Its children begin with all that is imported, as processes of a second each could not.
_PROCESSES = get_context("fork")
_GIB = 2**30
_SCRATCH: list[tempfile.TemporaryDirectory[str]] = []


class Broken(Exception):
    """A promise that a trial found broken; the message is one line."""


@dataclass(frozen=True)
class Kind:
    """A kind of trial."""

    name: str
    tried: str
    """What a trial does, for the table."""
    trial: Callable[[Random, Path], None]
    """Takes the random numbers of its seed and an empty folder, which is the current one; raises `Broken`."""
    short: int
    """Trials of the short form."""
    long: int
    """Trials of the long form."""
    before: Callable[[], object] = lambda: None
    """Makes what all the trials share; called once, ahead of them."""
    limit_s: float = 60.0
    """What a trial may take, by the clock; one that takes longer hangs."""


@dataclass
class Outcome:
    """What the trials of a kind came to."""

    kind: Kind
    trials: int = 0
    cpu_s: float = 0.0
    """Of all trials together, in their processes."""
    slowest_s: float = 0.0
    broken: dict[int, str] = field(default_factory=dict)
    """The line of each seed that broke."""

    def add(self, seed: int, line: str | None, cpu_s: float) -> None:
        """Counts a trial; `line` is what broke, which is printed, or None."""
        self.trials += 1
        self.cpu_s += cpu_s
        self.slowest_s = max(self.slowest_s, cpu_s)
        if line is not None:
            self.broken[seed] = line
            print(f"{self.kind.name} --seed {seed}: {line}", flush=True)


@cache
def scratch() -> str:
    """A folder that goes with this process."""
    _SCRATCH.append(tempfile.TemporaryDirectory(prefix="torture-"))
    return _SCRATCH[0].name


def require(condition: object, line: str) -> None:
    """Breaks the trial unless the condition holds."""
    if not condition:
        raise Broken(line)


def require_one_line(error: Exception) -> None:
    """Breaks the trial where an error has several lines, or a very long one."""
    text = str(error).strip()
    require("\n" not in text and len(text) < 20_000, f"an error of {text.count(chr(10)) + 1} lines: {text}")


def attempt(kind: Kind, seed: int) -> str | None:
    """Runs one trial in this process and in a folder of its own. Gives what broke as one line, or None."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        os.chdir(folder)
        try:
            kind.trial(Random(f"{kind.name} {seed}"), Path(folder))
        except Broken as broken:
            return one_line(str(broken))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}"
            return one_line(f"{what} ({Path(place.filename).name}, line {place.lineno})")
        finally:
            os.chdir(here)
    return None


def one_line(text: str) -> str:
    """A text without line breaks, cut where it is long."""
    return " ".join(text.split())[:500]


@dataclass
class _Worker:
    """A process with trials of a kind, and what it has left to do."""

    kind: Kind
    seeds: list[int]
    process: Any
    connection: Connection
    waited_s: float = 0.0
    """For the trial that it is at."""

    def receive(self, outcome: Outcome) -> bool:
        """Takes what it has come to. Gives False where it has died."""
        try:
            while self.seeds and self.connection.poll():
                line, cpu_s = self.connection.recv()
                outcome.add(self.seeds.pop(0), line, cpu_s)
                self.waited_s = 0.0
        except EOFError:
            return False
        return True

    def end(self) -> None:
        """Ends it with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


def run(kind: Kind, seeds: Sequence[int], *, processes: int) -> Outcome:
    """Runs trials in some processes; what a process that dies or hangs has left goes on in another."""
    kind.before()
    outcome = Outcome(kind)
    parts = [list(seeds[place::processes]) for place in range(processes)]
    workers = [_started(kind, part) for part in parts if part]
    try:
        while workers:
            began = time.monotonic()
            wait([worker.connection for worker in workers], timeout=0.5)
            # Whoever stops all processes for a while stops this one, too.
            waited_s = min(time.monotonic() - began, 1.0)
            for worker in list(workers):
                worker.waited_s += waited_s
                died, late = not worker.receive(outcome), worker.waited_s > kind.limit_s
                if worker.seeds and (died or late):
                    worker.end()
                    line = f"took more than {kind.limit_s:.0f} s" if late else _death(worker.process.exitcode)
                    outcome.add(worker.seeds.pop(0), line, 0.0)
                    workers += [_started(kind, worker.seeds)] if worker.seeds else []
                elif worker.seeds:
                    continue
                worker.process.join()
                workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()
    return outcome


def _death(status: int | None) -> str:
    return f"the process died of signal {-status}" if status and status < 0 else f"the process left with {status}"


def _started(kind: Kind, seeds: list[int]) -> _Worker:
    receiving, sending = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_work, args=(kind, seeds, sending))
    process.start()
    sending.close()
    return _Worker(kind, list(seeds), process, receiving)


def _work(kind: Kind, seeds: list[int], connection: Connection) -> None:
    os.setpgid(0, 0)
    tempfile.tempdir = scratch()
    # So that a trial that takes memory without bound breaks, and not the machine.
    resource.setrlimit(resource.RLIMIT_DATA, (8 * _GIB, 8 * _GIB))
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    with open(1, "w", closefd=False) as out, open(2, "w", buffering=1, closefd=False) as errors:
        sys.stdout, sys.stderr = out, errors
        warnings.simplefilter("default")  # a test runner may have made them errors
        for seed in seeds:
            began = _cpu_s()
            line = attempt(kind, seed)
            connection.send((line, _cpu_s() - began))


def _cpu_s() -> float:
    """What this process and those that it has waited for have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Takes what is printed; gives what goes to the standard error."""
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        yield errors


def forked(action: Callable[[], int]) -> int:
    """Starts a copy of this process that does something and leaves with the status that it gives, as a program would.

    Returns:
        The process's number; `status_of` waits for it.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        status = action()
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def status_of(process: int) -> int:
    """Waits for a process: its status, or -n where it died of signal n."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(action: Callable[[], object], *, after_s: float) -> int:
    """Does something in a copy of this process, which is killed after some seconds. Gives its status."""
    process = forked(lambda: bool(action()) and 0)
    until = time.monotonic() + after_s
    while time.monotonic() < until and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return status_of(process)
