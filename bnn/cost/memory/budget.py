"""What can be trained in a given memory: the largest batches and slices."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MIN_BATCH_SIZE = 2
"""Batch norm needs two values a channel."""

BytesOfBatch = Callable[[int], float]
"""Bytes of a step by its batch size; never falls with the size."""

BytesOfSlices = Callable[[int, int], float]
"""Bytes of a step by its batch size and slice size; never falls with either, except that the whole batch at once may
take less than its slices."""


@dataclass(frozen=True)
class Candidate:
    """A preset and an optimizer with a batch whose step fits into the memory."""

    preset: str
    optimizer: str
    batch_size: int
    """The largest that fits, and no larger than wanted; or where slices are looked for, the one wanted."""
    total_bytes: float
    slice_size: int | None = None
    """The most examples at once; None: this was not looked at."""
    is_measured: bool = False
    """Whether the bytes are measured, and not predicted."""


def largest_batches(
    totals: Mapping[tuple[str, str], BytesOfBatch], memory_bytes: float, *, batch_size: int
) -> list[Candidate]:
    """Finds the largest batch of each preset and optimizer that fits.

    Args:
        totals: by preset and optimizer, the preferred ones first.
        memory_bytes: what there is.
        batch_size: wanted; larger ones are not tried.

    Returns:
        What fits: larger batches first, and of equal ones the preferred.
    """
    sizes = range(MIN_BATCH_SIZE, batch_size + 1)
    candidates = []
    for (preset, optimizer), total_bytes in totals.items():
        count = bisect_right(sizes, memory_bytes, key=total_bytes)
        if count:
            candidates.append(Candidate(preset, optimizer, sizes[count - 1], total_bytes(sizes[count - 1])))
    return sorted(candidates, key=lambda candidate: -candidate.batch_size)


def largest_slices(
    totals: Mapping[tuple[str, str], BytesOfSlices], memory_bytes: float, *, batch_size: int
) -> list[Candidate]:
    """Finds, for each preset and optimizer, the step closest to the whole batch at once that fits.

    That is the whole batch, else its largest slices, else the largest smaller batch at once: accumulating the gradients
    of slices may take more memory than slices save.

    Args:
        totals: by preset and optimizer, the preferred ones first.
        memory_bytes: what there is.
        batch_size: wanted.

    Returns:
        What fits: larger batches first, of these larger slices, since batch norms see a slice, and of equal ones the
        preferred.
    """
    *parts, _ = slice_sizes(batch_size)
    candidates = []
    for (preset, optimizer), total_bytes in totals.items():
        whole = [(batch_size, batch_size)]
        sliced, smaller = [(batch_size, size) for size in parts], [(size, size) for size in parts]
        for steps in (whole, sliced, smaller):
            if count := bisect_right(steps, memory_bytes, key=lambda step: total_bytes(*step)):
                batch, size = steps[count - 1]
                candidates.append(Candidate(preset, optimizer, batch, total_bytes(batch, size), size))
                break
    return sorted(candidates, key=lambda candidate: (-candidate.batch_size, -(candidate.slice_size or 0)))


def slice_sizes(batch_size: int) -> list[int]:
    """The whole batch and its halves, quarters and so on as sizes of slices, ascending."""
    sizes = {math.ceil(batch_size / parts) for parts in (1 << k for k in range(batch_size.bit_length()))}
    # Slices are of nearly equal size, and the smallest needs as many examples as a batch.
    return sorted(size for size in sizes if batch_size // math.ceil(batch_size / size) >= MIN_BATCH_SIZE)
