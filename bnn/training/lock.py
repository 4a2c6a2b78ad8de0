"""The lock of a run's directory, so that one process at a time trains it.

The lock is the operating system's own (`flock`): it ends with its process, however that ends, so that nothing has to be
cleared away after a kill or a power cut. On a network file system it holds between machines as far as that system locks
files. Beside it lies the name of its holder, for whoever comes second.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bnn.errors import RunError
from bnn.training.directory import HOLDER, LOCK, read_json, write_json, writing


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock of a run's directory, which exists.

    Raises:
        RunError: another process holds it, or the directory cannot be written.
    """
    with _held(run):
        try:
            write_json(run / HOLDER, {"process": os.getpid(), "host": socket.gethostname()})
            yield
        finally:
            with suppress(OSError):
                (run / HOLDER).unlink(missing_ok=True)


def require_unlocked(run: Path) -> None:
    """Refuses a run that another process trains, before anything is loaded.

    Raises:
        RunError: as `locked`.
    """
    with _held(run):
        pass


@contextmanager
def _held(run: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(run / LOCK)
    with writing(run / LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{run} is already being trained by {_holder(run)}: wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def _holder(run: Path) -> str:
    try:
        holder = read_json(run / HOLDER)
    except RunError:  # it has only just begun
        return "another process"
    return f"process {holder.get('process')} on {holder.get('host')}"
