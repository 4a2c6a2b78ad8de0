"""Plain PyTorch, all in float32, without this package: python -m benchmarks.contestants.plain_torch TASK."""

import torch

from benchmarks.contestants import torch_networks
from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import Trained, run


def build(task: Task) -> Trained:
    """Latent weights that are clipped after each step, and torch's Adam."""
    model = getattr(torch_networks, task.model)(task.input_shape, task.classes)
    binary = (torch_networks.BinaryConv2d, torch_networks.BinaryLinear)
    latents = [module.weight for module in model.modules() if isinstance(module, binary)]
    return Trained(model, torch.optim.Adam(model.parameters()), latents)


if __name__ == "__main__":
    main(lambda task: run(task, build))
