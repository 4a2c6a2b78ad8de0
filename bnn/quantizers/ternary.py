"""Ternary values, with a straight-through gradient or one that is confined to a window around the steps."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.quantizers.base import Quantizer

# Li et al. 2016, arXiv 1605.04711: threshold near the optimum for normal and uniform weights.
_THRESHOLD_PER_MEAN = 0.7

Surrogate = Literal["straight_through", "rectangular", "triangular"]


class Ternary(Quantizer):
    """q(x) = sign(x) where |x| > threshold, else 0; the gradient is that of `surrogate`.

    With r the threshold, a the window and d = ||x| - r| the distance to the nearest step, dq/dx is taken as

    - `straight_through`: 1 where |x| <= 1;
    - `rectangular`: 1 / (2 a) where d <= a;
    - `triangular`: (1 - d / a) / a where d <= a.

    With a <= r a window's integral is 1, the height of its step. Sources: Li et al. 2016 (ternary weight networks),
    arXiv 1605.04711; Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, for the windows. Backward keeps one bit an
    element, and for `triangular` x itself.

    Args:
        threshold: half-width of the interval that becomes 0, at least 0; by default 0.7 mean|x| of the tensor, which is
            the first paper's rule for weights.
        surrogate: the gradient, see above.
        window: half-width of a window, above 0; `straight_through` has its own.
    """

    levels = (-1.0, 0.0, 1.0)
    storage_bits = 2

    def __init__(
        self,
        *,
        threshold: float | None = None,
        surrogate: Surrogate = "straight_through",
        window: float = 0.5,
    ) -> None:
        super().__init__()
        if threshold is not None and not threshold >= 0:
            raise ValueError(f"a ternary threshold is at least 0, got {threshold}")
        if surrogate not in get_args(Surrogate):
            names = ", ".join(get_args(Surrogate))
            raise ValueError(f"the surrogate of a ternary gradient is one of {names}, got {surrogate!r}")
        if not 0 < window < math.inf:
            raise ValueError(f"the window of a ternary gradient is finite and above 0, got {window}")
        self.threshold = threshold
        self.surrogate = surrogate
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Levels -1, 0 and +1 of a floating tensor, in its own dtype."""
        threshold = _THRESHOLD_PER_MEAN * x.detach().abs().mean() if self.threshold is None else self.threshold
        if not x.is_meta and x.isnan().any():
            raise NonFiniteError("cannot take a ternary level of NaN: the tensor to quantize has NaN values")
        if self.surrogate == "triangular":
            return _Triangular.apply(x, threshold, self.window)  # type: ignore[no-any-return, no-untyped-call]
        if self.surrogate == "straight_through":
            return _Rectangular.apply(x, threshold, 0.0, 1.0, 1.0)  # type: ignore[no-any-return, no-untyped-call]
        return _Rectangular.apply(x, threshold, threshold, self.window, 1 / (2 * self.window))  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        threshold = f"{_THRESHOLD_PER_MEAN} mean|x|" if self.threshold is None else self.threshold
        window = "" if self.surrogate == "straight_through" else f", surrogate={self.surrogate}, window={self.window}"
        return f"threshold={threshold}{window}"


def _levels(x: Tensor, threshold: float | Tensor) -> Tensor:
    return x.sign() * (x.abs() > threshold)


class _Rectangular(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, threshold: float | Tensor, centre: float | Tensor, window: float, height: float
    ) -> Tensor:
        ctx.height = height
        ctx.save_for_backward(BitTensor.from_dense((x.abs() - centre).abs() <= window))
        return _levels(x, threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside.dense(torch.bool) * ctx.height, None, None, None, None


class _Triangular(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: float | Tensor, window: float) -> Tensor:
        ctx.threshold, ctx.window = threshold, window
        ctx.save_for_backward(x)
        return _levels(x, threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        slope = (1 - (x.abs() - ctx.threshold).abs() / ctx.window).clamp_(min=0) / ctx.window
        return grads[0] * slope, None, None
