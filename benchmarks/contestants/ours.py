"""This package with the preset that is the task's mode: python -m benchmarks.contestants.ours TASK."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import run
from bnn.cost.memory.measured import measure_saved
from bnn.errors import BnnError, NonFiniteError
from bnn.models import networks
from bnn.ops import cpu
from bnn.presets import prepare
from bnn.quantizers import ReCU
from bnn.training import TrainingStep
from bnn.weights import LatentStore


@dataclass(frozen=True)
class Ours:
    """The training step that the trainer takes, and the forward pass of `bnn eval`."""

    step: TrainingStep

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.step.model

    def take_step(self, x: Tensor, labels: Tensor) -> float:
        """See `Contestant`."""
        result = self.step.take(x, labels)
        if result is None:
            raise NonFiniteError("the loss or a gradient of the step is not finite")
        return result.loss

    def infer(self, x: Tensor) -> None:
        """See `Contestant`."""
        with torch.no_grad():
            self.model(x)

    def saved_bytes(self, x: Tensor, labels: Tensor) -> int:
        """See `Contestant`; of the largest slice."""
        return measure_saved(self.step, input_shape=tuple(x.shape[1:]), batch_size=len(x))


def build(task: Task) -> Ours:
    """The network and optimizer of a preset."""
    options: dict[str, Any] = {"input_shape": task.input_shape, "classes": task.classes}
    if task.weights == "recu":
        options["store"] = partial(LatentStore, quantizer=ReCU(tail="project"))
    return Ours(prepare(task.mode, partial(networks()[task.model], **options), input_shape=task.input_shape))


if __name__ == "__main__":
    try:
        main(lambda task: run(task, build, instruction_set=cpu.instruction_set()))
    except BnnError as error:
        raise SystemExit(str(error)) from error
