"""Steps inside backward, so that the gradients of a network never exist together."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor

from bnn.optim.base import LowBitOptimizer
from bnn.weights import is_accumulator


def step_in_backward(optimizer: torch.optim.Optimizer) -> StepInBackward:
    """From now on every parameter is stepped, and its gradient freed, as soon as backward has accumulated it.

    No more than one parameter's gradient exists at a time. The result is that of a step after backward, bit for bit,
    except for an `Accumulator` that a forward pass reads twice: it is stepped at each use. `step` and `zero_grad` after
    backward then find nothing to do.

    Limits: when a gradient is not finite, parameters before it have already been stepped; gradients of several batches
    cannot be accumulated; and no rule may need all gradients at once, such as clipping by their global norm.

    Args:
        optimizer: of any class that leaves alone the parameters whose gradient is None, as those of torch do.

    Returns:
        A handle: `remove()` ends it, and so does leaving the handle's `with` block.
    """
    return StepInBackward(optimizer)


class StepInBackward:
    """The handle of `step_in_backward`."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
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
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._handles = [
            parameter.register_post_accumulate_grad_hook(hook(index))
            for index, parameter in enumerate(parameters)
            if parameter.requires_grad or is_accumulator(parameter)
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
