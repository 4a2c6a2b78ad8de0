"""How a step of torch is measured, whoever takes it: this package or plain PyTorch."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.contestants.measure import Figures, PeakMemory, Task, step_times_s


class Contestant(Protocol):
    """A network with the step that is measured."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    def take_step(self, x: Tensor, labels: Tensor) -> float:
        """Forward, loss, backward, update and clipping on a batch; its loss."""
        ...

    def infer(self, x: Tensor) -> None:
        """The forward pass on a batch, without gradients; the model is in evaluation."""
        ...

    def saved_bytes(self, x: Tensor, labels: Tensor) -> int:
        """What autograd saves in a forward pass: bytes of distinct storages, those of the parameters aside."""
        ...


def run(task: Task, build: Callable[[Task], Contestant], *, instruction_set: str | None = None) -> Figures:
    """Measures the step of what `build` makes, on one synthetic batch.

    Args:
        task: the contestant's.
        build: makes network and optimizer.
        instruction_set: that of this package's kernels.
    """
    torch.set_num_threads(task.threads)
    rehearsal = task.rehearsal()
    step_of(build(rehearsal), rehearsal)()

    x, labels = synthetic_batch(task)
    memory = PeakMemory()
    contestant = build(task)
    step = step_of(contestant, task, (x, labels))
    times_s, last_loss = step_times_s(step, warmup=task.warmup, steps=task.steps, before_timing=memory.restart)
    peak = memory.peak_bytes()
    return Figures(
        step_s=times_s,
        last_loss=last_loss,
        peak_bytes=peak,
        peak_above_start_bytes=peak - memory.start_bytes,
        peak_is_of_whole_process=memory.is_of_whole_process,
        saved_bytes=None if task.inference else contestant.saved_bytes(x, labels),
        parameters=sum(parameter.numel() for parameter in contestant.model.parameters()),
        instruction_set=instruction_set,
    )


def step_of(
    contestant: Contestant, task: Task, batch: tuple[Tensor, Tensor] | None = None
) -> Callable[[], float | None]:
    """A function that takes one step of the task's kind; by default on its synthetic batch."""
    x, labels = batch or synthetic_batch(task)
    if not task.inference:
        return lambda: contestant.take_step(x, labels)
    contestant.model.eval()
    return lambda: contestant.infer(x)


def synthetic_batch(task: Task) -> tuple[Tensor, Tensor]:
    """Normal images and random labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((task.batch, *task.input_shape), generator=generator)
    return x, torch.randint(task.classes, (task.batch,), generator=generator)
