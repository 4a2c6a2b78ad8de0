"""`KeptStates`: the checkpoints of a run, of which none is of a state that has gone bad."""

import math
from pathlib import Path

from torch import nn

from bnn.errors import TrainingStopped
from bnn.training import checkpoint, directory
from bnn.training.finite import first_not_finite
from bnn.training.snapshot import Snapshot


class KeptStates:
    """Saves and loads the checkpoints of a run.

    A state with a NaN or an infinite value is neither saved nor loaded. Weights can also be finite and so large that no
    step is: such a state is withdrawn once it is known.

    Args:
        run: the run's directory.
        model: as it is when training begins. Buffers that are not finite then, such as a mask of -inf, may be so.

    Attributes:
        newest: step of the newest checkpoint; None where none is known yet.
    """

    def __init__(self, run: Path, model: nn.Module) -> None:
        self._run = run
        self._directory = run / directory.CHECKPOINTS
        self._unbounded = {f"model.{name}" for name, x in model.named_buffers() if first_not_finite({name: x})}
        self._is_tried = True
        self.newest: int | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Writes a checkpoint.

        Raises:
            TrainingStopped: the state is not finite; nothing has been written.
            CheckpointError: it cannot be written.
        """
        fault = self._fault(snapshot)
        if fault is not None:
            raise TrainingStopped(f"after step {snapshot.step} {fault}: lower the learning rate; {self}")
        checkpoint.save(self._directory, snapshot)
        self.newest, self._is_tried = snapshot.step, snapshot.step == 0

    def load(self) -> Snapshot:
        """Reads the newest checkpoint that is finite.

        Raises:
            CheckpointError: there is none.
        """
        snapshot = checkpoint.load(self._directory, refusal=self._fault)
        self.newest, self._is_tried = snapshot.step, True
        return snapshot

    def note_finite_step(self) -> None:
        """Says that a finite step has been taken from the newest checkpoint."""
        self._is_tried = True

    def withdraw_untried(self) -> None:
        """Removes the newest checkpoint if training saved it and has not taken a finite step since, and there is one
        before it."""
        if self.newest is not None and not self._is_tried:
            before = checkpoint.withdraw(self._directory, self.newest)
            self.newest = self.newest if before is None else before

    def __str__(self) -> str:
        if self.newest is None:
            return f"there is no checkpoint in {self._run} yet"
        return f"the last good state, of step {self.newest}, is kept in {self._run}"

    def _fault(self, snapshot: Snapshot) -> str | None:
        name = first_not_finite(snapshot.tensors, but=self._unbounded)
        if name is not None:
            return f"its {name} is not finite"
        # Whether a state that is loaded is one of an optimizer is checked where it is restored.
        optimizer = snapshot.state.get("optimizer")
        groups = optimizer.get("groups") if isinstance(optimizer, dict) else None
        for group in groups if isinstance(groups, list) else ():
            rate = group.get("lr") if isinstance(group, dict) else None
            if isinstance(rate, float) and not math.isfinite(rate):
                return f"its learning rate is {rate}"
        return None
