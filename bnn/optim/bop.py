"""Bop: the binary optimizer, which has no latent weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bnn.optim.base import LowBitOptimizer, require


class Bop(LowBitOptimizer):
    """m = (1 - lr) m + lr g; a weight flips where |m| > threshold and m has the weight's sign.

    The first step replaces each weight by its sign: parameters are ±1 from then on (int8: ± the largest
    value). Source: Helwegen et al. 2019, arXiv 1906.02107, algorithm 1, whose defaults for CIFAR-10 these are. The
    paper gives norms, biases and the real layers to Adam.

    Args:
        params: binary parameters or groups of them, such as the weights of `LatentStore`s.
        lr: the paper's adaptivity rate gamma, in (0, 1]; it is scheduled as a learning rate is.
        threshold: the paper's tau, at least 0. It scales with the gradients.
        state_dtype: of the mean: float32, bfloat16, float16 or int8, that is 4, 2, 2 or 1 bytes a weight.
        seed: of the stochastic rounding.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-4,
        threshold: float = 1e-8,
        state_dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "threshold": threshold, "seed": seed}, state_dtype=state_dtype)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        super().check_group(group)
        require(0 < group["lr"] <= 1, "Bop's lr lies in (0, 1]", group["lr"])
        require(group["threshold"] >= 0, "threshold is at least 0", group["threshold"])

    def moments(self, group: dict[str, Any]) -> dict[str, bool]:
        """The mean of the gradient."""
        return {"exp_avg": False}

    def update(self, weight: Tensor, gradient: Tensor, moments: list[Tensor], group: dict[str, Any], step: int) -> None:
        """Bop's formula."""
        (mean,) = moments
        mean.lerp_(gradient, group["lr"])
        flips = (mean.abs() > group["threshold"]) & ((mean > 0) == (weight >= 0))
        weight.copy_(torch.where((weight >= 0) ^ flips, 1.0, -1.0))
