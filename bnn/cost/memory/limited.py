"""The least private memory in which steps are taken, while the system allows no more. Linux; one thread."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from bnn.cost.memory.measured import random_batch
from bnn.ops.memory import RESULTS
from bnn.training import TrainingStep

# Python collects what refers to itself every few steps, and holds most shortly before.
_LEAST_STEPS, _MOST_STEPS, _TRIED_S = 3, 20, 5.0  # of the processor's time
_TIGHTER = 0.98
# Python takes memory for its objects in pieces of 1 MiB, of which one process may need more than another.
_MARGIN_BYTES = 2 << 20
_UNREACHED_BYTES = 1 << 50
_STATUS = Path("/proc/self/status")
_PR_SET_PDEATHSIG = 1  # of prctl.h


def least_private_bytes(
    make: Callable[[], TrainingStep], *, input_shape: tuple[int, ...], batch_size: int
) -> float | None:
    """The private memory by which a process has to be able to grow from before a network is made, to take steps of it.

    With 5 % less, and with 4 MiB less where that is more, they could not be taken.

    Pages of files, such as the libraries' code, are not in it. What is tried are copies of this process, which has
    loaded what libraries load at first use, and computes on one thread (`torch.set_num_threads(1)`): others are not
    copied.

    Args:
        make: the step, on the CPU.
        input_shape: of one example.
        batch_size: examples.

    Returns:
        Bytes; None where the system has no such limit, as Linux has.

    Raises:
        MemoryError: the machine has too little for it.
    """
    if sys.platform != "linux":
        return None
    needed: float = _grown_bytes(make, input_shape, batch_size)
    while takes_steps_within(_TIGHTER * needed, make, input_shape=input_shape, batch_size=batch_size):
        needed *= _TIGHTER
    return needed + _MARGIN_BYTES


def takes_steps_within(
    limit_bytes: float, make: Callable[[], TrainingStep], *, input_shape: tuple[int, ...], batch_size: int
) -> bool:
    """Whether a copy of this process makes a network and takes some steps when it may grow by no more than so much."""

    def work() -> bool:
        limit_growth(limit_bytes)
        _take_steps(make(), input_shape, batch_size)
        return True

    return in_a_copy(work) is True


def limit_growth(most_bytes: float) -> None:
    """From now on, the private memory of this process that can be written to grows by no more than so much. Linux."""
    most = int(_status_bytes("VmData") + most_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _grown_bytes(make: Callable[[], TrainingStep], input_shape: tuple[int, ...], batch_size: int) -> int:
    """By how much the addresses of a copy of this process grow at most; the peak of a copy begins anew."""

    def work() -> int:
        # One that is not reached, for a limit is what tells `standard` to hold little; not all may raise a hard one.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        unreached = _UNREACHED_BYTES if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_DATA, (unreached, hard))
        before, held = _status_bytes("VmSize"), RESULTS.nbytes
        _take_steps(make(), input_shape, batch_size)
        return _status_bytes("VmPeak") - before + RESULTS.nbytes - held  # whose addresses are there from the beginning

    grown = in_a_copy(work)
    if not isinstance(grown, int):
        raise MemoryError("the step could not be taken: there is too little memory")
    return grown


def _take_steps(step: TrainingStep, input_shape: tuple[int, ...], batch_size: int) -> None:
    x, labels = random_batch(input_shape, batch_size)
    until = time.process_time() + _TRIED_S
    for number in range(_MOST_STEPS):
        if number >= _LEAST_STEPS and time.process_time() > until:
            break
        step.take(x, labels)


def in_a_copy(work: Callable[[], object], *, limit_s: float | None = None) -> object:
    """What a copy of this process comes to, which leaves no memory in this one; None where it fails or is ended.

    The copy ends with this process, after `limit_s` seconds at the latest, and at the first signal.
    """
    context, parent = get_context("fork"), os.getpid()
    receiving, sending = context.Pipe(duplex=False)

    def send() -> None:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        _end_with(parent)
        _give_back_memory()
        sending.send(work())

    process = context.Process(target=send)
    process.start()
    sending.close()
    try:
        return receiving.recv() if receiving.poll(limit_s) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _end_with(parent: int) -> None:
    """A copy that outlived its parent would hold the parent's locks; what the parent does at a signal is not for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _give_back_memory() -> None:
    """Gives back what the process has left over, which would serve the work and differs from process to process."""
    gc.collect()
    RESULTS.give_back()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
