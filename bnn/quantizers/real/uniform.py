"""Uniform grids."""

from torch import Tensor


def clipped(x: Tensor, clip: float, bits: int) -> Tensor:
    """x at the middle of its step, of the 2^bits steps between -clip and clip.

    Args:
        x: floating, of any shape.
        clip: above 0.
        bits: at least 1; of one bit the levels are ±clip / 2.
    """
    half = 2 ** (bits - 1)
    step: float = clip / half
    steps: Tensor = (x / step).floor().clamp(-half, half - 1)
    return (steps + 0.5) * step


def rounded(x: Tensor, scale: float, bits: int) -> Tensor:
    """scale times whole numbers q within ±(2^(bits - 1) - 1), to the nearest.

    Args:
        x: floating, of any shape.
        scale: above 0.
        bits: at least 2.
    """
    largest = 2 ** (bits - 1) - 1
    return (x / scale).round().clamp(-largest, largest).mul(scale)
