"""Which ways to train fit into a memory budget."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_BATCH = 2
"""Batch norm needs two values a channel."""

TotalBytes = Callable[[int], float]
"""What a step takes with a batch of so many examples; more examples never take less."""

TotalBytesOfStep = Callable[[int, int], float]
"""What a step takes with a batch of so many examples, so many at once. More never take less, but that the whole batch
at once may take less than its slices."""


@dataclass(frozen=True)
class Fit:
    """A way to train that fits."""

    preset: str
    optimizer: str
    batch_size: int
    """The largest that fits, and no larger than wanted; or where slices are looked for, the one wanted."""
    total_bytes: float
    slice_size: int | None = None
    """The most examples at once; None: this was not looked at."""


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


def steps_that_fit(
    ways: Mapping[tuple[str, str], TotalBytesOfStep], budget_bytes: float, *, batch_size: int
) -> list[Fit]:
    """Finds of each way the step nearest to the whole batch at once that fits.

    That is the whole batch, or else its largest slices, or else the largest smaller batch, at once: adding up the
    gradients of slices may take more than slices save.

    Args:
        ways: by preset and optimizer, the preferred ones first.
        budget_bytes: what there is.
        batch_size: wanted.

    Returns:
        What fits: larger batches first, of these larger slices, since batch norms see a slice, and of equal ones the
        preferred way.
    """
    *parts, _ = slice_sizes(batch_size)
    fits = []
    for (preset, optimizer), total_bytes in ways.items():
        whole = [(batch_size, batch_size)]
        sliced, smaller = [(batch_size, size) for size in parts], [(size, size) for size in parts]
        for steps in (whole, sliced, smaller):
            if count := bisect_right(steps, budget_bytes, key=lambda step: total_bytes(*step)):
                batch, size = steps[count - 1]
                fits.append(Fit(preset, optimizer, batch, total_bytes(batch, size), size))
                break
    return sorted(fits, key=lambda fit: (-fit.batch_size, -(fit.slice_size or 0)))


def slice_sizes(batch_size: int) -> list[int]:
    """The whole batch and its halves, quarters and so on as sizes of slices, ascending."""
    sizes = {math.ceil(batch_size / parts) for parts in (1 << k for k in range(batch_size.bit_length()))}
    # Slices are of nearly equal size, and the smallest needs as many examples as a batch.
    return sorted(size for size in sizes if batch_size // math.ceil(batch_size / size) >= LEAST_BATCH)
