"""`GradientQuantizer`: what every quantizer of gradients provides."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bnn.errors import NonFiniteError
from bnn.random.streams import draw_seed


class GradientQuantizer(nn.Module):
    """Maps a gradient, of a weight or of a layer's output, to one that takes fewer bits.

    Unlike those of a `bnn.quantizers.Quantizer`, the levels depend on the tensor, and nothing is differentiated. An
    instance can be given to many layers as a pattern: they copy it, and the copies share its generator.

    Code that multiplies gradients asks the quantizer whether it gives integers, and whether packed signs are enough.

    Attributes:
        storage_bits: bits that one element takes when it is stored; factors of the whole tensor come on top.
        largest: largest integer, in 1..127, where it gives integers.
        weight_largest: the same in the product for a weight's gradient, where that differs.
        ternary_weights: whether it gives a `ternary_seed`.
        weight_bits: of the gradient in the product for a weight's, where they differ from `storage_bits`.
        dtype: of the quantized gradient; None where it is that of the given one.
        generator: of the randomness, on the device of the gradients, or None. Name it in `Run.generators`, so that
            checkpoints keep its state.
    """

    storage_bits: int
    largest: int
    weight_largest: int | None = None
    ternary_weights: bool = False
    weight_bits: int | None = None
    dtype: torch.dtype | None = None

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, gradient: Tensor) -> Tensor:
        """The quantized gradient, in the shape of the given one, which stays as it is, and in its dtype or `dtype`.

        Raises:
            NonFiniteError: the gradient has NaN or infinite values.
        """
        raise NotImplementedError

    def for_weight(self, gradient: Tensor) -> Tensor:
        """The gradient as it enters the product for the weight's, where that differs from `forward`, for the input's.

        Raises:
            NonFiniteError: the gradient has NaN or infinite values.
        """
        return self(gradient)  # type: ignore[no-any-return]

    @property
    def bifurcates(self) -> bool:
        """Whether `for_weight` differs, so that the two products of backward see two gradients."""
        return type(self).for_weight is not GradientQuantizer.for_weight

    @property
    def gives_integers(self) -> bool:
        """Whether a gradient becomes integers by stochastic rounding without clamping, as integer products need."""
        return False

    def integers(self, gradient: Tensor, *, largest: int | None = None) -> tuple[Tensor, Tensor]:
        """The gradient as integers with one scale; only where it `gives_integers`.

        Code that computes a gradient itself may round it in the same way, by `largest` and `seed`.

        Args:
            gradient: of a layer's output.
            largest: another largest integer, such as `weight_largest`; by default `largest`.

        Returns:
            int8 q within ±largest, in the gradient's strides; and the scale s, float32 []. q s is the gradient on
            average.

        Raises:
            NonFiniteError: the gradient has NaN or infinite values.
        """
        raise NotImplementedError

    def seed(self) -> int:
        """A new seed, from the generator, for an operation that is random by a hash."""
        assert self.generator is not None
        return draw_seed(self.generator)

    def sign_seed(self) -> int | None:
        """A new seed for the signs of zeros, where only packed signs are wanted; else None."""
        return None

    def ternary_seed(self) -> int | None:
        """A new seed for the gradient of -1, 0 and 1 that a convolution's product for its weight is formed of.

        See `bnn.ops.product_gradients.conv2d_backward_weight_ternary`; None where it is formed of `integers`.
        """
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientQuantizer:
        # A copied generator would draw the same numbers in every layer. There is nothing else that copies share.
        copied = copy.copy(self)
        memo[id(self)] = copied
        return copied

    def extra_repr(self) -> str:  # noqa: D102
        return f"storage_bits={self.storage_bits}"


def quantize_gradient(x: Tensor, quantizer: GradientQuantizer) -> Tensor:
    """`x` as it is; the gradient that comes back to it goes through `quantizer`."""
    return _QuantizeGradient.apply(x, quantizer)  # type: ignore[no-any-return, no-untyped-call]


class _QuantizeGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: GradientQuantizer) -> Tensor:
        ctx.quantizer = quantizer
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.quantizer(grads[0]), None


def largest_magnitude(gradient: Tensor) -> float:
    """max|g|, 0 for an empty tensor.

    Raises:
        NonFiniteError: the gradient has NaN or infinite values.
    """
    if not gradient.numel():
        return 0.0
    low, high = gradient.aminmax()
    largest = torch.maximum(-low, high)
    if not largest.isfinite():
        raise NonFiniteError("cannot quantize a gradient with NaN or infinite values: lower the learning rate")
    return float(largest)
