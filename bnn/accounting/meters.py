"""Callbacks that add to a run's summary what it cost."""

from typing import Any

from bnn.accounting.count import count_step
from bnn.accounting.ledger import PriceTable
from bnn.accounting.memory import peak_device_bytes, peak_rss_bytes
from bnn.accounting.prices import HOROWITZ_45NM
from bnn.accounting.storage import storage
from bnn.training import Callback, Trainer

_MIB = 2**20


class StorageMeter(Callback):
    """Adds `weights`, `bits_per_weight` and `other_parameters`: see `Storage`."""

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Counts."""
        stored = storage(trainer.run.model)
        summary["weights"] = stored.weights
        summary["bits_per_weight"] = stored.bits_per_weight
        summary["other_parameters"] = stored.other_parameters


class MemoryMeter(Callback):
    """Adds `peak_rss_mib`, the measured peak resident memory of the process, and on CUDA `peak_device_mib`.

    Of a run that was interrupted, the largest of its parts.
    """

    def __init__(self) -> None:
        self._peaks: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """The peaks up to now."""
        return self._peaks

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes the peaks of the run's earlier parts."""
        self._peaks = dict(state)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Reads the peaks, so that the checkpoint that follows has them."""
        self._read(trainer)

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the peaks."""
        self._read(trainer)
        summary.update(self._peaks)

    def _read(self, trainer: Trainer) -> None:
        device_bytes = peak_device_bytes(trainer.device)
        now = {"peak_rss_mib": peak_rss_bytes() / _MIB}
        if device_bytes is not None:
            now["peak_device_mib"] = device_bytes / _MIB
        self._peaks = {name: max(value, self._peaks.get(name, 0.0)) for name, value in now.items()}


class EnergyMeter(Callback):
    """Adds `energy_j`, an estimate for the run's training steps, and the name of its `price_table`.

    Evaluation is not counted. Of a model that cannot run on shapes alone `energy_j` is null.
    """

    def __init__(self, *, prices: PriceTable = HOROWITZ_45NM) -> None:
        self.prices = prices

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Counts a step, now that the optimizer has its state, and prices all that were taken."""
        run, steps = trainer.run, trainer.step - trainer.skipped
        summary["price_table"] = self.prices.name
        try:
            ledger = count_step(run.model, run.optimizer, run.data.image_shape, batch_size=trainer.batches.batch_size)
        except Exception:  # a user's module may raise anything; an estimate must not cost a run its result
            summary["energy_j"] = None
        else:
            summary["energy_j"] = ledger.scaled(steps).energy_J(self.prices)
