"""The sign of a gradient."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude

Scale = Literal["layer", "fan_in", "none"]


class SignGradient(GradientQuantizer):
    """q(g) = sign(g) / sqrt(N).

    Source: Wang et al., arXiv 2102.04270, sec. 4, for gradients of weights. Their public code divides by the root of
    all weights of the layer, although its comment says fan-in.

    A gradient of exactly 0 must not push its weight. The dense form keeps it 0, and so takes 2 bits. The packed form
    has only ±1: a 0 becomes either at random, which is 0 on average, or +1 where there is no generator.

    Args:
        scale: N. `layer`: all elements of the tensor. `fan_in`: those of one output channel. `none`: 1.
        packed: whether to return a `BitTensor`, of 1 bit an element; it needs the scale `none`.
        least: magnitude, in mean magnitudes of the tensor, below which an element counts 0; at least 0. Of the dense
            form.
        generator: of the signs of zeros in the packed form.
    """

    def __init__(
        self,
        *,
        scale: Scale = "layer",
        packed: bool = False,
        least: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(generator=generator)
        if scale not in get_args(Scale):
            raise ValueError(f"the scale of a sign gradient is one of {', '.join(get_args(Scale))}, got {scale!r}")
        if packed and scale != "none":
            raise ValueError(f"a packed gradient is ±1 and takes scale='none', got {scale!r}")
        if not 0 <= least < math.inf or (packed and least):
            raise ValueError(f"the least magnitude is finite, at least 0, and 0 of a packed gradient, got {least}")
        self.scale = scale
        self.packed = packed
        self.least = least
        self.storage_bits = 1 if packed else 2

    def forward(self, gradient: Tensor) -> Tensor:
        """Signs of a gradient [out, ...]; a `BitTensor`, which has none but signs, stays as it is."""
        if isinstance(gradient, BitTensor):
            return gradient
        largest_magnitude(gradient)
        if self.packed:
            return BitTensor.from_dense(gradient if self.generator is None else self._without_zeros(gradient))
        scaled_shape = {"layer": gradient.shape, "fan_in": gradient.shape[1:], "none": ()}[self.scale]
        signs = gradient.sign()
        if self.least:
            magnitudes = gradient.abs()
            signs.masked_fill_(magnitudes < self.least * magnitudes.mean(), 0)
        return signs.mul_(1 / math.sqrt(max(1, math.prod(scaled_shape))))

    def sign_seed(self) -> int | None:
        """In the packed form with a generator."""
        return self.seed() if self.packed and self.generator is not None else None

    def _without_zeros(self, gradient: Tensor) -> Tensor:
        if not torch.count_nonzero(gradient) < gradient.numel():
            return gradient
        noise = torch.empty_like(gradient).uniform_(-1, 1, generator=self.generator)
        return torch.where(gradient == 0, noise, gradient)

    def extra_repr(self) -> str:  # noqa: D102
        return f"scale={self.scale}, packed={self.packed}, least={self.least}"
