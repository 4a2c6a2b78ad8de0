"""The store of a weight that is not trained any more."""

import math

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.weights.base import WeightStore


class FrozenStore(WeightStore):
    """Holds the levels of a weight as they are, for inference: as bits where they are -1 and +1, else dense.

    Args:
        weight: the levels, [out, ...]; a `BitTensor` stays one. Kept, not copied.
        levels: how many different ones there can be.
        scale: factor of each output channel, [out], or None.
    """

    elements: Tensor
    channel_scale: Tensor | None

    def __init__(self, weight: Tensor, *, levels: int, scale: Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.storage_bits = self.training_bits = math.ceil(math.log2(levels))
        self.levels = (-1.0, 1.0) if isinstance(weight, BitTensor) else ()
        # A buffer of bits is a plain tensor, so that a state dict of the network is one of plain tensors.
        self._bits = (weight.shape, weight.stride(), weight.dtype) if isinstance(weight, BitTensor) else None
        self.register_buffer("elements", weight.packed if isinstance(weight, BitTensor) else weight)
        self.register_buffer("channel_scale", scale)

    @property
    def has_latent_weight(self) -> bool:
        """False."""
        return False

    @property
    def scales(self) -> bool:
        """Whether there is a factor."""
        return self.channel_scale is not None

    def read(self) -> Tensor:
        """The levels."""
        return self.elements if self._bits is None else BitTensor(self.elements, *self._bits)

    def scale(self) -> Tensor | None:
        """The factor of each output channel."""
        return self.channel_scale

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Refuses: there is nothing to draw.

        Raises:
            TypeError: always.
        """
        raise TypeError("a frozen weight is read from a file and cannot be drawn anew")
