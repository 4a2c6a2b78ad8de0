"""Gradients of 2 to 8 bits, with a width for each of the two products."""

import torch

from bnn.quantizers.gradients.int8 import Int8Gradient

_WIDTHS = range(2, 9)


class IntegerGradient(Int8Gradient):
    """`Int8Gradient` of other widths: q(g) = s round(g / s), with s the largest magnitude / (2^(bits - 1) - 1).

    The gradient of a layer's output enters two products, that of the input's gradient and that of the weight's; each
    may have its own width (bifurcated gradients, Banner et al. 2018, arXiv 1805.11046, sec. 4). With another width for
    the weight the gradient is rounded twice, independently. 2 bits are -1, 0 and 1.

    Args:
        bits: of the gradient in the product for the input's, 2 to 8.
        weight_bits: of the gradient in the product for the weight's, 2 to 8; by default `bits`.
        generator: of the rounding, which is stochastic and so unbiased; without it, to the nearest.

    Raises:
        ValueError: a width is out of its range.
    """

    def __init__(
        self, bits: int = 8, *, weight_bits: int | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(generator=generator)
        for width in (bits, weight_bits):
            if width is not None and width not in _WIDTHS:
                raise ValueError(f"an integer gradient has {_WIDTHS[0]} to {_WIDTHS[-1]} bits, got {width}")
        self.bits = self.storage_bits = bits
        self.largest = 2 ** (bits - 1) - 1
        if weight_bits is not None:
            self.weight_bits, self.weight_largest = weight_bits, 2 ** (weight_bits - 1) - 1
        else:
            self.weight_bits, self.weight_largest = bits, self.largest

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.storage_bits}, weight_bits={self.weight_bits}"
