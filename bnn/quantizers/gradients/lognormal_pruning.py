"""Stochastic pruning of gradients."""

import math

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude

_BISECTIONS = 60
# Outside, the closed form leaves the range of floats; ln|g| of float32 gradients lies well inside.
_SIGMA_RANGE = (1e-3, 30.0)


class LognormalPruning(GradientQuantizer):
    """q(g) = g where |g| >= t; else t sign(g) with probability |g| / t, and 0 otherwise. Hence E[q(g)] = g.

    The threshold t that prunes the wanted part comes from a lognormal fit: t = eps e^mu, with mu and sigma the mean
    and standard deviation of ln|g| over what is not zero, and eps from `threshold_ratio`. Zeros that are there already
    count: with a part z of them, (sparsity - z) / (1 - z) of the others are pruned, none if that is below 0. Source:
    Chmiel et al. 2021, arXiv 2006.08173, sec. 5 and appendix.

    Args:
        sparsity: part of the elements that are to be 0 on average, in (0, 1); held as well as the fit holds.
        generator: of the pruning; needed.
    """

    storage_bits = 32

    def __init__(self, *, sparsity: float = 0.85, generator: torch.Generator) -> None:
        super().__init__(generator=generator)
        if not 0 < sparsity < 1:
            raise ValueError(f"the sparsity of a pruned gradient lies in (0, 1), got {sparsity}")
        self.sparsity = sparsity

    def forward(self, gradient: Tensor) -> Tensor:
        """The pruned gradient."""
        if largest_magnitude(gradient) == 0:
            return gradient.clone()
        magnitude = gradient.float().abs()
        present = magnitude[magnitude > 0]
        zeros = 1 - present.numel() / gradient.numel()
        to_prune = (self.sparsity - zeros) / (1 - zeros)
        if to_prune <= 0:
            return gradient.clone()
        logarithm = present.log()
        sigma = float(logarithm.std(correction=0))
        threshold = math.exp(float(logarithm.mean())) * threshold_ratio(to_prune, sigma)
        draw = torch.empty_like(magnitude).uniform_(0, threshold, generator=self.generator)
        small = torch.where(draw < magnitude, threshold, 0.0).to(gradient.dtype).copysign_(gradient)
        return torch.where(magnitude >= threshold, gradient, small)

    def extra_repr(self) -> str:  # noqa: D102
        return f"sparsity={self.sparsity}"


def threshold_ratio(sparsity: float, sigma: float) -> float:
    """The eps for which stochastic pruning at eps e^mu leaves that part of a lognormal variable zero.

    sparsity = E[max(0, 1 - |g| / (eps e^mu))]
             = 1/2 + erf(ln eps / (sqrt 2 sigma)) / 2
               - e^(sigma^2 / 2) / (2 eps) [1 + erf((ln eps - sigma^2) / (sqrt 2 sigma))].

    Source: Chmiel et al., arXiv 2006.08173, sec. 5.

    Args:
        sparsity: in (0, 1).
        sigma: standard deviation of ln|g|; taken to lie in [0.001, 30].
    """
    sigma = min(max(sigma, _SIGMA_RANGE[0]), _SIGMA_RANGE[1])
    # The sparsity rises with eps; it is at least 1 - E|g| / (eps e^mu), and at most the part below eps e^mu.
    low, high = -10 * sigma, sigma**2 / 2 - math.log1p(-sparsity)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _sparsity(middle, sigma) < sparsity else (low, middle)
    return math.exp(high)


def _sparsity(log_eps: float, sigma: float) -> float:
    below = math.erfc(-log_eps / (math.sqrt(2) * sigma)) / 2
    kept = math.erfc((sigma**2 - log_eps) / (math.sqrt(2) * sigma)) / 2
    return below - math.exp(sigma**2 / 2 - log_eps) * kept
