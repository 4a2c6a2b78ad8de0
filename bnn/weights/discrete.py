"""Stores of weights that have only a few states: `DiscreteStore`, and what it shares with devices."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.weights.base import WeightStore


class ProgrammedWeight(nn.Parameter):
    """The parameter, without memory of its own, of a weight whose states a store keeps.

    It has the weight's shape (one zero, expanded), receives the weight's gradient and is named among the module's
    parameters, so that torch and its optimizers find the weight. No optimizer can write to it; `bnn.optim.DST` calls
    `store.program` instead.

    Attributes:
        store: the store that keeps the states.
    """

    store: ProgrammableStore

    def __new__(cls, store: ProgrammableStore, zero: Tensor) -> ProgrammedWeight:  # noqa: D102
        weight = super().__new__(cls, zero)
        weight.store = store
        return weight

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgrammedWeight:
        return ProgrammedWeight(copy.deepcopy(self.store, memo), _zero_like(self.data))


def store_behind(parameter: Tensor) -> ProgrammableStore | None:
    """The store that keeps the states of a parameter; None where the parameter itself is what is trained."""
    return parameter.store if isinstance(parameter, ProgrammedWeight) else None


def _zero_like(x: Tensor) -> Tensor:
    """One zero that stands for all elements of a tensor of the shape, dtype and device of `x`."""
    return x.new_zeros(()).expand(x.shape)


class ProgrammableStore(WeightStore):
    """A store whose weight goes from one of a few levels to another by `program`; there is no latent weight.

    A subclass keeps its states in buffers, which checkpoints take as they are.

    Attributes:
        weight: the weight among the parameters, see `ProgrammedWeight`; no part of the state dict.
        spacing: distance of neighbouring levels.
        chunk_elements: weights that are drawn or programmed at a time: the transients fit into the cache.
    """

    weight: ProgrammedWeight
    spacing: float
    chunk_elements = 1 << 17

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.weight = ProgrammedWeight(self, torch.zeros(()).expand(self.shape))
        self._columns = math.prod(self.shape[1:])

    @property
    def has_latent_weight(self) -> bool:
        """False."""
        return False

    def value(self) -> Tensor:
        """The weight, in the dtype of `weight` and without gradient; a `BitTensor` where the levels are -1 and +1."""
        raise NotImplementedError

    def program(self, delta: Tensor, generator: torch.Generator) -> None:
        """Moves every weight towards its value plus `delta`.

        With |delta| / spacing = k + p, k whole and 0 <= p < 1, the weight moves by k levels, and by one more with
        probability p, but not beyond the outermost level. An ideal store does exactly this and so moves by `delta` on
        average; a device approximates it.

        Args:
            delta: float32, in the shape of the weight; finite.
            generator: of the randomness, on the weight's device.

        Raises:
            NonFiniteError: `delta` has NaN or infinite values; nothing has been changed.
        """
        raise NotImplementedError

    def read(self) -> Tensor:
        """`value()`, with a gradient to `weight`."""
        return _Read.apply(self.weight, self)  # type: ignore[no-any-return, no-untyped-call]

    def trained_value(self) -> Tensor:
        """The weight itself, dense: there is nothing behind it."""
        value = self.value()
        return value.dense() if isinstance(value, BitTensor) else value

    def _empty_planes(self, count: int) -> Tensor:
        """Planes of bits, one bit for each weight: uint8 [count, out, ceil(columns / 8)]."""
        packed = torch.ops.bnn.pack(torch.zeros((self.shape[0], self._columns), dtype=torch.bool))
        return torch.stack([packed] * count)

    def _rows_of(self, delta: Tensor) -> Tensor:
        """A change of the weight as [out, columns], once it is known to be finite."""
        # A sum is finite only if every element is.
        if not delta.sum(dtype=torch.float64).isfinite():
            raise NonFiniteError("cannot program a change that is not finite: lower the learning rate")
        return delta.reshape(self.shape[0], self._columns)

    def _chunks(self) -> Iterator[slice]:
        """The rows that are drawn or programmed at a time."""
        rows_each = max(1, self.chunk_elements // max(1, self._columns))
        return (slice(start, start + rows_each) for start in range(0, self.shape[0], rows_each))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A move to another device or dtype fills in what was one element.
        self.weight.data = _zero_like(self.weight.data)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[prefix + "weight"]

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        missing[:] = [name for name in missing if name != prefix + "weight"]


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: ProgrammedWeight, store: ProgrammableStore) -> Tensor:
        return store.value()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None


class DiscreteStore(ProgrammableStore):
    """Weights in the discrete space Z_N = {n / 2^(N-1) - 1, n = 0 .. 2^N}, whose levels are 2^(1-N) apart.

    N = 0 is binary, N = 1 ternary. A weight takes N + 1 bits at every time: its n lies in N + 1 bit planes, and
    there is nothing else. Source: Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, sec. 2.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        space: N, from 0 to 7.
    """

    planes: Tensor

    def __init__(self, shape: Sequence[int], *, space: int = 1) -> None:
        super().__init__(shape)
        if not 0 <= space <= 7:
            raise ValueError(f"the N of a discrete space Z_N is from 0 to 7, got {space}")
        self.space = space
        self.spacing = 2.0 ** (1 - space)
        self.storage_bits = self.training_bits = space + 1
        self.levels = tuple(-1 + step * self.spacing for step in range(2**space + 1))
        # Plane k holds bit k of every n: uint8 [N + 1, out, ceil(columns / 8)].
        self.register_buffer("planes", self._empty_planes(self.storage_bits))
        self.initialize()

    def value(self) -> Tensor:
        """See `ProgrammableStore`."""
        if self.space == 0:
            strides = torch.empty(self.shape, device="meta").stride()
            return BitTensor(self.planes[0].clone(), self.shape, strides, self.weight.dtype)
        levels = self._numbers(self.planes).mul_(self.spacing).sub_(1)
        return levels.view(self.shape).to(self.weight.dtype)

    def program(self, delta: Tensor, generator: torch.Generator) -> None:
        """See `ProgrammableStore`."""
        changes = self._rows_of(delta)
        for rows in self._chunks():
            planes, steps = self.planes[:, rows], changes[rows] / self.spacing
            whole = steps.trunc()
            jumps = uniform(steps, generator) < (steps - whole).abs_()
            numbers = self._numbers(planes).add_(whole).add_(steps.sign_().mul_(jumps))
            self._keep(planes, numbers.clamp_(0, 2**self.space))

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from the uniform distribution on (-1, 1), rounded to the nearest level; ternary: 1/4, 1/2 and 1/4."""
        for rows in self._chunks():
            planes = self.planes[:, rows]
            numbers = torch.empty((planes.shape[1], self._columns), device=planes.device)
            self._keep(planes, numbers.uniform_(0, 2**self.space, generator=generator).round_())

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}, space={self.space}"

    def _numbers(self, planes: Tensor) -> Tensor:
        """n of the rows in `planes`: float32 [rows, columns]."""
        # Unpacked bits are ±1: n is half of the sum of (1 + bit) 2^k.
        numbers = torch.ops.bnn.unpack(planes[0], self._columns, torch.float32)
        for k in range(1, self.storage_bits):
            numbers.add_(torch.ops.bnn.unpack(planes[k], self._columns, torch.float32), alpha=2**k)
        return numbers.add_(2**self.storage_bits - 1).mul_(0.5)  # type: ignore[no-any-return]

    def _keep(self, planes: Tensor, numbers: Tensor) -> None:
        """Writes n, float32 [rows, columns], to the rows in `planes`."""
        codes = numbers.to(torch.uint8)
        for k in range(self.storage_bits):
            planes[k] = torch.ops.bnn.pack((codes & (1 << k)) != 0)


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) of 53 bits, so that small probabilities are kept: float64, in the shape of `like`."""
    return torch.empty(like.shape, dtype=torch.float64, device=like.device).uniform_(generator=generator)
