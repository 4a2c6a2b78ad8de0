"""The log of a run: what a terminal shows of its training, kept in its directory."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from bnn.files import open_to_append
from bnn.reports.progress import epoch_line
from bnn.reports.start import start_line
from bnn.training import Callback, Trainer

LOG = "log.txt"


class RunLog(Callback):
    """Adds lines to `log.txt`, each with its time. A log that cannot be written costs no training."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Says what is trained, and from which step on."""
        self._path = trainer.out / LOG
        self.write(f"{start_line(trainer)}; from step {trainer.step}")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Adds the epoch's line."""
        self.write(epoch_line(record, trainer.run.epochs))

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Says how it ended."""
        self.write(f"complete: test accuracy {100 * summary['test_accuracy']:.2f} %")

    def write(self, text: str) -> None:
        """Adds a line; none before the training has begun, when the directory may be another's."""
        if self._path is not None:
            with suppress(OSError), open_to_append(self._path) as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(text.split())}\n")
