"""The compressibility loss."""

import torch
from torch import Tensor

from bnn.methods.penalty import Penalty, Scope


class Compressibility(Penalty):
    """L(w) = |w|_1 / |w|_2, plus `magnitude` times c = |w|_2^2 / |w|_1.

    Source: Aytekin, Cricri and Aksu 2019, arXiv 1905.01044. 1 <= L <= sqrt(n) for n weights. L does not depend on the
    scale of w, so that its gradient is orthogonal to w and a step of plain descent can only lengthen w. With n weights
    that are not zero,

        dL/dw_i = sign(w_i) / |w|_2 (1 - |w_i| / c)     and     |dL/dw| = sqrt(n - L^2) / |w|_2.

    Hence L is stationary exactly where all of these have the same magnitude, c: the weight is ternary, and L = sqrt(n).

    These points are saddles. A ternary weight is a maximum among the weights of its own support (by Cauchy and
    Schwarz, L = sqrt(n) is the largest value that n weights can have) and a minimum only against letting its zeros
    grow. Weights below c shrink and those above it grow, so descent on L alone goes on from one ternary point to the
    next until a single weight is left. Use it beside the loss of the task, with a strength that goes back to 0 before
    the end (`trapezoid`) and a term that bounds the magnitude, such as weight decay or `magnitude`; then zero the
    small weights and tune the rest.

    Args:
        scope: see `Penalty`.
        magnitude: factor of c, at least 0. Of a ternary weight of magnitude 1 the penalty is sqrt(n) + magnitude.
    """

    def __init__(self, *, scope: Scope = "layer", magnitude: float = 0.0) -> None:
        super().__init__(scope=scope)
        if not magnitude >= 0:
            raise ValueError(f"the factor of the magnitude is at least 0, got {magnitude}")
        self.magnitude = magnitude

    def vector_penalty(self, w: Tensor) -> Tensor:
        """L + magnitude c of a vector, [n]."""
        l1, l2_squared, tiny = w.abs().sum(), w.square().sum(), torch.finfo(w.dtype).tiny
        ratio = l1 / l2_squared.clamp_min(tiny).sqrt()
        return ratio if self.magnitude == 0 else ratio + self.magnitude * l2_squared / l1.clamp_min(tiny)
