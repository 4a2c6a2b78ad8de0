"""The Hoyer-square penalty."""

import torch
from torch import Tensor

from bnn.methods.penalty import Penalty


class HoyerSquare(Penalty):
    """|w|_1^2 / |w|_2^2, the square of `Compressibility`; from 1 to n, the number of weights that are not zero.

    Its stationary points are the same saddles. Its gradient is 2 L dL/dw, stronger the denser w is. Source: Yang, Wen
    and Li 2020 (DeepHoyer), arXiv 1908.09979.

    Args:
        scope: see `Penalty`.
    """

    def vector_penalty(self, w: Tensor) -> Tensor:
        """|w|_1^2 / |w|_2^2 of a vector, [n]."""
        return w.abs().sum().square() / w.square().sum().clamp_min(torch.finfo(w.dtype).tiny)
