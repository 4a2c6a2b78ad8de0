"""Accumulators: trainable weights of few bits that are read as their sign, and whose gradient may be packed signs."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnn.bits import BitTensor
from bnn.distributed import exchange
from bnn.errors import RecipeError
from bnn.ops import functions
from bnn.ops.layout import in_memory_order
from bnn.quantizers import Quantizer
from bnn.quantizers.gradients import GradientQuantizer
from bnn.random.rounding import round_to_integers_
from bnn.weights.base import WeightStore

CODES_PER_UNIT = 128
"""Codes of an int8 accumulator in an interval of length 1."""

# Of which float32 values exist at a time.
_CHUNK_ELEMENTS = 1 << 18


class Accumulator(nn.Parameter):
    """A trainable parameter in [-1, 1] outside autograd.

    autograd gives gradients to floating tensors only, in their own dtype. An Accumulator gets its gradient, which may
    be a `BitTensor`, from its reader by `accumulate`; it is then in `.grad`, and hooks are called, as for every other
    parameter. Optimizers of `bnn.optim` step it and clamp it to [-1, 1]; torch's own optimizers cannot. Its
    `requires_grad` is False.

    Args:
        data: float16, bfloat16 or float32; or int8 codes, of which c stands for (c + 1/2) / 128: 256 values in
            (-1, 1), none of them zero.
    """

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> Accumulator:  # noqa: D102
        parameter = super().__new__(cls, data, requires_grad=False)
        parameter._hooks = OrderedDict()
        return parameter

    _hooks: OrderedDict[int, Callable[[Tensor], None]]
    _gradient: Tensor | None = None

    @property
    def grad(self) -> Tensor | None:
        """The gradient, of any dtype: torch before 2.10 holds those of the parameter's own alone."""
        return self._gradient

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        self._gradient = gradient

    def accumulate(self, gradient: Tensor) -> None:
        """Adds a gradient of the parameter's shape and any floating dtype, then calls the hooks.

        Where several ranks train the network, it is first exchanged with theirs (`bnn.distributed`), which may take
        until all of backward is done.

        Raises:
            DistributedError: there are several ranks and no exchange.
        """
        exchange(gradient, self._take)

    def _take(self, gradient: Tensor) -> None:
        self.grad = gradient if self.grad is None else self.grad + gradient
        for hook in list(self._hooks.values()):
            hook(self)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        """As of any parameter: `hook(parameter)` is called when its gradient has been accumulated."""
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle


def is_accumulator(parameter: Tensor) -> bool:
    """Whether a parameter is an `Accumulator`."""
    return isinstance(parameter, Accumulator)


def decode(stored: Tensor) -> Tensor:
    """The float32 values of a parameter's elements, int8 codes or floats; of float32 the tensor itself."""
    return stored.float().add_(0.5).div_(CODES_PER_UNIT) if stored.dtype is torch.int8 else stored.float()


def encode(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """The int8 codes of float32 values, which are clamped to (-1, 1).

    The rounding is stochastic, or to the nearest where there is no generator.
    """
    codes = round_to_integers_(values * CODES_PER_UNIT - 0.5, generator)
    return codes.clamp_(-CODES_PER_UNIT, CODES_PER_UNIT - 1).to(torch.int8)


class AccumulatorStore(WeightStore):
    """One accumulator a weight, of few bits; the weight is its sign, and its gradient may be packed signs.

    Optimizers of `bnn.optim` step the accumulators with stochastic rounding and clamp them to [-1, 1]. With int8 and
    `bnn.optim.SGD` without momentum, the accumulator is all that is kept between steps: 1 byte a weight, where a
    float32 latent weight and the moments of Adam take 12. The idea: the weight gradient of a binary network serves
    by its sign alone (Wang et al., arXiv 2102.04270, sec. 4), and then Adam's second moment says nothing.

    The gradient of the sign passes unchanged: a straight-through window only keeps weights bounded, which the clamp
    does here. What is read has the dtype of its gradient: the default one, unless the gradient's quantizer has another.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        dtype: of an accumulator: int8, float16, bfloat16 or float32.
        gain: the accumulators begin with a standard deviation of gain / sqrt(fan-in), and never go beyond 1. With
            int8, a gain of 1 leaves few codes to the initial values; a larger one uses more of the 256.
        gradient_quantizer: pattern that is copied; quantizes the weight's gradient before the optimizer sees it, or
            None.
    """

    storage_bits = 1
    levels = (-1.0, 1.0)

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dtype: torch.dtype = torch.int8,
        gain: float = 1.0,
        quantizer: Quantizer | None = None,
        gradient_quantizer: GradientQuantizer | None = None,
    ) -> None:
        super().__init__()
        if quantizer is not None and not quantizer.serves_accumulators:
            raise RecipeError(
                "accumulators stand for signs about 0 or about the mean of a filter, without a scale and with bounds"
                f" that follow from its moments: they cannot stand for {quantizer!r}"
            )
        self.shape = tuple(shape)
        self.gain = gain
        self.quantizer = copy.deepcopy(quantizer)
        self.gradient_quantizer = copy.deepcopy(gradient_quantizer)
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        data = torch.empty(self.shape, dtype=dtype, memory_format=memory_format)
        self.weight = Accumulator(data)
        self.training_bits = 8 * self.weight.element_size()
        self.initialize()

    def read(self) -> Tensor:
        """The signs, as a `BitTensor`.

        Raises:
            RecipeError: a wrapper has put another parameter in the accumulators' place, as `fully_shard` does.
        """
        self._check()
        # The leaf that autograd needs in place of the accumulators, which cannot have a gradient of their own.
        leaf = torch.zeros((), device=self.weight.device, requires_grad=True)
        return _Signs.apply(leaf, self.weight, self.gradient_quantizer)  # type: ignore[no-any-return, no-untyped-call]

    def read_apart(self) -> tuple[BitTensor, Callable[[Tensor], None]] | None:
        """See `WeightStore`."""
        if type(self).read is not AccumulatorStore.read:
            return None
        self._check()
        weight, quantizer = self.weight, self.gradient_quantizer
        with torch.no_grad():
            signs = _signs(weight, quantizer)
        return signs, lambda gradient: _hand_over(gradient, weight, quantizer)

    def _check(self) -> None:
        if not is_accumulator(self.weight) and not self.weight.is_meta:  # as where shapes alone are counted
            raise RecipeError(
                f"the accumulators of a weight of {list(self.shape)} have become a {type(self.weight).__name__}, which"
                " takes no gradient of signs: leave fully_shard and other wrappers that replace parameters out, and"
                " start several processes by `torchrun --nproc-per-node N -m bnn train RECIPE`"
            )

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from a normal distribution of standard deviation gain / sqrt(fan-in)."""
        for part in self._parts(self.weight.detach()):
            values = torch.empty_like(part, dtype=torch.float32).normal_(std=self._deviation, generator=generator)
            if self.quantizer is not None and self.quantizer.centers:
                values -= values.mean(_filter_dims(values), keepdim=True)
            part.copy_(encode(values, None) if part.dtype is torch.int8 else values)

    def assign(self, values: Tensor) -> None:
        """The values times what gives them the magnitude of drawn ones, a mean square of gain^2 / fan-in.

        int8 codes are taken as they are.
        """
        codes = values.dtype is torch.int8
        scale = 1.0 if codes else self._deviation / float(values.float().square().mean().sqrt().clamp_(min=1e-12))
        for part, of_values in zip(self._parts(self.weight.detach()), self._parts(values), strict=True):
            real = decode(of_values) * scale
            part.copy_(encode(real, None) if part.dtype is torch.int8 else real.clamp_(-1, 1))

    @torch.no_grad()
    def project_(self) -> None:
        """Brings filters that the quantizer centers to mean 0, and moves accumulators beyond its reach there.

        Both go to the nearest number that the dtype has. What that leaves of a mean does not add up, since the next
        call finds it again.
        """
        quantizer = self.quantizer
        if quantizer is None or not (quantizer.centers or quantizer.projects):
            return
        parts = self._parts(self.weight.detach())
        moments = [_moments(part, centers=quantizer.centers) for part in parts]
        mean, variance, magnitude = (torch.cat(column) for column in zip(*moments, strict=True))
        reach = quantizer.reach(variance, magnitude) if quantizer.projects else torch.ones_like(mean)
        for part, *of_filters in zip(parts, self._parts(mean), self._parts(reach), strict=True):
            _move_(part, *of_filters)

    @property
    def _deviation(self) -> float:
        """Standard deviation of drawn values."""
        return self.gain / math.sqrt(math.prod(self.shape[1:]))

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Views of a few rows each of [out, ...]: float32 values of them all would take more than all of training."""
        return torch.split(x, max(1, _CHUNK_ELEMENTS // max(1, math.prod(self.shape[1:]))))

    def trained_value(self) -> Tensor:
        """The accumulators' values, float32 where they are int8."""
        stored = self.weight.detach()
        return decode(stored) if stored.dtype is torch.int8 else stored

    def sign_planes(self) -> tuple[Tensor, ...]:
        """See `WeightStore`; straight from the accumulators where their signs are what is read."""
        if type(self).read is not AccumulatorStore.read:
            return super().sign_planes()
        # By the operation itself, since meters ask after every step: a BitTensor takes longer than the bits.
        return (functions.pack(in_memory_order(self.weight.detach())[1]),)


def _filter_dims(x: Tensor) -> list[int]:
    return list(range(1, x.dim()))


def _moments(part: Tensor, *, centers: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each filter the mean, or 0, and the mean square and mean magnitude about it: [rows] each."""
    values, dims = decode(part), _filter_dims(part)
    mean = values.mean(dims, keepdim=True) if centers else values.new_zeros(len(part), *[1] * len(dims))
    values = values - mean
    # Several times as fast as var_mean.
    return mean.flatten(), values.square().mean(dims), values.abs_().mean(dims)


def _move_(part: Tensor, mean: Tensor, reach: Tensor) -> None:
    """part = clamp(part - mean, -reach, reach), of each filter, to the nearest that its dtype has."""
    mean, reach = (x.view(-1, *[1] * (part.dim() - 1)) for x in (mean, reach))
    if part.dtype is torch.int8:
        # Codes c and -1 - c are opposite.
        largest = (reach * CODES_PER_UNIT - 0.5).round_().clamp_(0, CODES_PER_UNIT - 1).to(torch.int16)
        shift = (mean * CODES_PER_UNIT).round_().to(torch.int16)
        part.copy_((part - shift).clamp_(-1 - largest, largest))
    else:
        part.copy_((part - mean).clamp_(-reach, reach))


def _signs(weight: Accumulator, quantizer: GradientQuantizer | None) -> BitTensor:
    stored, rows = in_memory_order(weight.detach())
    return BitTensor(functions.pack(rows), stored.shape, stored.stride(), _dtype_of(quantizer))


def _dtype_of(quantizer: GradientQuantizer | None) -> torch.dtype:
    """Of a gradient, to which autograd converts it: that of what it is of."""
    return torch.get_default_dtype() if quantizer is None else quantizer.dtype or torch.get_default_dtype()


def _hand_over(gradient: Tensor, weight: Accumulator, quantizer: GradientQuantizer | None) -> None:
    if gradient.dtype is not (dtype := _dtype_of(quantizer)):
        gradient = gradient.to(dtype)
    weight.accumulate(gradient if quantizer is None else quantizer(gradient))


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaf: Tensor, weight: Accumulator, quantizer: GradientQuantizer | None) -> Tensor:
        ctx.weight, ctx.quantizer = weight, quantizer
        return _signs(weight, quantizer)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _hand_over(grads[0], ctx.weight, ctx.quantizer)
        return None, None, None
