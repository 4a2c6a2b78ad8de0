"""Stochastic rounding: a value goes to one of its two neighbours at random, and is kept on average.

An update much smaller than half the step of a low-bit number is lost every time when rounded to nearest. Rounded at
random it gets through once in a while, and the mean is right. Source: Gupta et al. 2015, arXiv 1502.02551, sec. 3.

Every function takes an explicit generator, which lives on the device of the tensor.
"""

import torch
from torch import Tensor

_FLOAT16_MAX = 65504.0
_FLOAT16_MIN_NORMAL = 2.0**-14
_FLOAT16_STEPS_PER_UNIT = 2.0**24  # below the smallest normal number


def round_to_integers_(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rounds to integers in place; to the nearest where there is no generator.

    Args:
        x: float32 or float64, any shape.
        generator: of the randomness. Probabilities are multiples of 2**-16, so that the mean is right to 2**-17.

    Returns:
        `x`.
    """
    if generator is None:
        return x.round_()
    return x.add_(uniform_like(x, generator)).floor_()


def round_to_dtype_(x: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Rounds float32 to a 16-bit float, exactly on average, and overwrites `x`.

    Args:
        x: float32, finite.
        dtype: `torch.bfloat16`, or `torch.float16`, in which what lies beyond ±65504 becomes ±65504.
        generator: of the randomness.

    Returns:
        The rounded values, in `dtype`.
    """
    if dtype is torch.bfloat16:
        return _round_last_bits_(x, 16, generator).to(dtype)
    tiny = x.abs() < _FLOAT16_MIN_NORMAL
    steps = round_to_integers_(x * _FLOAT16_STEPS_PER_UNIT, generator).div_(_FLOAT16_STEPS_PER_UNIT)
    normal = _round_last_bits_(x, 13, generator).clamp_(-_FLOAT16_MAX, _FLOAT16_MAX)
    return torch.where(tiny, steps, normal).to(dtype)


def uniform_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform values in (0, 1), multiples of 2**-16 plus 2**-17, in the shape, strides and dtype of `x`."""
    return _random_int16_like(x, generator).to(x.dtype).add_(2**15 + 0.5).mul_(2**-16)


def _round_last_bits_(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Clears the last `count` bits of float32 mantissas, with a carry as probable as they are large."""
    mask = (1 << count) - 1
    noise = _random_int16_like(x, generator).int().bitwise_and_(mask)
    x.view(torch.int32).add_(noise).bitwise_and_(~mask)
    return x


def _random_int16_like(x: Tensor, generator: torch.Generator) -> Tensor:
    # One draw of 64 bits serves four elements: drawing is what stochastic rounding spends its time on.
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None, generator=generator)
    strides = torch.empty_like(x, device="meta").stride()
    return draws.view(torch.int16).as_strided(x.shape, strides)
