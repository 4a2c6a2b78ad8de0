"""Sign with a piecewise-polynomial gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.quantizers.base import Quantizer, SlopeSteps

# Below 1, where the polynomial ends, so that a bfloat16 value that an activation has clamped to 1 lies beyond.
_END = 1 - 2**-9

_EPSILON = 1e-5


class ApproxSign(Quantizer):
    """q(x) = +1 where x >= 0, else -1; the gradient is multiplied by max(0, 2 - 2|x|).

    The factor integrates to 2 over [-1, 1], the height of the step. Source: Liu et al. 2018 (Bi-Real Net),
    arXiv 1808.00278; used for activations by ReCU, arXiv 2103.12369, eq. 6.

    Args:
        normalize: whether the gradient is that of the sign of x / sqrt(var + 1e-5), where var is the unbiased variance
            of each example's elements, x[i]. The signs are the same. The window is then as wide as an example's
            standard deviation, and what would only change the size of an example is taken from its gradient. Not
            in ReCU's paper, but in its public code.
    """

    levels = (-1.0, 1.0)
    storage_bits = 1

    def __init__(self, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    @property
    def is_sign(self) -> bool:
        """True, but of a subclass with another `forward`."""
        return type(self).forward is ApproxSign.forward

    @property
    def slope_steps(self) -> SlopeSteps | None:
        """The mean of the polynomial in each third of [0, 1]; None where it depends on the example."""
        return None if self.normalize else SlopeSteps((1 / 3, 2 / 3, _END), (5 / 3, 1.0, 1 / 3, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Signs of a floating tensor, [N, ...] of at least two dimensions to normalize, as a `BitTensor`."""
        sign = _NormalizedSign if self.normalize else _PolynomialSign
        return sign.apply(x)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"normalize={self.normalize}"


class _PolynomialSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * _slope(x)


class _NormalizedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        dims, others = list(range(1, x.dim())), max(1, math.prod(x.shape[1:]) - 1)
        centered = x - x.mean(dims, keepdim=True)
        deviation = (centered.square().sum(dims, keepdim=True) / others + _EPSILON).sqrt()
        # With y = x / s, and s a function of every x: dx = dy / s - (x - mean) / s sum(dy y) / (s (n - 1)).
        y = x / deviation
        grad = grads[0] * _slope(y)
        radial = (grad * y).sum(dims, keepdim=True) / (deviation * others)
        return (grad - centered * radial) / deviation


def _slope(x: Tensor) -> Tensor:
    """max(0, 2 - 2|x|), which stands for the derivative of the sign."""
    return x.abs().mul_(-2).add_(2).clamp_(min=0)
