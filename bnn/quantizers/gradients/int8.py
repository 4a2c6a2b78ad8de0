"""Gradients of 8 bits."""

import torch
from torch import Tensor

from bnn.ops import functions
from bnn.quantizers.gradients.base import GradientQuantizer, largest_magnitude
from bnn.random.rounding import round_to_integers_


class Int8Gradient(GradientQuantizer):
    """q(g) = s round(g / s), with s the tensor's largest magnitude / 127; clamped to ±127 s.

    `IntegerGradient` has other widths.

    With a generator the rounding is stochastic and E[q(g)] = g where nothing is clamped; without, it is to the
    nearest, and what lies below s / 2 is lost. Source: Banner et al. 2018, arXiv 1805.11046, sec. 3.

    Args:
        quantile: of |g|, in (0, 1], that takes the place of the largest magnitude; below 1 the steps are smaller, and
            what lies beyond is clamped, which is biased.
        generator: of the rounding.
        ternary_weights: whether these integers become -1, 0 and 1, drawn at random, where they are multiplied with the
            bits of a convolution's input for the gradient of its weight: counts of bits, in half the time of int8. It
            needs a generator. See `bnn.ops.product_gradients.conv2d_backward_weight_ternary`.
    """

    storage_bits = 8
    largest = 127

    def __init__(
        self, *, quantile: float = 1.0, generator: torch.Generator | None = None, ternary_weights: bool = False
    ) -> None:
        super().__init__(generator=generator)
        if ternary_weights and generator is None:
            raise ValueError("a gradient that is drawn to be ternary needs a generator")
        self.ternary_weights = ternary_weights
        if not 0 < quantile <= 1:
            raise ValueError(f"a quantile of |g| lies in (0, 1], got {quantile}")
        self.quantile = quantile

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient in multiples of its step."""
        return self.rounded(gradient, self.largest)

    def rounded(self, gradient: Tensor, largest: int) -> Tensor:
        """The gradient in multiples of a step, of which the bound of its magnitude has `largest`."""
        bound = largest_magnitude(gradient)
        if bound == 0:
            return gradient.clone()
        if self.quantile < 1:
            rank = max(1, round(self.quantile * gradient.numel()))
            # All zero up to the quantile: what is not zero is clamped to the largest, that is, kept.
            bound = float(gradient.abs().flatten().kthvalue(rank).values) or bound
        integers = round_to_integers_(gradient.float() * (largest / bound), self.generator)
        return integers.clamp_(-largest, largest).mul_(bound / largest).to(gradient.dtype)

    @property
    def gives_integers(self) -> bool:
        """With a generator and without a quantile."""
        return self.generator is not None and self.quantile == 1

    def integers(self, gradient: Tensor, *, largest: int | None = None) -> tuple[Tensor, Tensor]:
        """The gradient, rounded stochastically by `bnn.ops.rounding`."""
        return functions.quantize_integers(gradient, largest or self.largest, self.seed())  # type: ignore[no-any-return]

    def ternary_seed(self) -> int | None:
        """With `ternary_weights`."""
        return self.seed() if self.ternary_weights else None

    def extra_repr(self) -> str:  # noqa: D102
        return f"quantile={self.quantile}" + ", ternary_weights" * self.ternary_weights
