"""The lognormal distribution that gradients are near to, fitted to one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LognormalFit:
    """What ln|g| of the elements g of a gradient that are not 0 looks like.

    A straight-through window makes exact zeros, so that they are told apart. Source: Chmiel et al. 2021, arXiv
    2006.08173, sec. 3.
    """

    mu: float
    """Mean of ln|g|."""
    sigma: float
    """Standard deviation of ln|g|."""
    zeros: float
    """Share of elements that are 0."""
    distance: float
    """The largest distance of the distribution function of ln|g| from the normal one of mu and sigma, in 0..1 (that of
    Kolmogorov and Smirnov); near 0 where the fit is good."""

    @property
    def octaves(self) -> float:
        """Standard deviation of log2|g|."""
        return self.sigma / math.log(2)


def fit_lognormal(gradient: Tensor) -> LognormalFit | None:
    """The fit; None where all elements are 0.

    Args:
        gradient: finite, of any shape and floating dtype.
    """
    magnitude = gradient.detach().float().abs().flatten()
    logarithm = magnitude[magnitude > 0].log().double().sort().values
    count = logarithm.numel()
    if not count:
        return None
    mu, sigma = float(logarithm.mean()), float(logarithm.std(correction=0))
    normal = torch.special.ndtr((logarithm - mu) / max(sigma, 1e-12))
    below = torch.arange(count, dtype=torch.float64, device=normal.device) / count
    distance = float(torch.maximum(normal - below, below + 1 / count - normal).max())
    return LognormalFit(mu, sigma, 1 - count / magnitude.numel(), distance)
