"""How deep a network without shortcuts can be whose activations have few levels, and where its thresholds should lie.

In wide networks of random weights the correlation of two inputs goes towards its limit by a factor in every layer that
depends on the thresholds alone: a signal reaches as many layers as it takes to vanish. Source: Blumenfeld, Gilboa and
Soudry 2019, arXiv 1906.00771.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from bnn.layers import BinaryBlock, BinaryLayer
from bnn.quantizers import Quantizer

_DEPTHS = 6.0
_SEARCHES = 80
_MOST_LEVELS = 1024


def correlation_factor(thresholds: Sequence[float]) -> float:
    """chi = (sum of phi(t_i))^2 / sum over i, j of Phi(min(t_i, t_j)) (1 - Phi(max(t_i, t_j))), in 0..1.

    Args:
        thresholds: of an activation of equal steps, in standard deviations of what enters it; at least one.

    Raises:
        ValueError: there is none.
    """
    if not thresholds:
        raise ValueError("an activation of at least 2 levels has at least 1 threshold, got none")
    t = torch.tensor(list(thresholds), dtype=torch.float64)
    below = torch.special.ndtr(t)
    density = t.square().div(-2).exp().sum() / math.sqrt(2 * math.pi)
    spread = torch.minimum(below[:, None], below) * (1 - torch.maximum(below[:, None], below))
    return float(density.square() / spread.sum())


def evenly_spaced(levels: int, spacing: float) -> tuple[float, ...]:
    """The thresholds of so many levels about 0.

    Raises:
        ValueError: the number is out of its range, 2 to 1024.
    """
    if not 2 <= levels <= _MOST_LEVELS:
        raise ValueError(f"an activation has 2 to {_MOST_LEVELS} levels, got {levels}")
    return tuple(spacing * (i - (levels - 2) / 2) for i in range(levels - 1))


def best_thresholds(levels: int) -> tuple[float, ...]:
    """The evenly spaced thresholds with the largest `correlation_factor`, in standard deviations.

    A layer behind a norm takes them as they are, as `Ternary(threshold=max(best_thresholds(3)))`.

    Args:
        levels: 2 to 1024.

    Raises:
        ValueError: the number is out of its range.
    """
    if levels <= 2:
        return evenly_spaced(levels, 0.0)
    # The factor has one maximum: golden sections.
    golden = (math.sqrt(5) - 1) / 2
    low, high = 0.0, 4.0
    for _ in range(_SEARCHES):
        one, other = high - golden * (high - low), low + golden * (high - low)
        if correlation_factor(evenly_spaced(levels, one)) > correlation_factor(evenly_spaced(levels, other)):
            high = other
        else:
            low = one
    return evenly_spaced(levels, (low + high) / 2)


def depth_scale(levels: int) -> float:
    """xi = -1 / ln chi: layers in which a difference falls to 1 / e, with the best thresholds.

    Args:
        levels: 2 to 1024.

    Raises:
        ValueError: the number is out of its range.
    """
    return -1 / math.log(correlation_factor(best_thresholds(levels)))


def depth_budget(levels: int) -> int:
    """The most layers of so many levels in a row that train without shortcuts, 6 xi: 13 of signs, 28 of three levels.

    It is a rule of thumb, of networks without batch norms, whose gradients it does not know. In a fit of the paper's,
    1 - chi goes with the power -1.82 of levels + 1; over the levels themselves the exponent is -1.74.

    Args:
        levels: 2 to 1024.

    Raises:
        ValueError: the number is out of its range.
    """
    return int(_DEPTHS * depth_scale(levels))


def plain_depth(model: nn.Module) -> tuple[int, int]:
    """The most products in a row that take levels, of a network that is a sequence; and the fewest levels among them.

    What has parts of its own, such as a unit with a shortcut, ends a row. Of other networks, (0, 2).
    """
    longest = row = 0
    levels = fewest = 2
    before: Quantizer | None = None
    for part in _parts(model):
        product = part.product if isinstance(part, BinaryBlock) else part
        if isinstance(product, BinaryLayer):
            quantizer = product.input_quantizer or before
            if quantizer is not None:
                levels = len(quantizer.levels) if row == 0 else min(levels, len(quantizer.levels))
                row += 1
        elif any(True for _ in product.children()):
            row = 0
        activation = part.activation if isinstance(part, BinaryBlock) else part
        before = activation if isinstance(activation, Quantizer) else None if _has_weight(part) else before
        if row > longest:
            longest, fewest = row, levels
    return longest, fewest


def depth_note(model: nn.Module) -> str | None:
    """A line for whoever trains a sequence that is deeper than its levels carry; None where it is not."""
    depth, levels = plain_depth(model)
    if depth <= depth_budget(levels):
        return None
    return (
        f"{depth} layers in a row take {levels} levels without a shortcut; by mean field theory about"
        f" {depth_budget(levels)} train: add shortcuts, or levels"
    )


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """Of nested sequences."""
    if isinstance(model, nn.Sequential):
        for part in model:
            yield from _parts(part) if isinstance(part, nn.Sequential) else [part]


def _has_weight(part: nn.Module) -> bool:
    return any(True for _ in part.parameters())
