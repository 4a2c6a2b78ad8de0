"""`Ranks`: the processes of a training, and what they tell each other."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as torch_distributed
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from bnn.distributed.host import HostMemory, share_memory
from bnn.errors import DistributedError, NonFiniteError
from bnn.ops.memory import empty

Result = TypeVar("Result")

PATIENCE_S = 20.0
"""Seconds that a rank waits for the others before it takes them for lost."""
_TIMES_TO_MEET = 10


def process_count() -> int:
    """How many processes there are in the group that this one is of."""
    joined = torch_distributed.is_available() and torch_distributed.is_initialized()
    return torch_distributed.get_world_size() if joined else 1


class Ranks:
    """The processes of a training, of which this is number `rank` of `size`; a single process has itself alone.

    All ranks call the same methods in the same order. A rank that cannot go on with a step says so by `leave_step`; the
    others learn it when they next `agree`, so that all of them leave the step together.

    Args:
        device: of the tensors that are exchanged.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        sent_bytes: what this rank has sent, counted as the usual algorithms send it: a sum in a ring, everything else
            straight to whom it is for.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.size = process_count()
        self.rank = torch_distributed.get_rank() if self.size > 1 else 0
        self.device = torch.device(device)
        self.sent_bytes = 0
        self._has_left = False
        self._host: HostMemory | None = None

    def share_memory(self, *, patience_s: float) -> None:
        """Where all ranks are on one host, has them exchange tensors by memory in place of the network from now on."""
        if self.size > 1 and self.device.type == "cpu":
            self._host = self._call(
                lambda: share_memory(
                    self.texts, lambda value: self.agree(not value) == 0, rank=self.rank, patience_s=patience_s
                )
            )

    # --- collectives ------------------------------------------------------------------------------------------------

    def sum_(self, x: Tensor) -> Tensor:
        """Puts the sum over the ranks into a contiguous tensor. Of whole numbers that its dtype holds it is exact."""
        if self.size > 1:
            if self._host is None:
                self._call(lambda: torch_distributed.all_reduce(x))
            else:
                torch.sum(self._exchange([], [x])[0], dim=0, dtype=x.dtype, out=x)
            self._count(2 * x.nbytes * (self.size - 1) / self.size)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape: [ranks, ...]."""
        return self._send([], [x])[0]

    def swap(self, x: Tensor) -> Tensor:
        """Row r of the result [ranks, ...] is what rank r has in the row of this rank."""
        return self._send([x], [])[0]

    def swap_and_gather(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`swap` of `x` and `gather` of `y` at once."""
        of_x, of_y = self._send([x], [y])
        return of_x, of_y

    def agree(self, value: float = 0.0) -> float:
        """The largest of the ranks' values, once all of them go on.

        Raises:
            NonFiniteError: a rank has left the step, or its value is not finite.
        """
        finite = math.isfinite(value)
        largest, self._has_left = self._largest(value if finite else 0.0, leaves=not finite)
        if self._has_left:
            raise NonFiniteError("the loss or a gradient of one of the ranks is not finite: lower the learning rate")
        return largest

    def leave_step(self) -> None:
        """Tells the others, if they do not know it yet, that this rank cannot go on with the step."""
        if not self._has_left:
            self._largest(0.0, leaves=True)
        self._has_left = False

    def _largest(self, value: float, *, leaves: bool) -> tuple[float, bool]:
        if self.size == 1:
            return value, leaves
        both = torch.tensor([value, float(leaves)], dtype=torch.float64, device=self.device)
        if self._host is None:
            self._call(lambda: torch_distributed.all_reduce(both, op=torch_distributed.ReduceOp.MAX))
        else:
            both = self._exchange([], [both])[0].amax(0)
        self._count(2 * both.nbytes * (self.size - 1) / self.size)
        largest, any_leaves = both.tolist()
        return largest, bool(any_leaves)

    def texts(self, text: str) -> list[str]:
        """The texts of all ranks."""
        raw = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        length = int(self.agree(len(raw)))
        padded = torch.cat((raw, raw.new_zeros(length - len(raw))))
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in self.gather(padded)]

    def _send(self, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> list[Tensor]:
        """Sends the others their rows of some tensors, and others whole; what comes goes straight into its place."""
        if self.size == 1:
            return [*rows, *(whole.contiguous()[None] for whole in wholes)]  # in the layout that several ranks have
        wholes = [x.contiguous() for x in wholes]
        self._count((self.size - 1) * (sum(x[0].nbytes for x in rows) + sum(x.nbytes for x in wholes)))
        return self._exchange(rows, wholes)

    def _exchange(self, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> list[Tensor]:
        """See `_send`."""
        host = self._host
        if host is not None:
            return self._call(lambda: host.send(rows, wholes))
        of_ranks = [x.unbind() for x in rows] + [[x] * self.size for x in wholes]
        found = [empty((self.size, *of_rank[0].shape), of_rank[0].dtype, self.device) for of_rank in of_ranks]
        messages = []
        for to, of_all in zip(of_ranks, found, strict=True):
            of_all[self.rank] = to[self.rank]
            for other in (rank for rank in range(self.size) if rank != self.rank):
                messages += [
                    (torch_distributed.isend, to[other], other),
                    (torch_distributed.irecv, of_all[other], other),
                ]
        self._call(lambda: _wait_for(torch_distributed.P2POp(*message) for message in messages))
        return found

    def _count(self, sent: float) -> None:
        self.sent_bytes += int(sent)

    def _call(self, collective: Callable[[], Result]) -> Result:
        try:
            return collective()
        except (RuntimeError, OSError) as error:
            raise DistributedError(
                f"rank {self.rank} of {self.size} cannot reach the others any more, one has ended or does not answer"
                f" ({_first_line(error)}); the state is kept: start all ranks again with --resume"
            ) from None


def join(*, device: torch.device | str = "cpu", patience_s: float = PATIENCE_S) -> Ranks:
    """Meets the other ranks, if this process was started as one of several, by gloo or on CUDA by NCCL.

    Args:
        device: to train on.
        patience_s: that a rank waits for the others in a step, and a tenth of what it waits for them to start.

    Raises:
        DistributedError: not all of them come.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" and not torch_distributed.is_initialized():
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        to_meet = timedelta(seconds=_TIMES_TO_MEET * patience_s)
        try:
            store, rank, size = next(iter(rendezvous("env://", timeout=to_meet)))
            store.set(f"bnn rank {rank}", "is here")
            store.wait([f"bnn rank {other}" for other in range(size)], to_meet)
            torch_distributed.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=patience_s)
            )
        except (RuntimeError, ValueError) as error:
            raise DistributedError(
                f"not all of the {os.environ['WORLD_SIZE']} ranks have come to {os.environ.get('MASTER_ADDR')}:"
                f"{os.environ.get('MASTER_PORT')} within {to_meet.total_seconds():.0f} s ({_first_line(error)}): start"
                " all of them, with the same address"
            ) from None
    ranks = Ranks(device=device)
    ranks.share_memory(patience_s=patience_s)
    return ranks


def leave() -> None:
    """Ends the group."""
    if torch_distributed.is_available() and torch_distributed.is_initialized():
        torch_distributed.destroy_process_group()


def _wait_for(messages: Iterable[torch_distributed.P2POp]) -> None:
    for work in torch_distributed.batch_isend_irecv(list(messages)):
        work.wait()


def _first_line(error: Exception) -> str:
    """Of torch's error, without the place in its source."""
    return re.sub(r"^\[[^\]]*\] ", "", str(error).split("\n")[0]).split(". ")[0]
