"""Beginning a training with the weights of another."""

from pathlib import Path

from torch import nn

from bnn.training import checkpoint, directory
from bnn.training.finite import first_not_finite
from bnn.training.snapshot import Snapshot, restore_module

_MODEL = "model."


def start_from(run: Path, model: nn.Module) -> None:
    """Gives a model the weights and buffers of a run's newest checkpoint.

    Args:
        run: the run's directory.
        model: of the same network.

    Raises:
        CheckpointError: there is no checkpoint, none is finite, or it is of another network; nothing has been changed.
    """

    def refusal(snapshot: Snapshot) -> str | None:
        name = first_not_finite(snapshot.tensors)
        return None if name is None else f"its {name} is not finite"

    tensors = checkpoint.load(run / directory.CHECKPOINTS, refusal=refusal).tensors
    restore_module(model, {key.removeprefix(_MODEL): x for key, x in tensors.items() if key.startswith(_MODEL)})
