"""Callbacks that add to a run's summary what it cost."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn.cost.count import count_network
from bnn.cost.energy.ledger import Ledger, PriceTable
from bnn.cost.energy.prices import PRICE_TABLES
from bnn.cost.energy.step import count_step
from bnn.cost.memory.resident import peak_device_bytes, peak_rss_bytes
from bnn.cost.storage import storage
from bnn.errors import RunError
from bnn.training import Callback, Trainer, directory
from bnn.training.checks import require_numbers

LEDGER = "ledger.json"
"""The file of a run's directory that holds what its training did."""
_MIB = 2**20


class StorageMeter(Callback):
    """Adds `weights`, `bits_per_weight` and `other_parameters`: see `Storage`."""

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Counts."""
        stored = storage(trainer.run.model)
        summary["weights"] = stored.weights
        summary["bits_per_weight"] = stored.bits_per_weight
        summary["other_parameters"] = stored.other_parameters


class SpeedMeter(Callback):
    """Adds `images_per_s`, images trained on a second of the epoch's steps, and in the summary of all of them.

    Evaluation, checkpoints at the end of an epoch and what lies between two parts of a run are not in it.
    """

    def __init__(self) -> None:
        self._images, self._wall_s = 0, 0.0

    def state(self) -> dict[str, Any]:
        """The images and seconds of the epochs that are done."""
        return {"images": self._images, "wall_s": self._wall_s}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses what are no numbers of images and seconds."""
        if state:
            require_numbers(state["images"], state["wall_s"])

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes those of the run's earlier parts."""
        if state:
            self._images, self._wall_s = state["images"], state["wall_s"]

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Starts the clock."""
        self._epoch_images, self._started_at = 0, time.monotonic()
        self._stepped_at = self._started_at

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Counts a batch."""
        self._epoch_images += trainer.run.batch_size
        self._stepped_at = time.monotonic()

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Adds the epoch's speed."""
        wall_s = self._stepped_at - self._started_at
        record["images_per_s"] = self._epoch_images / wall_s if wall_s else None
        self._images, self._wall_s = self._images + self._epoch_images, self._wall_s + wall_s

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the speed of all epochs."""
        summary["images_per_s"] = self._images / self._wall_s if self._wall_s else None


class ExchangeMeter(Callback):
    """Adds `exchange`, `ranks` and `sent_bytes_a_step`, what a rank sends in a step, where several train together.

    Bytes are counted as `bnn.distributed.Ranks` says, and are those of all steps since the run began.
    """

    def __init__(self) -> None:
        self._sent = self._steps = 0

    def state(self) -> dict[str, Any]:
        """The bytes and steps up to now."""
        return {"sent": self._sent, "steps": self._steps}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses what are no numbers of bytes and steps."""
        if state:
            require_numbers(state["sent"], state["steps"])

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes those of the run's earlier parts."""
        if state:
            self._sent, self._steps = state["sent"], state["steps"]

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """What evaluation has sent is not counted."""
        if trainer.run.exchange is not None:
            self._sent_before, self._step_before = trainer.run.exchange.ranks.sent_bytes, trainer.step

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Counts the bytes of a step."""
        if trainer.run.exchange is not None:
            sent = trainer.run.exchange.ranks.sent_bytes
            self._sent += sent - self._sent_before
            self._steps += trainer.step - self._step_before
            self._sent_before, self._step_before = sent, trainer.step

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the mean."""
        exchange = trainer.run.exchange
        if exchange is not None:
            summary["exchange"], summary["ranks"] = exchange.mode, exchange.ranks.size
            summary["sent_bytes_a_step"] = round(self._sent / self._steps) if self._steps else None


class MemoryMeter(Callback):
    """Adds `peak_rss_mib`, the measured peak resident memory of the process, and on CUDA `peak_device_mib`.

    Of a run that was interrupted, the largest of its parts.
    """

    def __init__(self) -> None:
        self._peaks: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """The peaks up to now."""
        return self._peaks

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses peaks that are no numbers."""
        require_numbers(*state.values())

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
    """Counts what training did, keeps the counts in the run's directory, and adds what they cost under price tables.

    Adds `energy_j`, an estimate for the run's training steps under the first table, the name of this `price_table`,
    `energy_by_table_j`, and `uncounted`, the modules and operations whose arithmetic is not known. Evaluation is not
    counted. Of a model that cannot run on shapes alone `energy_j` is null.

    Args:
        prices: at least one table.
    """

    def __init__(self, *, prices: Sequence[PriceTable] = PRICE_TABLES) -> None:
        self.prices = prices

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Counts a step, now that the optimizer has its state, and prices all that were taken."""
        summary["energy_j"] = None
        summary["price_table"] = self.prices[0].name
        try:
            step, uncounted = count_run(trainer)
        except Exception:  # a user's module may raise anything; an estimate must not cost a run its result
            return
        steps = steps_taken(trainer)
        write_ledger(trainer.out, step, steps=steps)
        ledger = step.scaled(steps)
        summary["energy_by_table_j"] = {table.name: ledger.energy_J(table) for table in self.prices}
        summary["energy_j"] = summary["energy_by_table_j"][self.prices[0].name]
        summary["uncounted"] = list(uncounted)


def write_ledger(run: Path, step: Ledger, *, steps: int) -> None:
    """Keeps the counts of a run's training.

    Args:
        run: its directory.
        step: the counts of one step.
        steps: how many were taken.
    """
    directory.write_json(run / LEDGER, {"steps": steps, "step": step.to_rows()})


def read_ledger(run: Path) -> Ledger | None:
    """The counts of a run's whole training, or None where there are none.

    Raises:
        RunError: the file is damaged.
    """
    path = run / LEDGER
    if not path.exists():
        return None
    content = directory.read_json(path)
    try:
        return Ledger.from_rows(content["step"]).scaled(int(content["steps"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): delete it to go without its figures") from None


def steps_taken(trainer: Trainer) -> int:
    """Training steps that changed the network."""
    return trainer.step - trainer.skipped


def count_run(trainer: Trainer) -> tuple[Ledger, tuple[str, ...]]:
    """The counts of a step, and what is not in them."""
    run, batch_size = trainer.run, trainer.batches.batch_size
    # A parameter that is stepped inside backward has been stepped once a slice.
    taken = {weight: int(state["step"]) for weight, state in run.optimizer.state.items() if "step" in state}
    ledger = count_step(
        run.model,
        run.optimizer,
        run.data.image_shape,
        batch_size=batch_size,
        slices=run.slice_count(batch_size),
        updates={weight: max(1, round(count / max(1, steps_taken(trainer)))) for weight, count in taken.items()},
    )
    return ledger, count_network(run.model, run.data.image_shape).uncounted
