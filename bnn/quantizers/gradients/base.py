"""What every quantizer of gradients is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bnn.errors import NonFiniteError


class GradientQuantizer(nn.Module):
    """Maps a gradient, of a weight or of a layer's output, to one that takes fewer bits.

    Unlike those of a `bnn.quantizers.Quantizer`, the levels depend on the tensor, and nothing is differentiated. An
    instance can be given to many layers as a pattern: they copy it, and the copies share its generator.

    A format answers for itself: what multiplies gradients asks it for integers, and whether packed signs will do.

    Attributes:
        storage_bits: bits that one element takes when it is stored; factors of the whole tensor come on top.
        largest: of the integers, in 1..127, where it gives some.
        generator: of the randomness, on the device of the gradients, or None. Name it in `Run.generators`, so that
            checkpoints keep its state.
    """

    storage_bits: int
    largest: int

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, gradient: Tensor) -> Tensor:
        """The quantized gradient, in the shape and dtype of the given one, which stays as it is.

        Raises:
            NonFiniteError: the gradient has NaN or infinite values.
        """
        raise NotImplementedError

    @property
    def gives_integers(self) -> bool:
        """Whether a gradient becomes integers by a random rounding that clamps nothing, as integer products need."""
        return False

    def integers(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient as int8 q within ±largest, in its own strides, and the step s, float32 []: it is q s on average.

        Only where it `gives_integers`. What forms a gradient itself may round it likewise, by `largest` and `seed`.

        Raises:
            NonFiniteError: the gradient has NaN or infinite values.
        """
        raise NotImplementedError

    def seed(self) -> int:
        """A new seed, from the generator, for an operation that is random by a hash."""
        assert self.generator is not None
        return int(torch.randint(2**62, (), generator=self.generator, device=self.generator.device))

    def sign_seed(self) -> int | None:
        """A new seed for the signs of zeros, where packed signs are all that is wanted of a gradient; else None."""
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
