"""Training as it is seen in a terminal."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from bnn.training import Callback, Trainer


class ProgressBar(Callback):
    """A bar over all steps of the run, and a line for each epoch.

    Where the output is not a terminal there are only the lines.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Shows the bar."""
        total = trainer.run.epochs * len(trainer.batches)
        self._task = self._progress.add_task("training", total=total, completed=trainer.step, speed="")
        self._progress.start()

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Moves the bar."""
        steps_per_s = self._progress.tasks[0].speed
        self._progress.update(
            self._task,
            completed=trainer.step,
            speed=f"{steps_per_s * trainer.run.batch_size:,.0f} examples/s" if steps_per_s else "",
            description=f"epoch {trainer.epoch + 1}/{trainer.run.epochs}  loss {loss:.3f}",
        )

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Prints a line."""
        self.console.print(Text(epoch_line(record, trainer.run.epochs)), soft_wrap=True)

    def on_exit(self, trainer: Trainer) -> None:
        """Takes the bar away."""
        self._progress.stop()


def epoch_line(record: dict[str, Any], epochs: int) -> str:
    """An epoch in a line.

    Args:
        record: its line of metrics.
        epochs: how many there are.
    """
    line = (
        f"epoch {record['epoch'] + 1:{len(str(epochs))}}/{epochs}  loss {record['train_loss']:.4f}"
        f"  training {100 * record['train_accuracy']:6.2f} %"
    )
    if "validation_accuracy" in record:
        line += f"  validation {100 * record['validation_accuracy']:6.2f} %"
    if record.get("images_per_s"):
        line += f"  {record['images_per_s']:,.0f} examples/s"
    if record["skipped"]:
        line += f"  skipped steps {record['skipped']}"
    return line
