"""This package with one of its presets: python -m benchmarks.contestants.ours PRESET TASK."""

import sys
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

import bnn.models
from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import run
from bnn.cost.memory.measured import measure_saved
from bnn.errors import BnnError, NonFiniteError
from bnn.presets import prepare
from bnn.training import TrainingStep


@dataclass(frozen=True)
class Ours:
    """The training step that the trainer takes."""

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

    def saved_bytes(self, x: Tensor, labels: Tensor) -> int:
        """See `Contestant`; of the largest slice."""
        return measure_saved(self.step, input_shape=tuple(x.shape[1:]), batch_size=len(x))


def build(preset: str, task: Task) -> Ours:
    """The network and optimizer of a preset."""
    network = partial(getattr(bnn.models, task.model), input_shape=task.input_shape, classes=task.classes)
    return Ours(prepare(preset, network, input_shape=task.input_shape))


if __name__ == "__main__":
    preset = sys.argv.pop(1)
    try:
        main(lambda task: run(task, partial(build, preset)))
    except BnnError as error:
        raise SystemExit(str(error)) from error
