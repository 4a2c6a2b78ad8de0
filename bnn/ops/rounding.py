"""Gradients as integers: stochastic rounding by a hash of the element's index, so that the mean is kept.

The integers lie within ±`largest`, which is 127 for 8 bits, 7 for 4 bits and 1 for ternary gradients, and are int8
tensors whatever their width. Source: stochastic rounding of Gupta et al. 2015, arXiv 1502.02551, section 3.
"""

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops.operation import operation
from bnn.random.lowbias32 import random_bits_at


@operation(
    "(Tensor grad, int largest, int seed) -> (Tensor, Tensor)",
    shape=lambda grad, largest, seed: (
        torch.empty_like(grad, dtype=torch.int8),
        grad.new_empty((), dtype=torch.float32),
    ),
)
def quantize_integers(grad: Tensor, largest: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rounds a gradient stochastically to integers with one scale.

    Element i in the order of memory is rounded up where its random number, of 24 bits, is below its fraction. That
    number is a hash of `seed` and i alone. A gradient all below `largest` times the least normal float32 becomes zeros.

    Args:
        grad: float, any shape.
        largest: in 1..127.
        seed: a new one for every tensor, for the errors not to add up.

    Returns:
        int8 within ±largest, in `grad`'s strides; and the scale, float32 [], which is max|grad| / largest.

    Raises:
        NonFiniteError: `grad` has a NaN or an infinity.
    """
    grad, q = dense(grad)
    bound = grad.float().abs().amax() if grad.numel() else grad.new_zeros((), dtype=torch.float32)
    scale, inverse = scale_of(bound, largest)
    return q.copy_(round_stochastically(grad.float() * inverse, largest, seed)), scale


def round_stochastically(values: Tensor, largest: int, seed: int, first: int = 0) -> Tensor:
    """Rounds float32 values to int8 by the rule of `quantize_integers`; what lies beyond ±largest is clamped.

    `first`: index of the first value.
    """
    values, q = dense(values)
    values = values.as_strided((values.numel(),), (1,))
    below = values.floor()
    index = torch.arange(first, first + values.numel(), device=values.device)
    uniform = (random_bits_at(index, seed) >> 8).float() * 2.0**-24
    rounded = (below + (uniform < values - below)).clamp_(-largest, largest)
    q.as_strided((values.numel(),), (1,)).copy_(rounded)
    return q


def scale_of(bound: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """The scale of a gradient, and the scale's inverse; both 0 where it is too small.

    Args:
        bound: of the gradient's magnitudes, float32 [].
        largest: what `bound` becomes, in 1..127.

    Returns:
        float32 [], float32 [].

    Raises:
        NonFiniteError: `bound` is NaN or infinite.
    """
    check_largest(largest)
    check_finite(bound)
    scale = bound / largest
    if scale < torch.finfo(torch.float32).tiny:
        return torch.zeros_like(scale), torch.zeros_like(scale)
    return scale, 1 / scale


def check_largest(largest: int) -> None:
    """Refuses integers that int8 does not hold, or that are all zero."""
    if not 1 <= largest <= 127:
        raise ValueError(f"the largest integer of a gradient lies in 1..127, got {largest}")


def check_finite(bound: Tensor) -> None:
    """Refuses a gradient whose largest magnitude, or the scale made of it, is NaN or infinite."""
    if not torch.isfinite(bound):
        raise not_finite()


def not_finite() -> NonFiniteError:
    """The error of a gradient that cannot be rounded."""
    return NonFiniteError(
        "cannot round the gradient to integers: it has NaN or infinite values; lower the learning rate"
    )


def dense(grad: Tensor) -> tuple[Tensor, Tensor]:
    """`grad` in strides without gaps or overlaps, its own if possible, and an empty int8 tensor of these strides."""
    q = torch.empty_like(grad, dtype=torch.int8)
    return (grad if q.stride() == grad.stride() else torch.empty_like(grad).copy_(grad)), q
