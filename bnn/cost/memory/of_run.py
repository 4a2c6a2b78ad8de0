"""The predicted memory of the step of a run that exists: its tensors are on the meta device meanwhile."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.errors import RunError
from bnn.training import Run, TrainingStep


def predict_run(run: Run) -> StepMemory:
    """The memory of a run's step on the CPU; the run is afterwards as it was.

    Raises:
        RunError: the model cannot run on shapes alone.
    """
    return predict_existing(run, input_shape=run.data.image_shape, batch_size=run.batch_size)


def predict_existing(run: TrainingStep, *, input_shape: tuple[int, ...], batch_size: int) -> StepMemory:
    """As `predict_step`, of a step whose tensors are anywhere; it is afterwards as it was.

    Raises:
        RunError: the model cannot run on shapes alone.
    """
    optimizer: Any = run.optimizer
    kept, optimizer.state = optimizer.state, defaultdict(dict)
    evaluated = [module for module in run.model.modules() if not module.training]
    run.model.train()
    others = [module for module in (run.loss, run.training_loss, run.replay) if isinstance(module, nn.Module)]
    with _on_meta([run.model, *others]):
        try:
            return predict_step(run, input_shape=input_shape, batch_size=batch_size)
        except RunError as error:
            # Its text alone: its frames hold tensors of the model, which could then not be swapped back.
            reason = str(error)
        finally:
            optimizer.zero_grad(set_to_none=True)
            optimizer.state.clear()
            optimizer.state = kept
            for module in evaluated:
                module.training = False
    raise RunError(reason)


@contextmanager
def _on_meta(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Meanwhile the modules' parameters and buffers are on the meta device.

    They stay the same objects, so that optimizers and hooks still find them.
    """
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    swaps = [(tensor, _meta_twin(tensor)) for tensor in tensors]
    _swap(swaps)
    try:
        yield
    finally:
        _swap(swaps)


def _swap(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for one, other in pairs:
        torch.utils.swap_tensors(one, other)  # type: ignore[no-untyped-call]


def _meta_twin(tensor: Tensor) -> Tensor:
    """A tensor on the meta device with the class, strides, attributes and hooks of another."""
    twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        twin = torch.Tensor._make_subclass(type(tensor), twin, tensor.requires_grad)
        twin.grad_dtype = tensor.grad_dtype
        twin._post_accumulate_grad_hooks = tensor._post_accumulate_grad_hooks
        vars(twin).update(vars(tensor))
    return twin
