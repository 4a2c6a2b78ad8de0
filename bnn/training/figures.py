"""The figures of an epoch and of a whole run: what `metrics.jsonl` and `summary.json` hold of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bnn.training.step import StepResult


class Figures:
    """Counts the steps of the epoch that runs, and keeps the last epoch's figures and the best validation.

    Its state is a part of each checkpoint.
    """

    def __init__(self) -> None:
        self._best = {"validation_accuracy": 0.0, "epoch": 0}
        self._last: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self._sums = {"loss": 0.0, "correct": 0, "examples": 0}

    def count(self, result: StepResult) -> None:
        """Counts a step that was taken."""
        self._sums["loss"] += result.loss * result.examples
        self._sums["correct"] += result.correct
        self._sums["examples"] += result.examples

    def of_epoch(self, place: Mapping[str, Any], *, validation: tuple[float, float] | None) -> dict[str, Any]:
        """The figures of an epoch.

        Args:
            place: the `epoch`, counted from 0, the step and the learning rate at its end.
            validation: loss and accuracy, where some of the data are held out.
        """
        # An epoch whose steps were all skipped has no figures.
        examples = self._sums["examples"] or math.nan
        record = {
            **place,
            "train_loss": self._sums["loss"] / examples,
            "train_accuracy": self._sums["correct"] / examples,
        }
        if validation is not None:
            record["validation_loss"], record["validation_accuracy"] = validation
            if record["validation_accuracy"] > self._best["validation_accuracy"]:
                self._best = {"validation_accuracy": record["validation_accuracy"], "epoch": record["epoch"] + 1}
        return record

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Keeps the figures of an epoch, those that callbacks have added included, and begins the next."""
        self._last = record
        self._begin()

    def last(self, *names: str) -> dict[str, Any]:
        """Some figures of the last epoch."""
        return {name: self._last[name] for name in names}

    def of_validation(self) -> dict[str, Any]:
        """The validation accuracy of the last epoch and of the best one, which is counted from 1."""
        return {
            **self.last("validation_accuracy"),
            "best_validation_accuracy": self._best["validation_accuracy"],
            "best_validation_epoch": self._best["epoch"],
        }

    def state(self) -> dict[str, Any]:
        """JSON values from which `restore` goes on."""
        return {"sums": self._sums, "best": self._best, "last_record": self._last}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave, among other values."""
        self._sums, self._best, self._last = state["sums"], state["best"], state["last_record"]
