"""The training step that this package and plain PyTorch share, and its meters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contestants.measure import Figures, PeakMemory, Task, step_times_s


@dataclass(frozen=True)
class Trained:
    """What a contestant trains."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    latents: Sequence[Tensor]
    """Clipped to [-1, 1] after each step."""
    slice_size: int | None = None
    """Most images that go through the network at once; None: the whole batch."""


def run(task: Task, build: Callable[[Task], Trained]) -> Figures:
    """Measures forward, loss, backward, update and clipping of what `build` makes, on one synthetic batch."""
    torch.set_num_threads(task.threads)
    rehearsal = task.rehearsal()
    training_step(build(rehearsal), *synthetic_batch(rehearsal))()

    x, labels = synthetic_batch(task)
    memory = PeakMemory()
    trained = build(task)
    step = training_step(trained, x, labels)
    times_s, last_loss = step_times_s(step, warmup=task.warmup, steps=task.steps)
    peak = memory.peak_bytes()
    first = slices(trained, x)[0]
    return Figures(
        step_s=times_s,
        last_loss=last_loss,
        peak_bytes=peak,
        peak_above_start_bytes=peak - memory.start_bytes,
        peak_is_of_whole_process=memory.is_of_whole_process,
        saved_bytes=saved_bytes(trained.model, lambda: F.cross_entropy(trained.model(first), labels[: len(first)])),
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
    )


def synthetic_batch(task: Task) -> tuple[Tensor, Tensor]:
    """Normal images and random labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((task.batch, *task.input_shape), generator=generator)
    return x, torch.randint(task.classes, (task.batch,), generator=generator)


def training_step(trained: Trained, x: Tensor, labels: Tensor) -> Callable[[], float]:
    """A function that takes one step on the batch and returns its loss."""

    def step() -> float:
        trained.optimizer.zero_grad()
        total = 0.0
        for x_slice, labels_slice in zip(slices(trained, x), slices(trained, labels), strict=True):
            loss = F.cross_entropy(trained.model(x_slice), labels_slice) * (len(x_slice) / len(x))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        trained.optimizer.step()
        with torch.no_grad():
            for latent in trained.latents:
                latent.clamp_(-1, 1)
        return total

    return step


def slices(trained: Trained, batch: Tensor) -> Sequence[Tensor]:
    """The batch in parts of nearly equal size, as the trainer cuts it."""
    return batch.tensor_split(math.ceil(len(batch) / (trained.slice_size or len(batch))))


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that autograd saves in a forward pass, those of the parameters aside.

    Of a `BitTensor`, the packed bytes.
    """
    bytes_by_storage: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        storage = getattr(x, "packed", x).untyped_storage()
        bytes_by_storage[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        # Held until all is counted: its graph keeps the storages, so that no address is used twice.
        loss = forward()
    for parameter in model.parameters():
        bytes_by_storage.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(bytes_by_storage.values())
