"""The passes of a block over a slice of which several ranks have some examples each: the same bits for any of them.

What adds up over examples is formed one example at a time, so that no result depends on which of them are here, and
summed by `bnn.distributed.Exact`. Random numbers are keyed by the example's row in the joint batch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from bnn.bits import BitTensor, in_memory_order
from bnn.distributed import Exact, current_exchange, shares_slices
from bnn.layers import products
from bnn.layers.recomputed import Integers, Passes, Plan, product, real_gradients
from bnn.ops import functions as _bnn
from bnn.ops.batch_norm import gradient_terms_of, statistics_of
from bnn.ops.geometry import Window
from bnn.ops.rounding import scale_of
from bnn.quantizers.gradients import GradientQuantizer
from bnn.random.streams import example_seed

_WHOLE = Passes()
_EXACT_IN_FLOAT32 = 2**24
_LARGEST = 127


def passes_in_use() -> Passes:
    """Those of the exchange that is in use."""
    exchange = current_exchange()
    return JointPasses(exchange) if shares_slices(exchange) else _WHOLE


class JointPasses(Passes):
    """See `Passes`."""

    def __init__(self, exchange: Exact) -> None:
        self.exchange = exchange

    def product(self, x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Of a real input an example at a time: libraries choose the order of a sum by the size of the batch."""
        if isinstance(x, BitTensor):
            return product(x, weight, plan)
        parts, choices, shapes = zip(*(product(row, weight, plan) for row in torch.split(x, 1)), strict=True)
        all_choices = None if plan.pool is None else torch.cat(choices, dim=1)
        y = torch.cat([part.movedim(1, -1) for part in parts]).movedim(-1, 1)
        return y, all_choices, torch.Size((len(x), *shapes[0][1:]))

    def values_a_channel(self, y: Tensor) -> int:
        """On all ranks."""
        return self.exchange.part.examples * y[0, 0].numel()

    def batch_statistics(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """The mean of the examples' means, and the mean of their variances plus the variance of their means."""
        y, scale, gamma, beta, eps, *running = arguments
        pixels, of_examples = y[0, 0].numel(), torch.zeros((len(y), 3, y.shape[1]), dtype=torch.float64)
        if pixels == 1:
            of_examples[:, 0] = y.flatten(1)
        else:
            moments = torch.zeros((len(y), 2, y.shape[1]))
            for image, (mean, variance) in zip(torch.split(y, 1), moments, strict=True):
                # A momentum of 1 leaves the example's own; the variance is the estimate of more than it.
                _bnn.batch_statistics(image, None, None, None, 1.0, mean, variance, 1.0)
            of_examples[:, :2] = moments
            of_examples[:, 1] *= (pixels - 1) / pixels
        of_examples[:, 2] = of_examples[:, 0].square()
        mean, variance, square = self.exchange.sum_of(of_examples) / self.exchange.part.examples
        variance = variance + (square - mean.square()).clamp(min=0)
        count = self.values_a_channel(y)
        return statistics_of(mean, variance, count, scale, gamma, beta, eps, *running)

    def norm_gradient_terms(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """By the examples' own sums; the bound is the largest magnitude itself."""
        grad, codes, slopes, y, moments, scale, gamma, eps = arguments
        of_examples = torch.empty((len(y), 2, y.shape[1]), dtype=torch.float64)
        for i, sums in enumerate(of_examples):
            one = slice(i, i + 1)
            _, _, (_, along, sum_) = _bnn.norm_gradient_terms(
                grad[one], codes[:, one], slopes, y[one], moments, None, None, eps
            )
            sums[0], sums[1] = sum_, along
        sum_, along = self.exchange.sum_of(of_examples)
        along = along / moments[1].double()
        count = self.values_a_channel(y)
        terms, _, of_parameters = gradient_terms_of(sum_, along, count, moments, scale, gamma, eps)
        bound = self.exchange.largest(_bnn.norm_gradient(grad, codes, slopes, y, terms))
        return terms, bound, of_parameters

    def norm_gradient_integers(self, *arguments: Any) -> Integers:
        """With random numbers of each example's own."""
        grad, codes, slopes, y, terms, bound, largest, seed = arguments
        parts = []
        for i, row in enumerate(self.exchange.part.rows):
            one, own_seed = slice(i, i + 1), example_seed(seed=seed, row=row)
            q, _ = _bnn.norm_gradient_integers(
                grad[one], codes[:, one], slopes, y[one], terms, bound, largest, own_seed
            )
            parts.append(q.movedim(1, -1))
        return torch.cat(parts).movedim(-1, 1), scale_of(bound, largest)[0]

    def weight_gradient(
        self,
        q: Tensor,
        scale: Tensor,
        x: Tensor,
        weight: BitTensor,
        window: Window | None,
        quantizer: GradientQuantizer | None,
        of_output: GradientQuantizer | None,
    ) -> Tensor:
        """Signs of the sums over all ranks, or the sums; of the integers, which no rank draws to be ternary."""
        if not isinstance(x, BitTensor):
            return self._of_real_input(q, scale, x, weight, window)
        seed = None if quantizer is None else quantizer.sign_seed()
        sums = self._own_sums(q, x, weight, window)
        if seed is None:
            return self.exchange.sums_of(sums).float().mul_(scale)
        packed = self.exchange.signs_of(in_memory_order(sums)[1], terms=q[0, 0].numel(), seed=seed)
        return BitTensor(packed, weight.shape, weight.stride(), weight.dtype)

    def real_gradients(self, *arguments: Any) -> tuple[Tensor | None, Tensor | None]:
        """An example at a time."""
        (grad, codes, slopes, y, terms), x, weight, choices, shape, plan, needs = arguments
        of_x, of_weight = [], []
        for i in range(len(x)):
            one = slice(i, i + 1)
            of_norm = (grad[one], codes[:, one], slopes, y[one], terms)
            own_choices = None if choices is None else choices[:, one]
            of_input, of_weights = real_gradients(
                of_norm, x[one], weight, own_choices, torch.Size((1, *shape[1:])), plan, needs
            )
            of_x.append(of_input)
            of_weight.append(of_weights)
        return (
            torch.cat(cast(list[Tensor], of_x)) if needs[0] else None,
            self.exchange.sum_of(torch.stack(cast(list[Tensor], of_weight))).to(weight.dtype) if needs[1] else None,
        )

    def _own_sums(self, q: Tensor, x: BitTensor, weight: BitTensor, window: Window | None) -> Tensor:
        """Whole numbers in float32, of so many examples at a time that they are exact."""
        one = torch.ones((), device=q.device)
        rows = max(1, _EXACT_IN_FLOAT32 // (_LARGEST * q[0, 0].numel()))
        parts = zip(torch.split(q, rows), torch.split(x, rows), strict=True)
        first, *others = (products.weight_gradient(a, one, b, weight, window, None) for a, b in parts)
        if not others:
            return first
        total = first.double()
        for other in others:
            total += other
        return total

    def _of_real_input(self, q: Tensor, scale: Tensor, x: Tensor, weight: BitTensor, window: Window | None) -> Tensor:
        if window is None:
            return self.exchange.whole_sums(q, x).to(x.dtype) * scale
        of_examples = [
            _bnn.real_conv2d_backward_weight(a, b, weight.shape, window)
            for a, b in zip(torch.split(q, 1), torch.split(x, 1), strict=True)
        ]
        sums = self.exchange.sum_of(torch.stack(of_examples)).to(x.dtype)
        return sums.contiguous(memory_format=torch.channels_last).mul_(scale)
