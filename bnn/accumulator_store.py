"""The store whose latent weights are accumulators of few bits."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.accumulator import Accumulator
from bnn.bits import BitTensor
from bnn.fixed_point import FixedPoint, encode
from bnn.quantizers.gradients import GradientQuantizer
from bnn.stores import WeightStore

# Initialized at a time: float32 values of the whole weight would take more than all of training.
_CHUNK_ELEMENTS = 1 << 18


class AccumulatorStore(WeightStore):
    """One accumulator a weight, of few bits; the weight is its sign, and its gradient may be packed signs.

    Optimizers of `bnn.optim` step the accumulators with stochastic rounding and clamp them to [-1, 1]. With int8 and
    `bnn.optim.SGD` without momentum, the accumulator is all that is kept between steps: 1 byte a weight, where a
    float32 latent weight and the moments of Adam take 12. The idea: the weight gradient of a binary network serves
    by its sign alone (Wang et al., arXiv 2102.04270, sec. 4), and then Adam's second moment says nothing.

    The gradient of a sign passes unchanged. A bound is all that the straight-through window is for, and the clamp is
    one. Reading gives the default dtype.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        dtype: of an accumulator: int8 (a `FixedPoint`), float16, bfloat16 or float32.
        gain: the accumulators begin with a standard deviation of gain / sqrt(fan-in), and never go beyond 1. Of 8 bits
            few are used near 0, where signs change, unless it is above 1.
        gradient_quantizer: pattern that is copied; what becomes of the weight's gradient before the optimizer sees
            it. None leaves it as it comes.
    """

    storage_bits = 1

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dtype: torch.dtype = torch.int8,
        gain: float = 1.0,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.gain = gain
        self.gradient_quantizer = copy.deepcopy(gradient_quantizer)
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        data = torch.empty(self.shape, dtype=dtype, memory_format=memory_format)
        self.weight = FixedPoint(data) if dtype is torch.int8 else Accumulator(data)
        self.initialize()

    def read(self) -> Tensor:
        """The signs, as a `BitTensor`."""
        # The leaf that autograd needs in place of the accumulators, which cannot have a gradient of their own.
        leaf = torch.zeros((), device=self.weight.device, requires_grad=True)
        return _Signs.apply(leaf, self.weight, self.gradient_quantizer)  # type: ignore[no-any-return, no-untyped-call]

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from a normal distribution of standard deviation gain / sqrt(fan-in)."""
        row_elements = math.prod(self.shape[1:])
        rows = max(1, _CHUNK_ELEMENTS // max(1, row_elements))
        for start in range(0, self.shape[0], rows):
            part = self.weight.detach()[start : start + rows]
            values = torch.empty_like(part, dtype=torch.float32)
            values.normal_(std=self.gain / math.sqrt(row_elements), generator=generator)
            part.copy_(encode(values, None) if part.dtype is torch.int8 else values)

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}"


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaf: Tensor, weight: Accumulator, quantizer: GradientQuantizer | None) -> Tensor:
        ctx.weight, ctx.quantizer = weight, quantizer
        return BitTensor.from_dense(weight.detach(), dtype=torch.get_default_dtype())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ctx.weight.accumulate(grads[0] if ctx.quantizer is None else ctx.quantizer(grads[0]))
        return None, None, None
