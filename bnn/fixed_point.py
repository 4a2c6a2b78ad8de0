"""`FixedPoint`: a trainable parameter that takes one byte an element, and nothing floating beside it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnn.rounding import round_to_integers_

STEPS_PER_UNIT = 128


class FixedPoint(nn.Parameter):
    """An int8 parameter whose code c stands for (c + 1/2) / 128: 256 values in (-1, 1), of which none is zero.

    torch gives gradients to floating tensors alone. What reads a FixedPoint hands it its gradient by `accumulate`;
    optimizers of `bnn.optim` then find it in `.grad`, and hooks are called, as for every other parameter. Its
    `requires_grad` is False. torch's own optimizers cannot step it.

    Args:
        data: int8 codes.
    """

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> FixedPoint:  # noqa: D102
        parameter = super().__new__(cls, data, requires_grad=False)
        parameter.grad_dtype = None  # any dtype
        parameter._hooks = OrderedDict()
        return parameter

    _hooks: OrderedDict[int, Callable[[Tensor], None]]

    def accumulate(self, gradient: Tensor) -> None:
        """Adds a gradient of the parameter's shape and any floating dtype, then calls the hooks."""
        self.grad = gradient if self.grad is None else self.grad + gradient
        for hook in list(self._hooks.values()):
            hook(self)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        """As of any parameter: `hook(parameter)` is called when its gradient has been accumulated."""
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle


def decode(codes: Tensor) -> Tensor:
    """The float32 values of int8 codes."""
    return codes.float().add_(0.5).div_(STEPS_PER_UNIT)


def encode(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """The int8 codes of float32 values, which are clamped to (-1, 1).

    The rounding is stochastic, or to the nearest where there is no generator.
    """
    codes = round_to_integers_(values * STEPS_PER_UNIT - 0.5, generator)
    return codes.clamp_(-STEPS_PER_UNIT, STEPS_PER_UNIT - 1).to(torch.int8)
