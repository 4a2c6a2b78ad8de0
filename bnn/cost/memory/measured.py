"""The memory of a training step, by hooks, in autograd's graph, in the allocator and in the system; and its time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bnn.bits import BitTensor
from bnn.cost.memory.resident import PeakResident
from bnn.cost.memory.saved_tensors import saved_tensors
from bnn.ops.memory import RESULTS
from bnn.training import TrainingStep

_LEAST_STEPS, _MOST_STEPS, _TIMED_S = 3, 20, 3.0


@dataclass(frozen=True)
class MeasuredMemory:
    """The memory of a step on the CPU, by three meters."""

    saved_bytes: int
    """What autograd saves in the forward pass of the first slice, which is the largest, as `saved_tensors_hooks` sees
    it: distinct storages, parameters aside."""
    graph_bytes: int
    """The same, found by walking the graph; tensors that hide on the `ctx` of an `autograd.Function` included."""
    peak_live_bytes: int
    """The most that tensors have taken at once, from every allocation of torch's allocator, with the memory that is
    kept for results to come. Memory that C++ code asks of the system by itself is not in it."""


def measure_step(step: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> MeasuredMemory:
    """Takes a few steps with random data, with the step's own loss, precision, slices and optimizer.

    Args:
        step: on the CPU. Its weights are changed.
        input_shape: of one example.
        batch_size: examples.
    """
    x, labels = random_batch(input_shape, batch_size)
    step.take(x, labels)  # makes the optimizer's state
    saved, graph = _saved_as_hooks_see_it(step, x, labels), _saved_in_the_graph(step, x, labels)
    return MeasuredMemory(saved, graph, _peak_live(step, x, labels))


def measure_live(step: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> int:
    """`MeasuredMemory.peak_live_bytes` alone, in three steps; the arguments are those of `measure_step`."""
    x, labels = random_batch(input_shape, batch_size)
    step.take(x, labels)  # makes the optimizer's state
    return _peak_live(step, x, labels)


def measure_saved(step: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> int:
    """`MeasuredMemory.saved_bytes` alone; the arguments are those of `measure_step`."""
    return _saved_as_hooks_see_it(step, *random_batch(input_shape, batch_size))


def measure_resident(
    step: TrainingStep, resident: PeakResident, *, input_shape: tuple[int, ...], batch_size: int
) -> int:
    """The most resident memory of the process in two steps, above the level at which `resident` was made."""
    x, labels = random_batch(input_shape, batch_size)
    for _ in range(2):
        step.take(x, labels)
    return resident.above_start_bytes()


def measure_time(step: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> float:
    """Median seconds of 3 to 20 steps, which take about 3 s together; take one before, which is slower."""
    x, labels = random_batch(input_shape, batch_size)
    walls_s: list[float] = []
    while len(walls_s) < _LEAST_STEPS or (len(walls_s) < _MOST_STEPS and sum(walls_s) < _TIMED_S):
        start = time.perf_counter()
        step.take(x, labels)
        walls_s.append(time.perf_counter() - start)
    return median(walls_s)


def random_batch(input_shape: tuple[int, ...], batch_size: int) -> tuple[Tensor, Tensor]:
    """Normal inputs, and labels of the first two classes.

    The first value of every example is 0, as a black border's would be: its weights get gradients of 0, which packed
    gradients of signs take more work for.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch_size, *input_shape), generator=generator)
    x.view(batch_size, -1)[:, 0] = 0
    return x, torch.randint(2, (batch_size,), generator=generator)


def _saved_as_hooks_see_it(step: TrainingStep, x: Tensor, labels: Tensor) -> int:
    hooked: list[Tensor] = []
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        hooked.append(tensor)
        return tensor

    def forward_ends(loss: Tensor) -> None:
        # The graph still holds what has been saved, so that no storage's address has been used twice.
        saved.append(_bytes_beside_parameters(step, hooked))
        hooked.clear()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step.take(x, labels, slices=1, before_backward=forward_ends)
    return saved[0]


def _peak_live(step: TrainingStep, x: Tensor, labels: Tensor) -> int:
    held = _sizes([x, labels, *step.model.parameters(), *step.model.buffers(), *step.states()])
    # What is kept for results grows in the first of two steps; the profiler does not see it.
    RESULTS.give_back()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for _ in range(2):
            step.take(x, labels)
    return sum(held.values()) + _peak_of_allocations(profiled) + RESULTS.nbytes


def _saved_in_the_graph(step: TrainingStep, x: Tensor, labels: Tensor) -> int:
    saved: list[int] = []

    def forward_ends(loss: Tensor) -> None:
        saved.append(_bytes_beside_parameters(step, saved_tensors(loss)))

    step.take(x, labels, slices=1, before_backward=forward_ends)
    return saved[0]


def _bytes_beside_parameters(step: TrainingStep, tensors: Iterable[Tensor]) -> int:
    parameters = _sizes(step.model.parameters())
    return sum(nbytes for storage, nbytes in _sizes(tensors).items() if storage not in parameters)


def _sizes(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of the distinct storages of tensors."""
    storages = [(x.packed if isinstance(x, BitTensor) else x).untyped_storage() for x in tensors]
    return {storage._cdata: storage.nbytes() for storage in storages}


def _peak_of_allocations(profiled: profile) -> int:
    """The most by which what has been allocated exceeded what has been freed."""
    results: Any = profiled.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
