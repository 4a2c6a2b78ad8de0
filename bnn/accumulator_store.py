"""The store whose latent weights are 8-bit accumulators."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.fixed_point import FixedPoint, encode
from bnn.quantizers.gradients import GradientQuantizer
from bnn.stores import WeightStore


class AccumulatorStore(WeightStore):
    """One int8 accumulator a weight; the weight is its sign.

    Optimizers of `bnn.optim` step the accumulators with stochastic rounding and clamp them to (-1, 1). With
    `bnn.optim.SGD` without momentum, the accumulator is all that is kept between steps: 1 byte a weight, where a
    float32 latent weight and the moments of Adam take 12. The idea: the weight gradient of a binary network serves
    by its sign alone (Wang et al., arXiv 2102.04270, sec. 4), and then Adam's second moment says nothing.

    The gradient of a sign passes unchanged. A bound is all that the straight-through window is for, and the clamp is
    one. Reading gives the default dtype.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        gradient_quantizer: pattern that is copied; what becomes of the weight's gradient before the optimizer sees
            it. None leaves it as it comes.
    """

    storage_bits = 1

    def __init__(self, shape: Sequence[int], *, gradient_quantizer: GradientQuantizer | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.gradient_quantizer = copy.deepcopy(gradient_quantizer)
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        self.weight = FixedPoint(torch.empty(self.shape, dtype=torch.int8, memory_format=memory_format))
        self.initialize()

    def read(self) -> Tensor:
        """The signs, as a `BitTensor`."""
        # The leaf that autograd needs in place of the accumulators, which cannot have a gradient of their own.
        leaf = torch.zeros((), device=self.weight.device, requires_grad=True)
        return _Signs.apply(leaf, self.weight, self.gradient_quantizer)  # type: ignore[no-any-return, no-untyped-call]

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from a normal distribution of standard deviation 1 / sqrt(fan-in)."""
        values = torch.empty_like(self.weight, dtype=torch.float32)
        values.normal_(std=1 / math.sqrt(math.prod(self.shape[1:])), generator=generator)
        with torch.no_grad():
            self.weight.copy_(encode(values, None))

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}"


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaf: Tensor, weight: FixedPoint, quantizer: GradientQuantizer | None) -> Tensor:
        ctx.weight, ctx.quantizer = weight, quantizer
        return BitTensor.from_dense(weight >= 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.weight.accumulate(grads[0] if ctx.quantizer is None else ctx.quantizer(grads[0]))
        return None, None, None
