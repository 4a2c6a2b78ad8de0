"""Sign of latent weights whose filters keep their norm."""

import math

import torch
from torch import Tensor

from bnn.quantizers.sign import Sign


class BoundedSign(Sign):
    """q(w) = sign(w); after each step every filter is scaled back to the norm with which it is drawn.

    Bounded weight norm is w = rho v / |v| with rho fixed at its initial value. Behind a batch norm, and in front of a
    sign, the norm of a filter changes nothing but how far a step turns it, which goes with the rate over |w|^2. Kept at
    rho, the rate alone decides that, and there is no weight decay to tune. Latent weights are drawn with a deviation of
    1 / sqrt(fan-in), so that rho is 1. Presets with accumulators, which have no norm, do without it.
    Source: Hoffer et al. 2018, arXiv 1803.01814, sec. 3.

    Args:
        norm: rho, of each filter, above 0.
        window: half-width of the interval that passes the gradient, above 0; weights of a filter of norm 1 lie in 1.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(self, *, norm: float = 1.0, window: float = 1.0) -> None:
        super().__init__(window=window)
        if not 0 < norm < math.inf:
            raise ValueError(f"the norm of a filter is above 0 and finite, got {norm}")
        self.norm = norm

    def project_(self, weight: Tensor) -> None:
        """Scales each filter of [out, ...] to the norm; one of zeros stays."""
        with torch.no_grad():
            norms = weight.flatten(1).norm(dim=1, dtype=torch.float32).clamp_min(torch.finfo(torch.float32).tiny)
            weight.mul_((self.norm / norms).to(weight.dtype).view(-1, *[1] * (weight.dim() - 1)))

    def extra_repr(self) -> str:  # noqa: D102
        return f"norm={self.norm}, window={self.window}"
