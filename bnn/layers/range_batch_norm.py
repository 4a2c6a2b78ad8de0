"""Batch norm by the range of a channel."""

import math
from typing import Literal, get_args

from torch import Tensor

from bnn.layers.deviation_norm import DeviationBatchNorm

Constant = Literal["sigma", "paper"]


class RangeBatchNorm(DeviationBatchNorm):
    """x = gamma (y - mean) / (d + eps) + beta, with d = C(n) (max y - min y) of a channel's n values.

    A range needs no squares, no roots and no wide accumulator. The paper's constant C(n) = 1 / sqrt(2 ln n) does not
    make d the standard deviation of normal values: it is 1.67 times that at n = 128. The one of the public code,
    0.175 (1 + sqrt(pi ln 4)) / sqrt(2 ln n), gives 0.82 to 0.94 times for n = 16 to 1024, and takes the mean of the
    ranges of 16 chunks of a batch, which outliers move less. In front of a sign the constant changes nothing of the
    result, only how wide the window of the gradient is. Source: Banner et al. 2018, arXiv 1805.11046, sec. 3.

    Args:
        num_features: channels.
        chunks: parts of equal size of a channel's values, whose ranges are averaged; fewer where these would have less
            than two values each. What is left over does not count for the range.
        constant: `sigma`, that of the public code, or `paper`.
        eps: added to the deviation.
        momentum: weight of a new batch in the running statistics.
        affine: whether gamma and beta are trained.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        num_features: int,
        *,
        chunks: int = 16,
        constant: Constant = "sigma",
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine)
        if chunks < 1:
            raise ValueError(f"a batch has at least 1 chunk, got {chunks}")
        if constant not in get_args(Constant):
            raise ValueError(
                f"the constant of a range norm is one of {', '.join(get_args(Constant))}, got {constant!r}"
            )
        self.chunks = chunks
        self.constant = constant

    def deviation(self, centred: Tensor) -> Tensor:
        """C(n) times the mean range of the chunks."""
        chunks = max(1, min(self.chunks, centred.shape[1] // 2))
        size = centred.shape[1] // chunks
        parts = centred[:, : chunks * size].reshape(-1, chunks, size)
        ranges: Tensor = (parts.amax(2) - parts.amin(2)).mean(1)
        return ranges * range_constant(size, self.constant)


def range_constant(n: int, constant: Constant) -> float:
    """What makes a deviation of the range of n values, n above 1."""
    factor = 1.0 if constant == "paper" else 0.175 * (1 + math.sqrt(math.pi * math.log(4)))
    return factor / math.sqrt(2 * math.log(n))
