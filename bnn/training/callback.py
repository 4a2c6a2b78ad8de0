"""`Callback`: what attaches to the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn.training.trainer import Trainer


class Callback:
    """Called by the `Trainer` in the order of its list; every method does nothing by default.

    A trainer has at most one callback of a class that keeps a state.
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step, when a resumed state is in place."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before the first step of an epoch, or of what is left of it."""

    def on_gradients(self, trainer: Trainer) -> None:
        """When the gradients of a step are complete and finite, before the optimizer steps; may change them in place.

        Where parameters are stepped inside backward, no gradients are left by then.
        """

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """After a step of the optimizer; not after a skipped one."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After validation; `record` is the epoch's line of metrics and may be added to."""

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """After the test; `summary` may be added to."""

    def on_exit(self, trainer: Trainer) -> None:
        """When training leaves for whatever reason, to release what the callback holds."""

    def state(self) -> dict[str, Any]:
        """JSON values that a checkpoint keeps."""
        return {}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses what `state` cannot have given, before anything of a checkpoint is restored.

        Args:
            trainer: not restored yet.
            state: as of `restore`; its values are of any kind.

        Raises:
            LookupError: a part is missing; or a TypeError, ValueError or AttributeError: one is of another kind.
        """

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes back what `state` gave; an empty one where the checkpoint knows nothing of this callback."""
