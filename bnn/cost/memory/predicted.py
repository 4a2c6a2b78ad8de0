"""Predicts the memory of a training step by running the step itself on the meta device.

Forward, backward and update run on the meta device, so that no data is needed, nothing is computed and no memory is
taken; what is predicted are the storages that the same calls make and free on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn.cost.memory.live_tensors import KEPT, LiveTensors, Memory
from bnn.cost.memory.process import process_bytes
from bnn.cost.memory.saved_tensors import saved_tensors
from bnn.cost.memory.table import Lifetime, MemoryTable, Variable, name_failing_module
from bnn.training import TrainingStep
from bnn.weights import WeightStore

# Where operations give the bits of a gradient's window or slope beside their values.
_WINDOWS = {("bnn::norm_sign", 1), ("bnn::sign_window", 1), ("bnn::sign_codes", 1), ("bnn::norm_clamp_", 0)}
_STATISTICS = ("bnn::batch_statistics", 0)
# Those after the third are like it: the first makes gradients, which may be bits, and the second adds to them.
_SLICES = 3
_ORDER = (
    "batch and labels",
    "latent weights",
    "other parameters",
    "optimizer state",
    "running statistics",
    "samples to replay",
    "teacher",
    "activations",
    "windows",
    "pool choices",
    "norm constants",
    "weights as bits",
    "weight gradients",
    "transients",
    "kept for results",
)


@dataclass(frozen=True)
class StepMemory:
    """The memory of one training step, on the CPU."""

    saved_bytes: int
    """Bytes that autograd saves for backward, parameters aside; of the largest slice."""
    table: MemoryTable
    """Memory of all tensors at the moment of the peak, variable by variable; its total is the peak."""
    process_bytes: float
    """What the process needs for it, see `bnn.cost.memory.process`."""


def predict_step(step: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> StepMemory:
    """Predicts the memory of a step that is not the first, with the memory for results that its preset keeps.

    Args:
        step: its model and optimizer are on the meta device, and new. They are changed. Its own loss and slices are
            taken, and float32 whatever its precision: tensors on the meta device have no autocast.
        input_shape: of one example.
        batch_size: examples.

    Raises:
        RunError: the model cannot run on shapes alone.
    """
    device = torch.device("meta")
    x = torch.empty((batch_size, *input_shape), device=device)
    labels = torch.empty(batch_size, dtype=torch.int64, device=device)
    live, roles, saved_bytes = LiveTensors(device), _Roles(), []
    model = step.model
    roles.take("batch and labels", "always", live.hold([x, labels]))
    parameters = live.hold(list(model.parameters()), holds_weights=True)
    stores = [module for module in model.modules() if isinstance(module, WeightStore)]
    for weights in (store.parameters() for store in stores):
        roles.take("latent weights", "always", [live.memory_of(weight) for weight in weights])
    roles.take("other parameters", "always", parameters)
    roles.take("running statistics", "always", live.hold(list(model.buffers())))
    if step.replay is not None:
        kept = [step.replay.rows, step.replay.labels]
        roles.take("samples to replay", "always", live.hold(kept))
    if isinstance(step.training_loss, nn.Module):
        teacher = [*step.training_loss.parameters(), *step.training_loss.buffers()]
        roles.take("teacher", "always", live.hold(teacher))

    def forward_ends(loss: Tensor) -> None:
        saved = {live.memory_of(tensor) for tensor in saved_tensors(loss)} - set(parameters)
        saved_bytes.append(sum(memory.nbytes for memory in saved))
        for memory in saved:
            roles.take(_saved_name(memory), "to backward", [memory])
        live.may_read_numbers = True

    def backward_ends() -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        roles.take("weight gradients", "to update", [live.memory_of(gradient) for gradient in gradients])

    with name_failing_module(model, input_shape), live:
        # The first step makes the optimizer's state.
        for _ in range(2):
            live.may_read_numbers = False
            step.take(x, labels, slices=_SLICES, before_backward=forward_ends, before_update=backward_ends)
            roles.take("optimizer state", "always", [live.memory_of(state) for state in step.states()])
    table = _table(live, roles)
    modules = sum(1 for _ in model.modules())
    needed_bytes = process_bytes(live.allocated_bytes(), modules=modules, convolutions=len(live.convolutions))
    return StepMemory(max(saved_bytes), table, needed_bytes)


class _Roles:
    """The role of each storage; the first role that it is given stays."""

    def __init__(self) -> None:
        self._roles: dict[Memory, tuple[str, Lifetime]] = {}

    def take(self, name: str, lifetime: Lifetime, memories: list[Memory]) -> None:
        for memory in memories:
            self._roles.setdefault(memory, (name, lifetime))

    def of(self, memory: Memory) -> tuple[str, Lifetime]:
        if memory.source == KEPT:
            return "kept for results", "always"
        return self._roles.get(memory, ("transients", "one layer"))


def _saved_name(memory: Memory) -> str:
    if memory.holds_weights:
        return "weights as bits"
    if memory.source in _WINDOWS:
        return "windows"
    if memory.source == _STATISTICS or (memory.dim == 1 and memory.itemsize > 1):
        return "norm constants"
    return "pool choices" if memory.dim == 3 and memory.itemsize == 1 else "activations"


def _table(live: LiveTensors, roles: _Roles) -> MemoryTable:
    sizes: dict[tuple[str, Lifetime, int], int] = {}
    for memory, nbytes in live.at_peak().items():
        key = *roles.of(memory), 1 if memory.is_packed else 8 * memory.itemsize
        sizes[key] = sizes.get(key, 0) + nbytes
    variables = [Variable(name, lifetime, 8 * nbytes // bits, bits) for (name, lifetime, bits), nbytes in sizes.items()]
    return MemoryTable(tuple(sorted(variables, key=lambda variable: (_ORDER.index(variable.name), -variable.bits))))
