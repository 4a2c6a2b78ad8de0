"""`FixedPoint`: a trainable parameter that takes one byte an element, and nothing floating beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from bnn.accumulator import Accumulator
from bnn.rounding import round_to_integers_

STEPS_PER_UNIT = 128


class FixedPoint(Accumulator):
    """An int8 parameter whose code c stands for (c + 1/2) / 128: 256 values in (-1, 1), of which none is zero.

    Args:
        data: int8 codes.
    """


def decode(codes: Tensor) -> Tensor:
    """The float32 values of int8 codes."""
    return codes.float().add_(0.5).div_(STEPS_PER_UNIT)


def encode(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """The int8 codes of float32 values, which are clamped to (-1, 1).

    The rounding is stochastic, or to the nearest where there is no generator.
    """
    codes = round_to_integers_(values * STEPS_PER_UNIT - 0.5, generator)
    return codes.clamp_(-STEPS_PER_UNIT, STEPS_PER_UNIT - 1).to(torch.int8)
