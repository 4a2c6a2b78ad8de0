"""Training as TensorBoard shows it."""

from typing import Any

from bnn.errors import RecipeError
from bnn.training import Callback, Trainer


class TensorBoard(Callback):
    """Writes the loss of each step and the metrics of each epoch to the run's directory.

    Raises:
        RecipeError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RecipeError("TensorBoard is not installed: pip install 'bnn-edge[tensorboard]'") from None
        self._make_writer = SummaryWriter

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Opens the log."""
        self._writer = self._make_writer(str(trainer.out / "tensorboard"), purge_step=trainer.step)

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Writes the loss."""
        self._writer.add_scalar("step/loss", loss, trainer.step)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Writes the metrics."""
        for name, value in record.items():
            self._writer.add_scalar(f"epoch/{name}", value, trainer.step)

    def on_exit(self, trainer: Trainer) -> None:
        """Closes the log."""
        self._writer.close()
