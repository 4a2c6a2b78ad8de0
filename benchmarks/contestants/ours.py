"""This package with one of its presets: python -m benchmarks.contestants.ours PRESET TASK."""

import sys
from functools import partial

import bnn.models
from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import Trained, run
from bnn.errors import BnnError
from bnn.presets import prepare
from bnn.weights import LatentStore


def build(preset: str, task: Task) -> Trained:
    """The network and optimizer of a preset."""
    network = partial(getattr(bnn.models, task.model), classes=task.classes)
    prepared = prepare(preset, network, input_shape=task.input_shape)
    latents = [module.weight for module in prepared.model.modules() if isinstance(module, LatentStore)]
    return Trained(prepared.model, prepared.optimizer, latents, prepared.slice_size)


if __name__ == "__main__":
    preset = sys.argv.pop(1)
    try:
        main(lambda task: run(task, partial(build, preset)))
    except BnnError as error:
        raise SystemExit(str(error)) from error
