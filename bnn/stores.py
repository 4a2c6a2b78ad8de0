"""Where the weight of a binary layer lives."""

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bnn.quantizers import Quantizer, Sign


class WeightStore(nn.Module):
    """Holds one weight tensor and reads it as levels.

    Attributes:
        shape: shape of the weight, [out, ...].
        storage_bits: bits that one weight takes once training has ended.
    """

    shape: tuple[int, ...]
    storage_bits: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def read(self) -> Tensor:
        """The weight as levels, with a gradient to what is trained."""
        raise NotImplementedError

    def scale(self) -> Tensor | None:
        """Factor of each output channel, [out], or None."""
        return None

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights."""
        raise NotImplementedError


class StoreFactory(Protocol):
    """What a layer or model takes to make its stores: a store class, or `functools.partial` of one."""

    def __call__(self, shape: Sequence[int], /) -> WeightStore:
        """A store for a weight of `shape`."""
        ...


class LatentStore(WeightStore):
    """A latent floating weight behind a quantizer: the usual way to train a binary network.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        quantizer: pattern that is copied; the weights' levels and gradient.
    """

    def __init__(self, shape: Sequence[int], *, quantizer: Quantizer | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.quantizer = copy.deepcopy(quantizer) if quantizer is not None else Sign()
        self.storage_bits = self.quantizer.storage_bits
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        self.weight = nn.Parameter(torch.empty(self.shape).contiguous(memory_format=memory_format))
        self.initialize()

    def read(self) -> Tensor:
        """The quantized weight."""
        return self.quantizer(self.weight)  # type: ignore[no-any-return]

    def scale(self) -> Tensor | None:
        """The quantizer's factor of each output channel."""
        return self.quantizer.scale(self.weight)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from a normal distribution of standard deviation 1 / sqrt(fan-in)."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(math.prod(self.shape[1:])), generator=generator)

    def project_(self) -> None:
        """Lets the quantizer move the latent weights after a step."""
        self.quantizer.project_(self.weight)

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}"
