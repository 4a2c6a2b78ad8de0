"""Sign with the straight-through gradient of binary networks."""

from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.ops import functions as _bnn
from bnn.ops.layout import in_memory_order
from bnn.quantizers.base import Quantizer, SlopeSteps


class Sign(Quantizer):
    """q(x) = +1 where x >= 0, else -1; the gradient passes where |x| <= window and is zero elsewhere.

    Source: Courbariaux et al. 2016, arXiv 1602.02830, eq. 4 (the clipped straight-through estimator). Backward
    keeps one bit an element: whether it lies in the window.

    Args:
        window: half-width of the interval that passes the gradient; above 0, `inf` passes all.
    """

    levels = (-1.0, 1.0)
    storage_bits = 1

    def __init__(self, *, window: float = 1.0) -> None:
        super().__init__()
        if not window > 0:
            raise ValueError(f"the window of a straight-through gradient is above 0, got {window}")
        self.window = window

    @property
    def is_sign(self) -> bool:
        """True, but of a subclass with another `forward`."""
        return type(self).forward is Sign.forward

    @property
    def slope_steps(self) -> SlopeSteps:
        """The window, exactly."""
        return SlopeSteps((self.window,), (1.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Signs of a floating tensor, as a `BitTensor`. Those of a `BitTensor` are itself."""
        if isinstance(x, BitTensor) and self.window >= 1:
            return x
        return _ClippedSign.apply(x, self.window)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"window={self.window}"


class _ClippedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: float) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return BitTensor.from_dense(x)
        x, rows = in_memory_order(x)
        signs, inside = (BitTensor(bits, x.shape, x.stride(), x.dtype) for bits in _bnn.sign_window(rows, window))
        ctx.save_for_backward(inside)
        return signs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        grad = grads[0]
        if grad.stride() != inside.stride():
            grad = torch.empty_strided(grad.shape, inside.stride(), dtype=grad.dtype, device=grad.device).copy_(grad)
        _, rows = in_memory_order(grad)
        return _bnn.mask(rows, inside.packed).as_strided(inside.shape, inside.stride()), None
