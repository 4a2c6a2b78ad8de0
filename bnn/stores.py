"""Where the weight of a binary layer lives."""

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bnn.quantizers import Quantizer, Sign
from bnn.quantizers.gradients import GradientQuantizer, quantize_gradient


class WeightStore(nn.Module):
    """Holds one weight tensor and reads it as levels.

    Attributes:
        shape: shape of the weight, [out, ...].
        storage_bits: bits that one weight takes once training has ended.
        gradient_quantizer: what becomes of the gradient of what is read, or None.
    """

    shape: tuple[int, ...]
    storage_bits: int
    gradient_quantizer: GradientQuantizer | None

    def __init__(self) -> None:
        super().__init__()
        self.gradient_quantizer = None

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
        quantizer: pattern that is copied; the weights' levels and gradient. By default `Sign`.
        gradient_quantizer: pattern that is copied; what becomes of the gradient of the levels before it goes through
            the quantizer. None leaves it as it comes.
        dtype: of the latent weight. What is read is float32 all the same. torch's own optimizers lose small
            steps of 16-bit weights, those of `bnn.optim` do not.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        quantizer: Quantizer | None = None,
        gradient_quantizer: GradientQuantizer | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.quantizer = copy.deepcopy(quantizer) if quantizer is not None else Sign()
        self.gradient_quantizer = copy.deepcopy(gradient_quantizer)
        self.storage_bits = self.quantizer.storage_bits
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        self.weight = nn.Parameter(torch.empty(self.shape, dtype=dtype).contiguous(memory_format=memory_format))
        self.initialize()

    def read(self) -> Tensor:
        """The quantized weight."""
        levels: Tensor = self.quantizer(self.weight)
        levels = levels.to(torch.promote_types(levels.dtype, torch.float32))
        return levels if self.gradient_quantizer is None else quantize_gradient(levels, self.gradient_quantizer)

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
