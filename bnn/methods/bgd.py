"""Bayesian gradient descent: weights with a deviation each, which remember what earlier data said of them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bnn.optim.base import require


class BGD(torch.optim.Optimizer):
    """Mean and deviation of a normal posterior of each weight, with the posterior of old data as prior of new.

        mean = mean - eta s² E[g];  s = s sqrt(1 + (s E[g e] / 2)²) - s² E[g e] / 2

    with the gradients g of the loss at mean + s e for `samples` normal draws e. A weight that the data has fixed has a
    small deviation and moves little, so that a network which is trained on one task after the other is meant to forget
    less; nobody need tell it where a task ends, and no old example is kept. It takes two floats a weight and `samples`
    passes a step. Source: Zeno, Golan, Hoffer and Soudry 2018, arXiv 1803.10123.

    Args:
        params: parameters or groups of them, of any floating dtype.
        deviation: s at the start, above 0; the public code takes 0.01 to 0.06.
        eta: rate of the means, above 0: 1 is Bayes' rule as it follows, the public code takes 1 to 10.
        samples: draws a step, at least 1.
        generator: of the draws, or None for torch's own.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        deviation: float = 0.06,
        eta: float = 1.0,
        samples: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        require(0 < deviation < math.inf, "deviation is above 0", deviation)
        require(0 < eta < math.inf, "eta is above 0", eta)
        require(samples >= 1, "samples is at least 1", samples)
        super().__init__(params, {"deviation": deviation, "eta": eta})
        self.samples = samples
        self.generator = generator
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["deviation"] = torch.full_like(parameter, group["deviation"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One update.

        Args:
            closure: clears the gradients, computes the loss at the weights as they are, calls `backward`, and gives the
                loss. It is the negative logarithm of the batch's likelihood: a **sum** over examples, not a mean.

        Returns:
            The loss, averaged over the draws.
        """
        weights = [(parameter, group) for group in self.param_groups for parameter in group["params"]]
        means = [parameter.clone() for parameter, _ in weights]
        gradients = [torch.zeros_like(mean) for mean in means]
        products = [torch.zeros_like(mean) for mean in means]
        total = torch.zeros(())
        for _ in range(self.samples):
            draws = []
            for (parameter, _), mean in zip(weights, means, strict=True):
                draw = torch.empty_like(mean).normal_(generator=self.generator)
                parameter.copy_(mean + self.state[parameter]["deviation"] * draw)
                draws.append(draw)
            with torch.enable_grad():
                total += closure().detach()
            for (parameter, _), draw, gradient, product in zip(weights, draws, gradients, products, strict=True):
                if parameter.grad is not None:
                    gradient += parameter.grad / self.samples
                    product += parameter.grad * draw / self.samples
        for (parameter, group), mean, gradient, product in zip(weights, means, gradients, products, strict=True):
            deviation = self.state[parameter]["deviation"]
            parameter.copy_(mean - group["eta"] * deviation.square() * gradient)
            half = deviation * product / 2
            deviation.copy_(deviation * ((1 + half.square()).sqrt() - half))
        return total / self.samples
