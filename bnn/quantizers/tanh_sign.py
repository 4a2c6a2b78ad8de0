"""Sign with the derivative of a tanh as its gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.quantizers.base import Quantizer, SlopeSteps


class TanhSign(Quantizer):
    """q(x) = +1 where x >= 0, else -1; the gradient is multiplied by 1 - tanh(a x)^2, a = pi / (2 sqrt(3 fan_in)).

    For sums of `fan_in` products of ±1, whose deviation is sqrt(fan_in), the window is as wide as they are spread, in
    place of a batch norm; behind one, `fan_in` is 1. Source: Nguyen et al. 2024 (Boolean logic deep learning), arXiv
    2405.16339, eq. 47.

    Args:
        fan_in: products in a sum, above 0.

    Raises:
        ValueError: it is out of its range.
    """

    levels = (-1.0, 1.0)
    storage_bits = 1

    def __init__(self, *, fan_in: float = 1.0) -> None:
        super().__init__()
        if not 0 < fan_in < math.inf:
            raise ValueError(f"the fan-in of a sum is above 0 and finite, got {fan_in}")
        self.fan_in = fan_in

    @property
    def is_sign(self) -> bool:
        """True, but of a subclass with another `forward`."""
        return type(self).forward is TanhSign.forward

    @property
    def slope_steps(self) -> SlopeSteps:
        """The mean of the derivative between the places where it has fallen by a quarter, a half and nine tenths."""
        edges = [math.atanh(math.sqrt(fall)) for fall in (0.25, 0.5, 0.9)]
        ends = [0.0, *edges]
        slopes = [(math.tanh(b) - math.tanh(a)) / (b - a) for a, b in zip(ends, edges, strict=False)]
        # Beyond the last edge the derivative goes on for ever: it is left out.
        return SlopeSteps(tuple(edge / self._steepness for edge in edges), (*slopes, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Signs of a floating tensor, as a `BitTensor`."""
        return _TanhSign.apply(x, self._steepness)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def _steepness(self) -> float:
        return math.pi / (2 * math.sqrt(3 * self.fan_in))

    def extra_repr(self) -> str:  # noqa: D102
        return f"fan_in={self.fan_in}"


class _TanhSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steepness: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.steepness = steepness
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * (1 - (x * ctx.steepness).tanh_().square_()), None
