"""What theory says of a network's depth, and arithmetic of its sums."""

import math

_STEPS = 80
_GOLDEN = (math.sqrt(5) - 1) / 2


def depth_budget(levels: int) -> float:
    """How many layers of activations with few levels a signal gets through, in a wide random network.

    It is 6 xi, with xi = -1 / ln chi the depth scale of the best equally spaced thresholds, and chi the slope by which
    the correlation of two inputs goes from layer to layer. Source: Blumenfeld et al. 2019, arXiv 1906.00771; the 6 is
    that of their practice.

    Args:
        levels: of an activation, at least 2.
    """
    if levels < 2:
        raise ValueError(f"an activation has at least 2 levels, got {levels}")
    return -6 / math.log(_slope(levels, best_spacing(levels)))


def best_spacing(levels: int) -> float:
    """The distance of thresholds, in deviations of what enters the activation, for which the slope is largest.

    Of two levels there is one threshold, and so no distance; 0 stands for it.
    """
    if levels == 2:
        return 0.0
    low, high = 1e-3, 3.0
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if _slope(levels, left) > _slope(levels, right) else (left, high)
    return (low + high) / 2


def _slope(levels: int, spacing: float) -> float:
    thresholds = [spacing * (k - (levels - 2) / 2) for k in range(levels - 1)]
    density = sum(math.exp(-t * t / 2) / math.sqrt(2 * math.pi) for t in thresholds)
    # The sum over all pairs of Phi(the smaller) (1 - Phi(the larger)).
    variance = sum_above = 0.0
    for t in reversed(thresholds):
        variance += _below(t) * (_below(-t) + 2 * sum_above)
        sum_above += _below(-t)
    return density**2 / variance


def _below(t: float) -> float:
    return math.erfc(-t / math.sqrt(2)) / 2


def accumulator_bits(largest: int) -> int:
    """Bits of a signed sum that reaches from -largest to largest: ceil(log2(2 largest + 1)), at least 1.

    Of K products of signs, `largest` is K. Source of the question: Blumenfeld et al. 2024, arXiv 2401.14110.
    """
    return max(1, (2 * largest).bit_length())
