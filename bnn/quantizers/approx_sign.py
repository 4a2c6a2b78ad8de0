"""Sign with a piecewise-polynomial gradient."""

from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.quantizers.base import Quantizer, SlopeSteps


# Below 1, where the polynomial ends, so that a bfloat16 value that an activation has clamped to 1 lies beyond.
_END = 1 - 2**-9


class ApproxSign(Quantizer):
    """q(x) = +1 where x >= 0, else -1; the gradient is multiplied by max(0, 2 - 2|x|).

    The factor integrates to 2 over [-1, 1], the height of the step. Source: Liu et al. 2018 (Bi-Real Net),
    arXiv 1808.00278; used for activations by ReCU, arXiv 2103.12369, eq. 6.
    """

    levels = (-1.0, 1.0)
    storage_bits = 1

    @property
    def is_sign(self) -> bool:
        """True, but of a subclass with another `forward`."""
        return type(self).forward is ApproxSign.forward

    @property
    def slope_steps(self) -> SlopeSteps:
        """The mean of the polynomial in each third of [0, 1]."""
        return SlopeSteps((1 / 3, 2 / 3, _END), (5 / 3, 1.0, 1 / 3, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Signs of a floating tensor, as a `BitTensor`."""
        return _PolynomialSign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _PolynomialSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * x.abs().mul_(-2).add_(2).clamp_(min=0)
