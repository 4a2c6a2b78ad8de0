"""Steps inside backward, so that the gradients of a network never exist together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType

import torch
from torch import Tensor

from bnn.optim.base import LowBitOptimizer
from bnn.weights import is_accumulator


def step_in_backward(optimizer: torch.optim.Optimizer, *, parameters: Iterable[Tensor] | None = None) -> StepInBackward:
    """From now on parameters are stepped, and their gradients freed, as soon as backward has accumulated them.

    No more than one of their gradients exists at a time. The result is that of a step after backward, bit for bit,
    except for an `Accumulator` that a forward pass reads twice: it is stepped at each use. `step` and `zero_grad` after
    backward then find nothing to do.

    Limits: when a gradient is not finite, parameters before it have already been stepped; gradients of several batches
    cannot be accumulated; and no rule may need all gradients at once, such as clipping by their global norm.

    Args:
        optimizer: of any class that leaves alone the parameters whose gradient is None, as those of torch do.
        parameters: which of the optimizer's; by default all. The others are left to `optimizer.step()`, and their
            gradients of several backward passes add up until then.

    Returns:
        A handle: `remove()` ends it, and so does leaving the handle's `with` block.
    """
    return StepInBackward(optimizer, parameters)


class StepInBackward:
    """The handle of `step_in_backward`."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor] | None) -> None:
        def hook(index: int) -> Callable[[Tensor], None]:
            def step(parameter: Tensor) -> None:
                try:
                    if isinstance(optimizer, LowBitOptimizer):
                        optimizer.step_one(index)
                    else:
                        optimizer.step()
                finally:
                    parameter.grad = None

            return step

        optimizer.zero_grad()
        all_parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        chosen = {id(parameter) for parameter in (all_parameters if parameters is None else parameters)}
        self._handles = [
            parameter.register_post_accumulate_grad_hook(hook(index))
            for index, parameter in enumerate(all_parameters)
            if id(parameter) in chosen and (parameter.requires_grad or is_accumulator(parameter))
        ]

    def remove(self) -> None:
        """Goes back to steps after backward."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> StepInBackward:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()
