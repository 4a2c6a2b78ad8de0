"""The passes of a block over a slice of which several ranks have some examples each: the same bits for any of them.

Real numbers that add up over examples are formed one example at a time, so that no result depends on which of them are
here, and summed by `bnn.distributed.Exact`. Random numbers are keyed by the example's row in the joint batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from bnn.bits import BitTensor, slice_rows
from bnn.distributed import Exact, current_exchange, shares_slices
from bnn.layers import products
from bnn.layers.plan import Plan
from bnn.layers.recomputed import Integers, Passes, product, quantized, real_gradients
from bnn.ops import functions as _bnn
from bnn.ops.batch_norm import bound_of, gradient_terms_of, statistics_of
from bnn.ops.cpu.products import sums_pixels_alone
from bnn.ops.geometry import Window
from bnn.quantizers.gradients import GradientQuantizer

_WHOLE = Passes()
_FEW_PRODUCTS = 256  # that a processor forms while it sends the two bytes of a sum


def passes_in_use() -> Passes:
    """Those of the exchange that is in use."""
    exchange = current_exchange()
    return JointPasses(exchange) if shares_slices(exchange) else _WHOLE


class JointPasses(Passes):
    """See `Passes`."""

    are_of_whole_slices = False

    def __init__(self, exchange: Exact) -> None:
        self.exchange = exchange

    def quantized(self, x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Of real numbers, which a rank alone may find to be none, once all have found them to be."""
        result = quantized(x, plan)
        if not isinstance(x, BitTensor) and plan.input_steps is not None:
            self.exchange.ranks.agree()
        return result

    def product(self, x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None, torch.Size]:
        """Of a real input an example at a time, where a library chooses the order of a sum by the size of the batch."""
        is_of_kernels = plan.window is not None and isinstance(weight, BitTensor) and sums_pixels_alone(x, plan.window)
        if isinstance(x, BitTensor) or is_of_kernels:
            return product(x, weight, plan)
        parts, choices, shapes = zip(*(product(row, weight, plan) for row in torch.split(x, 1)), strict=True)
        all_choices = None if plan.pool is None else torch.cat(choices, dim=1)
        y = torch.cat([part.movedim(1, -1) for part in parts]).movedim(-1, 1)
        return y, all_choices, torch.Size((len(x), *shapes[0][1:]))

    def values_a_channel(self, shape: torch.Size) -> int:
        """On all ranks."""
        return self.exchange.part.examples * shape[2:].numel()

    def batch_statistics(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """By the examples' own sums."""
        y, scale, gamma, beta, eps, *running = arguments
        count = self.values_a_channel(y.shape)
        (sum_, of_squares), _ = self.exchange.channel_sums(_bnn.row_moments(y))
        mean, square = sum_ / count, of_squares / count
        return statistics_of(mean, square - mean.square(), count, scale, gamma, beta, eps, *running)

    def norm_gradient_terms(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        """By the examples' own sums and bounds."""
        grad, codes, slopes, y, moments, scale, gamma, eps = arguments
        of_rows = _bnn.row_norm_gradients(grad, codes, slopes, y, moments[0])
        (sum_, along), sizes = self.exchange.channel_sums(*of_rows)
        count = self.values_a_channel(y.shape)
        terms, centre, of_parameters = gradient_terms_of(sum_, along, count, moments, scale, gamma, eps)
        return terms, bound_of(terms, centre, *sizes.unbind(1)), of_parameters

    def norm_gradient_integers(self, *arguments: Any) -> Integers:
        """With the random numbers of the examples' rows in the joint batch."""
        return _bnn.norm_gradient_integers(*arguments, self.exchange.part.rows.start)  # type: ignore[no-any-return]

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
        """Every rank forms its share of the outputs, by the integers and bits of all; none are drawn to be ternary.

        These are much less than sums of the weight's size would be. Where an element takes few products, every rank
        forms all of them, which takes less than what it would send.
        """
        if not isinstance(x, BitTensor):
            return self._of_real_input(q, scale, x, weight, window)
        ranks, of_all = self.exchange.ranks, partial(BitTensor, strides=x.stride(), dtype=x.dtype)
        has_few_products = self.exchange.part.examples * q[0, 0].numel() <= _FEW_PRODUCTS
        if has_few_products or (
            window is not None and window.groups > 1
        ):  # outputs of groups have channels of their own
            last, packed = self.exchange.rows_of_all(q.movedim(1, -1)), self.exchange.rows_of_all(x.packed)
            bits = of_all(packed, (len(packed), *x.shape[1:]))
            return products.weight_gradient(last.movedim(-1, 1), scale, bits, weight, window, quantizer)
        q, packed = self.exchange.outputs_of_all(q, x.packed)
        each, outputs = q.shape[1], len(weight.packed)
        part = products.weight_gradient(
            q,
            scale,
            of_all(packed, (len(q), *x.shape[1:])),
            slice_rows(weight, slice(each)),
            window,
            quantizer,
            first_row=each * ranks.rank,
        )
        if isinstance(part, BitTensor):
            signs = ranks.gather(part.packed).flatten(0, 1)[:outputs]
            return BitTensor(signs, weight.shape, weight.stride(), weight.dtype)
        values = ranks.gather(part.movedim(1, -1).reshape(each, -1)).flatten(0, 1)[:outputs]
        return values.as_strided(weight.shape, weight.stride())

    def real_gradients(self, *arguments: Any) -> tuple[Tensor | None, Tensor | None]:
        """An example at a time."""
        (grad, codes, slopes, y, terms), x, weight, choices, shape, plan, needs, base = arguments
        of_x, of_weight = [], []
        for i in range(len(x)):
            one = slice(i, i + 1)
            of_norm = (grad[one], codes[:, one], slopes, y[one], terms)
            own_choices = None if choices is None else choices[:, one]
            of_product = (x[one], weight, own_choices, torch.Size((1, *shape[1:])), plan)
            of_input, of_weights = real_gradients(of_norm, *of_product, needs, None if base is None else base[one])
            of_x.append(of_input)
            of_weight.append(of_weights)
        return (
            torch.cat(cast(list[Tensor], of_x)) if needs[0] else None,
            self.exchange.sum_of(torch.stack(cast(list[Tensor], of_weight))).to(weight.dtype) if needs[1] else None,
        )

    def _of_real_input(self, q: Tensor, scale: Tensor, x: Tensor, weight: BitTensor, window: Window | None) -> Tensor:
        if window is None:
            return self.exchange.whole_sums(q, x).to(x.dtype) * scale
        of_examples = [
            _bnn.real_conv2d_backward_weight(a, b, weight.shape, window)
            for a, b in zip(torch.split(q, 1), torch.split(x, 1), strict=True)
        ]
        sums = self.exchange.sum_of(torch.stack(of_examples)).to(x.dtype)
        return sums.contiguous(memory_format=torch.channels_last).mul_(scale)
