"""`Exchange`: how ranks make one gradient of their own, and which exchange is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from bnn.distributed.ranks import Ranks, process_count
from bnn.errors import DistributedError
from bnn.random.streams import coin_seed

Mode = Literal["exact", "count", "vote"]


class Part(NamedTuple):
    """What a rank takes through the network at a time: rows of the joint batch, of one slice."""

    number: int
    """Of the slice in the batch, from 0."""
    rows: range
    """Of the joint batch, which this rank has."""
    examples: int
    """Of the slice, on all ranks."""


class Exchange:
    """What becomes of gradients where several ranks have one each; as it stands, they stay a rank's own.

    Give the base class itself to a process of a group that trains a network of its own.

    A batch is cut into slices (`TrainingStep.slice_size`), and a rank has some rows of each, or some of them whole.

    Args:
        ranks: the processes.

    Attributes:
        mode: its name.
        shares_slices: whether ranks have some rows of each slice each; or else slices of their own.
        averages_buffers: whether every slice begins with the buffers, such as running statistics, that the step began
            with, and the step ends with the mean of what the slices make of them.
        adds_up_parameters: whether the gradients of parameters that are no accumulators are those of a rank's slices.
    """

    mode: Mode
    shares_slices = False
    averages_buffers = False
    adds_up_parameters = False

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self._seed = self._draws = 0

    @property
    def identity(self) -> dict[str, str | int]:
        """What makes a training another one; a checkpoint keeps it."""
        return {"exchange": self.mode, "ranks": self.ranks.size}

    def begin_step(self, seed: int) -> None:
        """Begins a step, whose coins are those of a seed that all ranks share."""
        self._seed, self._draws = seed, 0

    def next_seed(self) -> int:
        """A seed that all ranks share, another at every call in a step."""
        self._draws += 1
        return coin_seed(seed=self._seed, draw=self._draws)

    def begin_part(self, part: Part) -> None:
        """Goes on to a part of the batch."""

    def end_part(self) -> None:
        """Ends a part, whose backward is done."""

    def slices(self, batch_size: int, most: int) -> int:
        """Slices that a joint batch is cut into, of at most so many examples each."""
        return -(-batch_size // most)

    def parts(self, batch_size: int, slices: int) -> list[Part]:
        """What this rank takes of a joint batch.

        Raises:
            DistributedError: the batch cannot be cut so.
        """
        return [Part(number, rows, len(rows)) for number, rows in enumerate(cut(range(batch_size), slices))]

    def rows(self, batch_size: int, slices: int) -> Tensor:
        """All rows of a joint batch that this rank takes: int64 [rows]."""
        parts = [part.rows for part in self.parts(batch_size, slices)]
        return torch.cat([torch.arange(rows.start, rows.stop) for rows in parts])

    def of_accumulator(self, gradient: Tensor, take: Callable[[Tensor], None]) -> None:
        """Hands the gradient that all ranks step by, of a part of the batch, to `take`: at once, or in `end_part`."""
        take(gradient)

    def of_parameters(self, of_parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Gradients of other parameters, from those of each part of this rank; asked where `adds_up_parameters`."""
        raise NotImplementedError

    def of_buffers(self, before: Sequence[Tensor], made: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """What becomes of buffers, from those before the step and what each slice of this rank has made of them."""
        return list(made[-1])

    def loss_of(self, losses: Sequence[Tensor], examples: int) -> float:
        """The loss of the joint batch, of so many examples, from the losses that this rank's parts add to it."""
        return sum(float(loss) for of_part in losses for loss in of_part)

    def check_divides(self, batch_size: int) -> None:
        """Refuses a batch that the ranks do not divide."""
        size = self.ranks.size
        if batch_size % size:
            raise DistributedError(
                f"{size} ranks do not divide a batch of {batch_size}: take a batch of"
                f" {max(1, batch_size // size) * size}, or another number of ranks"
            )


def cut(rows: range, parts: int) -> list[range]:
    """Cuts rows into parts of nearly equal size, the larger ones first, as `torch.tensor_split` does."""
    size, longer = divmod(len(rows), parts)
    bounds = [i * size + min(i, longer) for i in range(parts + 1)]
    return [rows[first:end] for first, end in pairwise(bounds)]


_exchange: Exchange | None = None


def current_exchange() -> Exchange | None:
    """The exchange in use; None for none."""
    return _exchange


@contextmanager
def exchanging(exchange: Exchange | None) -> Iterator[None]:
    """While it is entered, `exchange` is in use, in all threads; None leaves the one that is."""
    global _exchange
    before = _exchange
    _exchange = before if exchange is None else exchange
    try:
        yield
    finally:
        _exchange = before


def exchange(gradient: Tensor, take: Callable[[Tensor], None]) -> None:
    """Hands an accumulator's gradient of all ranks to `take`, by the exchange in use.

    Raises:
        DistributedError: there are several ranks and no exchange.
    """
    if _exchange is not None:
        _exchange.of_accumulator(gradient, take)
        return
    size = process_count()
    if size > 1 and not gradient.is_meta:  # on shapes alone nothing is trained
        raise DistributedError(
            f"this is one of {size} processes, and nothing exchanges the gradients of accumulators, which wrappers such"
            " as DistributedDataParallel do not see: every process would train another network; start `torchrun"
            " --nproc-per-node N -m bnn train RECIPE`, or give the TrainingStep an exchange of bnn.distributed"
        )
    take(gradient)
