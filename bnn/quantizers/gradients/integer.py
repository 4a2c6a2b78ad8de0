"""Gradients of 2 to 8 bits, with a width for each of the two products."""

import torch
from torch import Tensor

from bnn.quantizers.gradients.int8 import Int8Gradient

_WIDTHS = range(2, 9)
_WEIGHT_WIDTHS = range(2, 17)


class IntegerGradient(Int8Gradient):
    """`Int8Gradient` of other widths: q(g) = s round(g / s), with s the largest magnitude / (2^(bits - 1) - 1).

    The gradient of a layer's output enters two products, that of the input's gradient and that of the weight's; each
    may have its own width (bifurcated gradients, Banner et al. 2018, arXiv 1805.11046, sec. 4, who take 8 and 16 bits).
    With another width for the weight the gradient is rounded twice, independently. 2 bits are -1, 0 and 1. Where the
    weight's has more than 8 bits, the products are of floats, and blocks keep floats.

    Args:
        bits: of the gradient in the product for the input's, 2 to 8.
        weight_bits: of the gradient in the product for the weight's, 2 to 16; by default `bits`.
        generator: of the rounding, which is stochastic and so unbiased; without it, to the nearest.
        ternary_weights: see `Int8Gradient`.

    Raises:
        ValueError: a width is out of its range.
    """

    weight_bits: int

    def __init__(
        self,
        bits: int = 8,
        *,
        weight_bits: int | None = None,
        generator: torch.Generator | None = None,
        ternary_weights: bool = False,
    ) -> None:
        super().__init__(generator=generator, ternary_weights=ternary_weights)
        for width, widths, whose in (
            (bits, _WIDTHS, ""),
            (weight_bits or bits, _WEIGHT_WIDTHS, " of the weight's product"),
        ):
            if width not in widths:
                raise ValueError(f"an integer gradient{whose} has {widths[0]} to {widths[-1]} bits, got {width}")
        self.bits = self.storage_bits = bits
        self.largest = 2 ** (bits - 1) - 1
        self.weight_bits = bits if weight_bits is None else weight_bits
        self.weight_largest = 2 ** (self.weight_bits - 1) - 1

    def for_weight(self, gradient: Tensor) -> Tensor:
        """The gradient in multiples of the step of `weight_bits`."""
        return self.rounded(gradient, 2 ** (self.weight_bits - 1) - 1)

    @property
    def bifurcates(self) -> bool:
        """Where the widths differ."""
        return self.weight_bits != self.bits

    @property
    def gives_integers(self) -> bool:
        """With a generator, unless the weight's product takes more than 8 bits."""
        return super().gives_integers and self.weight_bits in _WIDTHS

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.storage_bits}, weight_bits={self.weight_bits}" + ", ternary_weights" * self.ternary_weights
