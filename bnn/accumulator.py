"""`Accumulator`: a trainable parameter of any dtype, whose gradient may be packed signs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Accumulator(nn.Parameter):
    """A parameter within [-1, 1] that autograd does not know.

    torch gives gradients to floating tensors alone, and of their own dtype. What reads an Accumulator hands it its
    gradient by `accumulate` instead, a `BitTensor` for one; optimizers of `bnn.optim` then find it in `.grad`, and
    hooks are called, as for every other parameter. They clamp it to [-1, 1] after each step. Its `requires_grad` is
    False. torch's own optimizers cannot step it.

    Args:
        data: float16, bfloat16 or float32; int8 makes a `bnn.fixed_point.FixedPoint`.
    """

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> Accumulator:  # noqa: D102
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
