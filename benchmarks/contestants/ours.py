"""This package, as one of its presets sets it up: python -m benchmarks.contestants.ours PRESET TASK."""

import sys
from collections.abc import Callable

import torch

import bnn.models
from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import Trained, run
from bnn.stores import LatentStore


def standard(task: Task) -> Trained:
    """Latent float32 weights and torch's Adam: the usual way to train, with packed activations."""
    model = getattr(bnn.models, task.model)(input_shape=task.input_shape, classes=task.classes)
    latents = [module.weight for module in model.modules() if isinstance(module, LatentStore)]
    return model, torch.optim.Adam(model.parameters()), latents


PRESETS = {"standard": standard}


def preset(name: str) -> Callable[[Task], Trained]:
    """What makes the model and optimizer of a preset."""
    if name not in PRESETS:
        raise SystemExit(f"there is no preset {name}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


if __name__ == "__main__":
    build = preset(sys.argv.pop(1))
    main(lambda task: run(task, build))
