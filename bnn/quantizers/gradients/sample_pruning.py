"""Gradients of one bit on average: a few examples in a few bits."""

import torch
from torch import Tensor

from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude
from bnn.random.rounding import round_to_integers_


class SamplePruning(GradientQuantizer):
    """Keeps each example's gradient with probability p, times 1 / p and in few bits, and drops the others: E[q(g)] = g.

    p is in proportion to the example's largest magnitude R, and the p of a batch of n sum up to n / bits, so that an
    element has 1 bit on average. The paper leaves p above 1 undefined; here it is 1, and what is beyond is given to the
    other examples. What is kept is rounded stochastically to a grid of its own: one for each example where it makes the
    input's gradient, and one for each channel, with a draw of its own, where it makes the weight's, so that either
    product could be one of integers. R is the paper's range, max - min; with the largest magnitude zeros stay zero.
    Source: Gao et al. 2024 (1-bit fully quantized training), arXiv 2408.14267. Their public code takes the n / bits
    largest examples without 1 / p, which is biased.

    Args:
        bits: of the elements that are kept, 2 to 8.
        generator: of the choice and the rounding; needed.

    Raises:
        ValueError: the width is out of its range.
    """

    storage_bits = 1

    def __init__(self, *, bits: int = 4, generator: torch.Generator) -> None:
        super().__init__(generator=generator)
        if not 2 <= bits <= 8:
            raise ValueError(f"what sample pruning keeps has 2 to 8 bits, got {bits}")
        self.bits = bits

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient for the input's, [N, ...], with a scale of each example."""
        return self._rounded(self._pruned(gradient), dim=0).to(gradient.dtype)

    def for_weight(self, gradient: Tensor) -> Tensor:
        """The gradient for the weight's, [N, C, ...], with a scale of each channel."""
        return self._rounded(self._pruned(gradient), dim=min(1, gradient.dim() - 1)).to(gradient.dtype)

    def _pruned(self, gradient: Tensor) -> Tensor:
        if largest_magnitude(gradient) == 0:
            return gradient.clone()
        values = gradient.float()
        ranges = _largest(values, dim=0)
        keep = keep_probabilities(ranges, budget=len(ranges) / self.bits)
        draw = torch.empty_like(keep).uniform_(generator=self.generator)
        factor = torch.where(draw < keep, 1 / keep.clamp(min=1e-30), 0.0)
        return values * factor.view(-1, *[1] * (values.dim() - 1))

    def _rounded(self, values: Tensor, *, dim: int) -> Tensor:
        if not values.numel():
            return values
        shape = [1] * values.dim()
        shape[dim] = -1
        largest = 2 ** (self.bits - 1) - 1
        step = (_largest(values.float(), dim=dim) / largest).view(shape)
        # Where all is 0 so is the result.
        steps = round_to_integers_(values.float() / step.clamp(min=torch.finfo(torch.float32).tiny), self.generator)
        return steps.clamp_(-largest, largest).mul_(step)

    def extra_repr(self) -> str:  # noqa: D102
        return f"bits={self.bits}"


def _largest(values: Tensor, *, dim: int) -> Tensor:
    """The largest magnitude of each index of a dimension."""
    return values.abs().movedim(dim, 0).flatten(1).amax(1) if values.dim() > 1 else values.abs()


def keep_probabilities(ranges: Tensor, *, budget: float) -> Tensor:
    """Probabilities in proportion to ranges that sum up to a budget, none above 1; 0 where the range is.

    Args:
        ranges: float [n], at least 0.
        budget: the sum, at least 0; where fewer ranges than that are above 0, each of these has 1.
    """
    ordered, order = ranges.sort(descending=True)
    rest = ordered.flip(0).cumsum(0).flip(0)  # of each range and all that are smaller
    left = budget - torch.arange(len(ranges), device=ranges.device)
    # The largest have 1 as long as their share of what is left of the budget would be more.
    capped = (ordered * left >= rest).cumprod(0).bool()
    total = torch.where(capped, 0.0, ordered).sum().clamp(min=torch.finfo(ranges.dtype).tiny)
    shares = ordered * ((budget - capped.sum()).clamp(min=0) / total)
    keep = torch.where(capped, 1.0, shares.clamp(max=1)) * (ordered > 0)
    return torch.empty_like(ranges).scatter_(0, order, keep)
