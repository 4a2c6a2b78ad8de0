"""Plain PyTorch, all in float32, without this package: python -m benchmarks.contestants.plain_torch TASK."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contestants import torch_networks
from benchmarks.contestants.measure import Task, main
from benchmarks.contestants.torch_training import run


@dataclass(frozen=True)
class PlainTorch:
    """A training step as people write it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    latents: Sequence[Tensor]
    """Clipped to [-1, 1] after each step."""

    def take_step(self, x: Tensor, labels: Tensor) -> float:
        """See `Contestant`."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for latent in self.latents:
                latent.clamp_(-1, 1)
        return loss.item()

    def saved_bytes(self, x: Tensor, labels: Tensor) -> int:
        """See `Contestant`."""
        return saved_bytes(self.model, lambda: F.cross_entropy(self.model(x), labels))


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that autograd saves in a forward pass, those of the parameters aside."""
    bytes_by_storage: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        bytes_by_storage[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        # Held until all is counted: its graph keeps the storages, so that no address is used twice.
        loss = forward()
    for parameter in model.parameters():
        bytes_by_storage.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(bytes_by_storage.values())


def build(task: Task) -> PlainTorch:
    """Latent weights that are clipped after each step, and torch's Adam."""
    model = getattr(torch_networks, task.model)(task.input_shape, task.classes)
    binary = (torch_networks.BinaryConv2d, torch_networks.BinaryLinear)
    latents = [module.weight for module in model.modules() if isinstance(module, binary)]
    return PlainTorch(model, torch.optim.Adam(model.parameters()), latents)


if __name__ == "__main__":
    main(lambda task: run(task, build))
