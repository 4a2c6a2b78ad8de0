"""`bnn train` as one of several processes that torchrun starts."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.arguments import require_choice
from bnn.errors import BnnError, RunError, UsageError

if TYPE_CHECKING:
    import torch

    from bnn.training import Run

_PREFIX, _LOCK = "bnn-rank-", "lock"
_YOUNG_S = 60.0


def is_first() -> bool:
    """Whether this process speaks for all, and keeps the run."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether torchrun, or another engine that speaks its language, has started several processes."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def add_exchange_options(parser: Any) -> None:
    """The options of several processes, for a parser or a group of its arguments."""
    parser.add_argument("--exchange", help="how processes share each batch: exact, count or vote; see docs/scale.md")
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds after which a process that does not answer is lost"
    )


def mode_of(given: str | None, *, kept: str | None = None) -> str | None:
    """The mode of the exchange: given, or that of the run, or `count` where there are several processes.

    Raises:
        UsageError: there is no such mode.
    """
    require_choice("exchange", given, ("exact", "count", "vote"))
    return given or kept or ("count" if is_one_of_several() else None)


def joined(run: Run, mode: str | None, patience_s: float, device: torch.device) -> Run:
    """The run, once all processes have made theirs, with the exchange between them.

    Raises:
        DistributedError: not all of them have come.
        UsageError: the patience is none.
    """
    from bnn.distributed import exchange_of, join

    if not patience_s > 0:
        raise UsageError(f"--patience is a number of seconds above 0, got {patience_s}")
    if mode is not None:
        run.exchange = exchange_of(mode, join(device=device, patience_s=patience_s))  # type: ignore[arg-type]
    return run


def remove_abandoned_directories() -> None:
    """Removes what ranks that were killed have left in the folder for temporary files: what no process holds."""
    from filelock import FileLock

    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another removes it, or it is another user's
            # One that has just been made may not be held yet.
            if (folder / _LOCK).is_file() and time.time() - folder.stat().st_mtime > _YOUNG_S:
                with FileLock(folder / _LOCK, timeout=0):
                    shutil.rmtree(folder)


@contextmanager
def own_directory(run: Path, *, resumes: bool = False) -> Iterator[Path]:
    """The directory in which this process trains: the run's, or of the other ranks one that is lost afterwards.

    Args:
        run: the run's directory.
        resumes: whether the run goes on, for which all ranks read its directory.
    """
    from filelock import FileLock

    from bnn.distributed import leave

    if is_first():
        try:
            yield run
        finally:
            leave()
        return
    remove_abandoned_directories()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, FileLock(Path(folder) / _LOCK):
        own = Path(folder) / run.name
        try:
            if resumes:
                shutil.copytree(run, own)
            yield own
        except BnnError as error:
            error.args = tuple(str(text).replace(str(own), str(run)) for text in error.args)
            raise
        except OSError as error:
            raise RunError(f"this rank cannot read {run}, which all ranks resume from: {error}") from None
        finally:
            leave()
