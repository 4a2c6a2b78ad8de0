"""The usual way to train a binary network: a floating weight behind a quantizer."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnn.errors import RecipeError
from bnn.ops.layout import in_memory_order
from bnn.quantizers import Quantizer, Sign
from bnn.quantizers.gradients import GradientQuantizer, quantize_gradient
from bnn.weights.accumulator import decode
from bnn.weights.base import WeightStore


class LatentStore(WeightStore):
    """A latent floating weight behind a quantizer.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        quantizer: pattern that is copied; the weights' levels and gradient. By default `Sign`.
        gradient_quantizer: pattern that is copied; quantizes the gradient of the levels before it goes through the
            quantizer, or None.
        dtype: of the latent weight. What is read is float32 all the same. torch's own optimizers lose small
            steps of 16-bit weights, those of `bnn.optim` do not.
        limit: the latent weight is clipped to [-limit, limit] after each step, above 0; None leaves it. Beyond the
            window of a straight-through gradient it would get no gradient any more. Source: Courbariaux et al. 2016,
            arXiv 1602.02830, sec. 1.5, whose limit is 1.
    """

    quantizer: Quantizer

    def __init__(
        self,
        shape: Sequence[int],
        *,
        quantizer: Quantizer | None = None,
        gradient_quantizer: GradientQuantizer | None = None,
        dtype: torch.dtype = torch.float32,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        if limit is not None and not limit > 0:
            raise RecipeError(f"the limit of latent weights is above 0, got {limit}")
        self.shape = tuple(shape)
        self.quantizer = copy.deepcopy(quantizer) if quantizer is not None else Sign()
        self.gradient_quantizer = copy.deepcopy(gradient_quantizer)
        self.limit = limit
        self.levels, self.storage_bits = self.quantizer.levels, self.quantizer.storage_bits
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        self.weight = nn.Parameter(torch.empty(self.shape, dtype=dtype).contiguous(memory_format=memory_format))
        self.training_bits = 8 * self.weight.element_size()
        if not self.weight.is_meta:  # on which torch draws nothing, but loads a compiler for it
            self.initialize()

    @property
    def scales(self) -> bool:
        """Whether the quantizer scales."""
        return self.quantizer.scales

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

    def assign(self, values: Tensor) -> None:
        """The values as they are; but levels, which have one magnitude, get that of drawn weights."""
        with torch.no_grad():
            self.weight.copy_(decode(values))
            size = self.weight.abs()
            if torch.equal(size, size.mean().expand_as(size)):
                self.weight.div_(size.mean() * math.sqrt(math.prod(self.shape[1:])))
        self.project_()

    def project_(self) -> None:
        """Clips the latent weight to the limit, then lets the quantizer move it."""
        with torch.no_grad():
            if self.limit is not None:
                self.weight.clamp_(-self.limit, self.limit)
            self.quantizer.project_(self.weight)

    def sign_planes(self) -> tuple[Tensor, ...]:
        """See `WeightStore`; straight from the latent weight where its sign is what is read."""
        if self.quantizer.is_sign and type(self).read is LatentStore.read:
            # By the operation itself, since meters ask after every step: a BitTensor takes longer than the bits.
            return (torch.ops.bnn.pack(in_memory_order(self.weight.detach())[1]),)
        return super().sign_planes()
