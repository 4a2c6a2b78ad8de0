"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from bnn.codec import described, save
from bnn.data import Batches, Split, hold_out
from bnn.distributed import Ranks
from bnn.errors import AlreadyComplete, BnnError, CheckpointError, Interrupted, NonFiniteError, TrainingStopped
from bnn.training import directory
from bnn.training.callback import Callback
from bnn.training.changes import check_data, noting_changes
from bnn.training.checks import check_progress
from bnn.training.figures import Figures
from bnn.training.interruption import Interruption
from bnn.training.kept import KeptStates
from bnn.training.lock import locked
from bnn.training.machine import machine
from bnn.training.run import Run
from bnn.training.shared import check_alike, own_batches, own_rows, sums_of_batches
from bnn.training.snapshot import capture, restore
from bnn.training.step import count_correct, model_errors

_SKIPS_TO_STOP = 3
_PROGRESS = ("epoch", "batch", "skipped")  # of a training, in its checkpoints
_EVALUATION_BATCH = 250


class Trainer:
    """Trains a run in a directory that holds its metrics, checkpoints and, at the end, its summary.

    A run that was interrupted, at whatever step, goes on bit for bit as if it had not been. The test split is
    touched once, after the last epoch; nothing is selected on it. One process at a time trains a run.

    Args:
        run: what to train.
        out: the run's directory; empty or not there yet for a new run.
        device: where to train: `cpu`, `cuda`, `mps`.
        callbacks: called after the run's own.
        checkpoint_every_s: seconds between checkpoints within an epoch; the end of an epoch always makes one.

    Attributes:
        epoch: epochs completed.
        batch: batches of the current epoch that are done.
        step: batches done since the start; skipped ones count.
        skipped: steps skipped for a loss or gradient that was not finite.
        batches: the training batches.
        validation_batches: those of the validation split; None for none.
        configuration: JSON values that the directory is to keep besides, such as how the run was started.
        recipe: content of the recipe's file, of which the directory is to keep a copy; None for none.
    """

    def __init__(
        self,
        run: Run,
        out: Path,
        *,
        device: torch.device | str = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint_every_s: float = 300.0,
    ) -> None:
        self.run = run
        self.out = out
        self._kept = KeptStates(out, run.model)
        self.device = torch.device(device)
        self.callbacks = [*run.callbacks, *callbacks]
        self.checkpoint_every_s = checkpoint_every_s
        self.configuration: dict[str, Any] = {}
        self.recipe: bytes | None = None
        self.epoch = self.batch = self.step = self.skipped = 0
        self._skips_in_a_row = 0
        self._figures = Figures()
        self._wall_s = 0.0
        self._started_at = self._saved_at = time.monotonic()

        run.model.to(self.device)
        train, validation = hold_out(run.data.train, fraction=run.validation, seed=run.seed)
        self.batches = self._batches(train, shuffle=True)
        self.validation_batches = self._batches(validation) if len(validation) else None
        self._base_rates = [float(group["lr"]) for group in run.optimizer.param_groups]
        self._interruption = Interruption()
        self._generators = {"torch": torch.default_generator, **run.generators}
        if self.device.type == "cuda":
            self._generators["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]

    def fit(self) -> dict[str, Any]:
        """Trains from the start to the end, then tests.

        Returns:
            The summary, as in `summary.json`.

        Raises:
            RunError: the directory is not empty, cannot be written, or another process trains in it.
            DistributedError: the ranks that train together are not alike, or one of them is lost.
            TrainingStopped: three steps in a row, an evaluation or the state were not finite.
            Interrupted: a signal came; the state is saved.
            CheckpointError: a checkpoint cannot be written.
            RecipeError: model, loss and data do not fit each other, or a batch does not fit into memory.
        """
        with self._interruption:
            check_alike(self)
            directory.create(self.out)
            with locked(self.out):
                directory.create(self.out)  # another process may have been here in between
                return self._begin(self.configuration)

    def resume(self, *, allow_changes: bool = False) -> dict[str, Any]:
        """Goes on from the newest checkpoint in the directory, to the run's last epoch; as `fit` otherwise.

        The run may have more epochs than it began with: its schedule is then that of the new number. One that has no
        checkpoint yet begins.

        Args:
            allow_changes: whether to go on with another release, torch, number of threads or instruction set, though
                results then differ from those of a run that was not interrupted.

        Raises:
            AlreadyComplete: there is nothing left to do.
        """
        configuration = directory.read_configuration(self.out)
        with self._interruption, locked(self.out):
            if not directory.has_begun(self.out):
                check_alike(self)
                return self._begin({**configuration, **self.configuration})
            self.load()
            check_alike(self)
            check_data(configuration.get("data"), self.run.data.described(), self.out)
            if self.epoch == self.run.epochs and (self.out / directory.SUMMARY).exists():
                done = f"all of its {self.epoch} epochs are done; --epochs takes more"
                raise AlreadyComplete(f"{self.out} is complete: {done}")
            merged = {**configuration, **self.configuration}
            self.configuration = noting_changes(merged, self.out, step=self.step, allowed=allow_changes)
            self._write_configuration(self.configuration)
            directory.drop_metrics_after(self.out, epoch=self.epoch)
            if self.epoch and not self.batch:
                self.save_model()  # a kill may have come between the epoch's checkpoint and its model
            return self._fit()

    def _begin(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        began = datetime.now().isoformat(" ", "minutes")
        self._write_configuration({**configuration, "began": began, "machine": machine()})
        if self.recipe is not None:
            directory.replace_file(self.out / directory.RECIPE, self.recipe)
        torch.manual_seed(self.run.seed)
        self.save()  # from here on there is always a state to go on from
        return self._fit()

    def load(self) -> None:
        """Takes the state of the newest checkpoint.

        Raises:
            CheckpointError: there is none that is finite, or it is another run's.
        """
        snapshot = self._kept.load()
        check_progress(snapshot.state, self)
        saved = snapshot.state["run"]
        kept, own = saved.get("identity"), self.run.identity
        if not isinstance(kept, dict) or {**kept, "epochs": 0} != {**own, "epochs": 0}:
            raise CheckpointError(
                f"the checkpoint in {self.out} belongs to another run: it is of {kept}, this is {own}"
            )
        if saved["epoch"] > self.run.epochs:
            raise CheckpointError(
                f"the checkpoint in {self.out} has {saved['epoch']} epochs done, this run ends after {self.run.epochs}:"
                " take more"
            )
        state = restore(snapshot, self.run.model, self.run.optimizer, self._generators, self.run.replay)
        self.step, self._skips_in_a_row = snapshot.step, 0
        for name in _PROGRESS:
            setattr(self, name, state[name])
        self._wall_s = state["wall_s"]
        self._figures.restore(state)
        for callback in self.callbacks:
            callback.restore(self, state["callbacks"].get(type(callback).__name__, {}))

    def save(self) -> None:
        """Writes a checkpoint, on the first of several ranks.

        Raises:
            TrainingStopped: the state is not finite; nothing has been written.
            CheckpointError: it cannot be written.
        """
        if not self.is_writer:
            return
        state = {
            "identity": self.run.identity,
            **{name: getattr(self, name) for name in _PROGRESS},
            **self._figures.state(),
            "wall_s": self.wall_s,
            "callbacks": {type(callback).__name__: callback.state() for callback in self.callbacks},
        }
        snapshot = capture(self.step, self.run.model, self.run.optimizer, self._generators, state, self.run.replay)
        self._kept.save(snapshot)
        self._saved_at = time.monotonic()

    def save_model(self) -> None:
        """Writes the network as a model file, with what evaluating it and predicting by it needs; on the first rank.

        Raises:
            CodecError: it cannot be written.
        """
        if not self.is_writer:
            return
        about = described(
            self.run.model,
            preprocessing=self.run.data.preprocessing,
            classes=self.run.data.classes,
            precision=self.run.precision,
            about={"data": self.run.data.source, "epochs": self.epoch, "versions": directory.versions()},
        )
        save(self.run.model, self.out / directory.MODEL, about=about, quick=True)

    def _write_configuration(self, values: Mapping[str, Any]) -> None:
        own = {"data": self.run.data.described(), "versions": directory.versions()}
        directory.write_json(self.out / directory.CONFIGURATION, {"version": directory.VERSION, **values, **own})

    @property
    def _ranks(self) -> Ranks | None:
        """The processes that train this run together; None where it is one that shares nothing."""
        return None if self.run.exchange is None else self.run.exchange.ranks

    @property
    def is_writer(self) -> bool:
        """Whether this process keeps the run's state: of several ranks the first does."""
        return self._ranks is None or self._ranks.rank == 0

    @property
    def wall_s(self) -> float:
        """Seconds spent in training so far, those before an interruption included."""
        return self._wall_s + time.monotonic() - self._started_at

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _fit(self) -> dict[str, Any]:
        self._started_at = self._saved_at = time.monotonic()
        try:
            self._each("on_fit_begin")
            while self.epoch < self.run.epochs:
                self._train_epoch()
                self._finish_epoch()
            return self._test()
        finally:
            self._each("on_exit")

    def _train_epoch(self) -> None:
        self._each("on_epoch_begin")
        self.run.model.train()
        for x, y in self.batches.epoch(self.epoch, first_batch=self.batch, normalize=False):
            self._set_learning_rate()
            result = self.run.take(
                x, y, prepare=self.batches.normalized, before_update=partial(self._each, "on_gradients")
            )
            self.step += 1
            self.batch += 1
            if result is None:
                self._count_skip()
            else:
                self._skips_in_a_row = 0
                self._kept.note_finite_step()
                self._figures.count(result)
                self._each("on_step_end", result.loss)
            self._save_if_due()

    def _count_skip(self) -> None:
        """Counts a step that is not finite, and gives up after three in a row: the weights are to blame."""
        self.skipped += 1
        self._skips_in_a_row += 1
        if self._skips_in_a_row == _SKIPS_TO_STOP:
            self._stop(f"the loss or a gradient was not finite {_SKIPS_TO_STOP} steps in a row, up to step {self.step}")

    def _stop(self, reason: str) -> NoReturn:
        self._kept.withdraw_untried()
        raise TrainingStopped(f"{reason}: lower the learning rate; {self._kept}")

    def _finish_epoch(self) -> None:
        place = {"epoch": self.epoch, "step": self.step, "learning_rate": self.run.optimizer.param_groups[0]["lr"]}
        validation = None if self.validation_batches is None else self._evaluate(self.validation_batches)
        record = self._figures.of_epoch(place, validation=validation)
        record |= {"skipped": self.skipped, "wall_s": self.wall_s}
        self._each("on_epoch_end", record)
        directory.append_metrics(self.out, record)
        self._figures.end_epoch(record)
        self.epoch += 1
        self.batch = 0
        # A step that was skipped says nothing good of the state.
        if not self._skips_in_a_row or self.epoch == self.run.epochs:
            self.save()
            self.save_model()

    def _test(self) -> dict[str, Any]:
        test_loss, test_accuracy = self.test()
        summary: dict[str, Any] = {
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "epochs": self.epoch,
            "steps": self.step,
            "skipped_steps": self.skipped,
            "seed": self.run.seed,
            **self._figures.last("train_loss", "train_accuracy"),
            "dataset": self.run.data.source,
            "device": self.device.type,
            "wall_s": self.wall_s,
        }
        if self.validation_batches is not None:
            summary |= self._figures.of_validation()
        self._each("on_fit_end", summary)
        directory.write_json(self.out / directory.SUMMARY, summary)
        return summary

    def test(self) -> tuple[float, float]:
        """Loss and accuracy on the test split, with the weights as they are."""
        return self._evaluate(self._batches(self.run.data.test))

    def _evaluate(self, batches: Batches) -> tuple[float, float]:
        model = self.run.model
        model.eval()
        found = []
        with torch.no_grad():
            for x, y in own_batches(batches, self._ranks):
                if len(y):
                    try:
                        with model_errors(x):
                            logits, mean = self.run.forward(x, y)
                    except NonFiniteError as error:
                        self._stop(f"{error}, in the evaluation after step {self.step}")
                    found.append((mean.item() * len(y), count_correct(logits, y), len(y)))
                self._leave_if_interrupted()
        loss, correct, examples = sums_of_batches(found, self._ranks)
        return loss / examples, correct / examples

    # --- what the loop needs ----------------------------------------------------------------------------------------

    def _batches(self, split: Split, *, shuffle: bool = False) -> Batches:
        return Batches(
            split,
            batch_size=self.run.batch_size if shuffle else _EVALUATION_BATCH,
            mean=self.run.data.mean,
            std=self.run.data.std,
            seed=self.run.seed,
            shuffle=shuffle,
            augment=self.run.augment if shuffle else (),
            device=self.device,
            share=own_rows(self.run) if shuffle else None,
        )

    def _set_learning_rate(self) -> None:
        if self.run.schedule is not None:
            factor = self.run.schedule(self.epoch + self.batch / len(self.batches))
            for group, rate in zip(self.run.optimizer.param_groups, self._base_rates, strict=True):
                group["lr"] = rate * factor

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= self.checkpoint_every_s and not self._skips_in_a_row:
            self.save()
        self._leave_if_interrupted()

    def _leave_if_interrupted(self) -> None:
        if self._ranks is not None:  # which leave after the same step
            self._interruption.signal_number = int(self._ranks.agree(self._interruption.signal_number or 0)) or None
        if self._interruption.signal_number is None:
            return
        try:
            if not self._skips_in_a_row:
                self.save()
            kept = str(self._kept)
        except BnnError as error:
            kept = f"its state could not be kept ({error})"
        own = str(self.configuration.get("recipe")).endswith(".py")
        more = f" --recipe {self.out / directory.RECIPE}" if own else ""
        raise Interrupted(
            f"interrupted after step {self.step}; {kept}, go on with `bnn train --resume {self.out}{more}`",
            signal_number=self._interruption.signal_number,
        )

    def _each(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)
