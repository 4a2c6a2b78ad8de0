"""Ternary values with the straight-through gradient."""

from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.quantizers.base import Quantizer

# Li et al. 2016, arXiv 1605.04711: threshold near the optimum for normal and uniform weights.
_THRESHOLD_PER_MEAN = 0.7


class Ternary(Quantizer):
    """q(x) = sign(x) where |x| > threshold, else 0; the gradient passes where |x| <= 1.

    Source: Li et al. 2016 (ternary weight networks), arXiv 1605.04711.

    Args:
        threshold: half-width of the zero, at least 0; by default 0.7 mean|x| of the tensor, which is the paper's
            rule for weights.
    """

    levels = (-1.0, 0.0, 1.0)
    storage_bits = 2

    def __init__(self, *, threshold: float | None = None) -> None:
        super().__init__()
        if threshold is not None and not threshold >= 0:
            raise ValueError(f"a ternary threshold is at least 0, got {threshold}")
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Levels -1, 0 and +1 of a floating tensor, in its own dtype."""
        threshold = _THRESHOLD_PER_MEAN * x.detach().abs().mean() if self.threshold is None else self.threshold
        return _ClippedTernary.apply(x, threshold)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"threshold={f'{_THRESHOLD_PER_MEAN} mean|x|' if self.threshold is None else self.threshold}"


class _ClippedTernary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float | Tensor) -> Tensor:
        if not x.is_meta and x.isnan().any():
            raise NonFiniteError("cannot take a ternary level of NaN: the tensor to quantize has NaN values")
        ctx.save_for_backward(BitTensor.from_dense(x.abs() <= 1))
        return x.sign() * (x.abs() > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside.dense(torch.bool), None
