"""Which ways to train fit into a memory budget."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_BATCH = 2
"""Batch norm needs two values a channel."""

TotalBytes = Callable[[int], float]
"""What a step takes with a batch of so many examples; more examples never take less."""


@dataclass(frozen=True)
class Fit:
    """A way to train that fits."""

    preset: str
    optimizer: str
    batch_size: int
    """The largest that fits, and no larger than wanted."""
    total_bytes: float


def ways_that_fit(ways: Mapping[tuple[str, str], TotalBytes], budget_bytes: float, *, batch_size: int) -> list[Fit]:
    """Finds the largest batch of each way that fits.

    Args:
        ways: by preset and optimizer, the preferred ones first.
        budget_bytes: what there is.
        batch_size: wanted; larger ones are not tried.

    Returns:
        What fits: larger batches first, and of equal ones the preferred way.
    """
    sizes = range(LEAST_BATCH, batch_size + 1)
    fits = []
    for (preset, optimizer), total_bytes in ways.items():
        count = bisect_right(sizes, budget_bytes, key=total_bytes)
        if count:
            fits.append(Fit(preset, optimizer, sizes[count - 1], total_bytes(sizes[count - 1])))
    return sorted(fits, key=lambda fit: -fit.batch_size)
