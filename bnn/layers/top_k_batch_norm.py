"""Batch norm by the largest distances from the mean."""

import math

from torch import Tensor

from bnn.layers.deviation_norm import DeviationBatchNorm


class TopKBatchNorm(DeviationBatchNorm):
    """x = gamma (y - mean) / (d + eps) + beta, with d = c(n) times the mean of a channel's k largest |y - mean|.

    With k = 1 it is the L-infinity norm. c(n) = (1 + sqrt(pi ln 4)) / (2 sqrt(2 ln n)), with n the channel's values, is
    the paper's. It does not make d the standard deviation of normal values: of k = 1 that is 1.40 times as large at
    n = 128, of k = 10 it is 1.06 times. In front of a sign it changes nothing of the result, only how wide the window
    of the gradient is. Source: Hoffer et al. 2018, arXiv 1803.01814, sec. 4.

    Args:
        num_features: channels.
        k: how many distances count; all where there are fewer.
        eps: added to the deviation.
        momentum: weight of a new batch in the running statistics.
        affine: whether gamma and beta are trained.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(
        self, num_features: int, *, k: int = 10, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine)
        if k < 1:
            raise ValueError(f"a top-k norm takes at least 1 distance, got k = {k}")
        self.k = k

    def deviation(self, centred: Tensor) -> Tensor:
        """c(n) times the mean of the k largest magnitudes."""
        n = centred.shape[1]
        constant = (1 + math.sqrt(math.pi * math.log(4))) / (2 * math.sqrt(2 * math.log(n)))
        return centred.abs().topk(min(self.k, n), dim=1, sorted=False).values.mean(1) * constant
