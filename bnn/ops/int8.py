"""Gradients as int8: rounded at random by a hash of the element's index, so that the mean is kept.

Source: stochastic rounding of Gupta et al. 2015, arXiv 1502.02551, section 3.
"""

from typing import cast

import torch
from torch import Tensor

from bnn.errors import NonFiniteError

# float of any shape -> int8 of the same shape and strides, float32 []
torch.library.define("bnn::quantize_int8", "(Tensor grad, int seed) -> (Tensor, Tensor)")

_LARGEST = 127  # int8 without -128, to be symmetric
_MASK = 2**32 - 1


def quantize_int8(grad: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rounds a gradient to int8 with one scale, at random and right on average.

    Element i in the order of memory is rounded up where its random number, of 24 bits, is below its fraction. That
    number is a hash of `seed` and i alone. A gradient all below 127 times the least normal float32 becomes zeros.

    Args:
        grad: float, any shape.
        seed: a new one for every tensor, for the errors not to add up.

    Returns:
        int8 within ±127, in `grad`'s strides; and the scale, float32 [], which is max|grad| / 127.

    Raises:
        NonFiniteError: `grad` has a NaN or an infinity.
    """
    grad, q = dense(grad)
    largest = grad.float().abs().amax() if grad.numel() else grad.new_zeros((), dtype=torch.float32)
    scale, inverse = scale_of(largest)
    return q.copy_(round_at_random(grad.float() * inverse, seed)), scale


def round_at_random(values: Tensor, seed: int) -> Tensor:
    """Rounds float32 values to int8 by the rule of `quantize_int8`; what lies beyond ±127 is clamped."""
    values, q = dense(values)
    values = values.as_strided((values.numel(),), (1,))
    below = values.floor()
    uniform = (random_bits(seed, values.numel(), values.device) >> 8).float() * 2.0**-24
    rounded = (below + (uniform < values - below)).clamp_(-_LARGEST, _LARGEST)
    q.as_strided((values.numel(),), (1,)).copy_(rounded)
    return q


def scale_of(largest: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of a gradient by its largest magnitude, and the scale's inverse; both 0 where it is too small.

    Args:
        largest: float32 [].

    Returns:
        float32 [], float32 [].

    Raises:
        NonFiniteError: `largest` is NaN or infinite.
    """
    check_finite(largest)
    scale = largest / _LARGEST
    if scale < torch.finfo(torch.float32).tiny:
        return torch.zeros_like(scale), torch.zeros_like(scale)
    return scale, 1 / scale


def check_finite(largest: Tensor) -> None:
    """Refuses a gradient whose largest magnitude, or the scale made of it, is NaN or infinite."""
    if not torch.isfinite(largest):
        raise NonFiniteError(
            "cannot round the gradient to int8: it has NaN or infinite values; lower the learning rate"
        )


def hash_key(seed: int) -> int:
    """The 32 bits that `seed` (its lowest 64 bits) brings to the hash of every element's index."""
    return cast(int, _mix(seed & _MASK ^ cast(int, _mix(seed >> 32 & _MASK))))


def dense(grad: Tensor) -> tuple[Tensor, Tensor]:
    """`grad` in strides without gaps or overlaps, its own if possible, and an empty int8 tensor of these strides."""
    q = torch.empty_like(grad, dtype=torch.int8)
    return (grad if q.stride() == grad.stride() else torch.empty_like(grad).copy_(grad)), q


def _mix(word: int | Tensor) -> int | Tensor:
    # The hash "lowbias32" of C. Wellons, on 32 bits held in more.
    word = (word ^ word >> 16) * 0x7FEB352D & _MASK
    word = (word ^ word >> 15) * 0x846CA68B & _MASK
    return word ^ word >> 16


def random_bits(seed: int, count: int, device: torch.device) -> Tensor:
    """int64 [count] of 32 random bits; they repeat after 2**32 elements."""
    index = torch.arange(count, device=device)
    return cast(Tensor, _mix(index * 0x9E3779B9 & _MASK ^ hash_key(seed)))


def _quantize_int8_shape(grad: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad, dtype=torch.int8), grad.new_empty((), dtype=torch.float32)


torch.library.register_fake("bnn::quantize_int8", _quantize_int8_shape)
torch.library.impl("bnn::quantize_int8", "CompositeExplicitAutograd")(quantize_int8)
