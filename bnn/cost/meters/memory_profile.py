"""`MemoryProfile`: the memory of the process over the time of a training."""

import csv
import io
from pathlib import Path
from threading import Event, Thread
from typing import Any

from bnn.cost.memory.resident import rss_bytes
from bnn.errors import RunError
from bnn.training import Callback, Trainer, directory

MEMORY_PROFILE = "memory.csv"
"""The file of a run's directory: `wall_s`, seconds of training, and `rss_mib`, resident memory of the process."""
_HEAD = ("wall_s", "rss_mib")
_FIRST_INTERVAL_S = 0.05
_MOST_SAMPLES = 2000
_MIB = 2**20

Samples = list[tuple[float, float]]
"""Seconds of training with MiB."""


class MemoryProfile(Callback):
    """Samples the resident memory of the process, and writes it to the run's directory at each epoch and at the end.

    A thread reads it every 0.05 s. When there are more than 2,000 samples, of each two the larger is kept and the
    interval doubled, so that the file stays small and a peak that was seen stays in it. One between two samples is not
    seen; the summary's `peak_rss_mib`, which the system keeps, has it. A run that goes on adds to its file.

    Raises:
        RunError: the system does not tell; Linux does.
    """

    def __init__(self) -> None:
        try:
            rss_bytes()
        except OSError:
            raise RunError("this system does not tell a process's memory: leave out --profile-memory") from None
        self._samples: Samples = []
        self._interval_s = _FIRST_INTERVAL_S
        self._done = Event()
        self._thread: Thread | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Starts to sample, behind what an earlier part of the run has left."""
        begun_s = trainer.wall_s
        self._samples = [sample for sample in read_memory_profile(trainer.out) if sample[0] < begun_s]
        self._done.clear()
        self._thread = Thread(target=self._sample, args=(trainer,), daemon=True)
        self._thread.start()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Writes what there is."""
        self._write(trainer.out)

    def on_exit(self, trainer: Trainer) -> None:
        """Ends, and writes all."""
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
            self._write(trainer.out)

    def _sample(self, trainer: Trainer) -> None:
        self._take(trainer.wall_s)
        while not self._done.wait(self._interval_s):
            self._take(trainer.wall_s)
        self._take(trainer.wall_s)

    def _take(self, wall_s: float) -> None:
        # Another list, never this one changed: the training reads it meanwhile.
        samples = [*self._samples, (wall_s, rss_bytes() / _MIB)]
        if len(samples) > _MOST_SAMPLES:
            samples = [max(samples[i : i + 2], key=lambda sample: sample[1]) for i in range(0, len(samples), 2)]
            self._interval_s *= 2
        self._samples = samples

    def _write(self, run: Path) -> None:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_HEAD)
        rows.writerows((f"{wall_s:.3f}", f"{rss_mib:.2f}") for wall_s, rss_mib in self._samples)
        directory.replace_file(run / MEMORY_PROFILE, text.getvalue())


def read_memory_profile(run: Path) -> Samples:
    """The samples of a run; none where it was not profiled.

    Raises:
        RunError: the file is damaged.
    """
    path = run / MEMORY_PROFILE
    if not path.exists():
        return []
    try:
        head, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(head) != _HEAD:
            raise ValueError(f"its columns are not {' and '.join(_HEAD)}")
        return [(float(wall_s), float(rss_mib)) for wall_s, rss_mib in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}): delete it to go without its figure") from None
