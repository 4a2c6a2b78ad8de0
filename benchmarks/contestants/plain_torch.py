"""Plain PyTorch without this package: python -m benchmarks.contestants.plain_torch TASK.

The task's mode lists, with hyphens between them, what a skilled user turns on: `bfloat16` (autocast), `last` (channels
last), `compiled` (`torch.compile`) and `fused` (Adam in one pass). What is left out is float32, channels first, eager.
"""

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
    bfloat16: bool = False
    layout: torch.memory_format = torch.contiguous_format
    """Of the images."""

    def take_step(self, x: Tensor, labels: Tensor) -> float:
        """See `Contestant`."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.forward(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for latent in self.latents:
                latent.clamp_(-1, 1)
        return loss.item()

    def infer(self, x: Tensor) -> None:
        """See `Contestant`."""
        with torch.no_grad():
            self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """The logits, in float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            logits: Tensor = self.model(x.to(memory_format=self.layout))
        return logits.float()

    def saved_bytes(self, x: Tensor, labels: Tensor) -> int:
        """See `Contestant`."""
        return saved_bytes(self.model, lambda: F.cross_entropy(self.forward(x), labels))


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
    on = set(task.mode.split("-"))
    model = torch_networks.network(task)
    layout = torch.channels_last if "last" in on else torch.contiguous_format
    model = model.to(memory_format=layout)
    latents = [module.weight for module in model.modules() if getattr(module, "is_clipped", False)]
    optimizer = torch.optim.Adam(model.parameters(), fused="fused" in on)
    if "compiled" in on:
        if task.inference:
            import torch._inductor.config as inductor

            # Signs of weights are taken once and norms become part of the products, as torch advises for inference.
            inductor.freezing = True
        # Not `model.compile()`, which compiles the layers of an `nn.Sequential` one by one.
        model = torch.compile(model, fullgraph=True, dynamic=False)
    return PlainTorch(model, optimizer, latents, bfloat16="bfloat16" in on, layout=layout)


if __name__ == "__main__":
    main(lambda task: run(task, build))
