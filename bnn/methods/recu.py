"""The schedule of ReCU's quantile; the quantizer itself is `bnn.quantizers.ReCU`."""

import math
from typing import Any

from bnn.errors import RecipeError
from bnn.quantizers import ReCU
from bnn.training import Callback, Trainer


def recu_tau(epoch: int, epochs: int, *, start: float = 0.85, end: float = 0.99) -> float:
    """ReCU's tau at an epoch: A exp(epoch / epochs) + B, from `start` at 0 to `end` at `epochs`.

    Source: the public code of ReCU, arXiv 2103.12369.
    """
    rise = (end - start) / (math.e - 1)
    return rise * math.exp(epoch / epochs) + start - rise


class TauSchedule(Callback):
    """Sets tau of every `ReCU` in the model at the start of each epoch, by `recu_tau`.

    Args:
        start: tau of the first epoch, in (0.5, 1].
        end: tau that the epoch after the last would have, in (0.5, 1].
    """

    def __init__(self, *, start: float = 0.85, end: float = 0.99) -> None:
        for tau in (start, end):
            if not 0.5 < tau <= 1:
                raise RecipeError(f"tau lies in (0.5, 1], got {tau}")
        self.start = start
        self.end = end
        self._tau = start

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Moves tau."""
        self._set(trainer, recu_tau(trainer.epoch, trainer.run.epochs, start=self.start, end=self.end))

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Records tau."""
        record["tau"] = self._tau

    def state(self) -> dict[str, Any]:
        """The tau in force: a trained network is evaluated with it, between epochs and after the last."""
        return {"tau": self._tau}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses a tau that is out of its range."""
        if not 0.5 < state.get("tau", self.start) <= 1:
            raise ValueError(f"tau lies in (0.5, 1], got {state['tau']}")

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Sets the tau that was in force."""
        self._set(trainer, state.get("tau", self.start))

    def _set(self, trainer: Trainer, tau: float) -> None:
        self._tau = tau
        for module in trainer.run.model.modules():
            if isinstance(module, ReCU):
                module.tau = tau
