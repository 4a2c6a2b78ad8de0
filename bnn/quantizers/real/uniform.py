"""Uniform grids."""

from torch import Tensor

_MOST_BITS = 16


def clipped(x: Tensor, clip: float, bits: int) -> Tensor:
    """x at the middle of its step, of the 2^bits steps between -clip and clip.

    Args:
        x: floating, of any shape.
        clip: above 0.
        bits: 1 to 16; of one bit the levels are ±clip / 2.

    Raises:
        ValueError: the width is out of its range.
    """
    check_width(bits, least=1)
    half = 2 ** (bits - 1)
    step: float = clip / half
    steps: Tensor = (x / step).floor().clamp(-half, half - 1)
    return (steps + 0.5) * step


def rounded(x: Tensor, scale: float, bits: int) -> Tensor:
    """scale times whole numbers q within ±(2^(bits - 1) - 1), to the nearest.

    Args:
        x: floating, of any shape.
        scale: above 0.
        bits: 2 to 16.

    Raises:
        ValueError: the width is out of its range.
    """
    check_width(bits, least=2)
    largest = 2 ** (bits - 1) - 1
    return (x / scale).round().clamp(-largest, largest).mul(scale)


def check_width(bits: int, *, least: int) -> None:
    """Refuses a width that no grid has.

    Raises:
        ValueError: it is not within `least` to 16.
    """
    if not least <= bits <= _MOST_BITS:
        raise ValueError(f"a uniform grid has {least} to {_MOST_BITS} bits, got {bits}")
