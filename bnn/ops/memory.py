"""Memory of large results, which is used again for later ones instead of being given back to the system.

Fresh memory has to be cleared by the system, page by page, which takes longer than most passes over it.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

LARGE_BYTES = 1 << 18
"""Results of this size and more take each other's place."""
MOST_TIMES = 1.5
"""How many times as large as a result the memory may be that it takes."""
_CPU = torch.device("cpu")
_PAGE_BYTES = 4096
_HUGE_PAGE_BYTES = 1 << 21
_MADV_HUGEPAGE = 14  # of sys/mman.h of Linux


class ResultMemory:
    """Memory for tensors of 256 KiB and more, which is theirs for as long as one of them, or a view of it, lives.

    A tensor takes a free piece of its size, or of up to half as much again, since slices of a batch differ by an
    example. Where there is none, all that is free goes back to the system before it gives a new one: a network whose
    stages have ever smaller results does not hold the memory of the first to the end.

    Args:
        most_times: how many times as large as a tensor the piece may be that it takes.
    """

    def __init__(self, *, most_times: float = MOST_TIMES) -> None:
        self.most_times = most_times
        self.is_kept = False
        """Whether freed memory is kept for later results; set by `bnn.training.allocator`."""
        self._pieces: list[torch.UntypedStorage] = []
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are held, in use or free."""
        return sum(piece.nbytes() for piece in self._pieces)

    def give_back(self) -> None:
        """Gives back what no tensor uses any more."""
        with self._lock:
            self._pieces = [piece for piece in self._pieces if torch._C._storage_Use_Count(piece._cdata) > 1]

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
        """A contiguous tensor, not yet written; on other devices than the CPU of their own memory."""
        size = math.prod(shape) * dtype.itemsize
        if not self.is_kept or size < LARGE_BYTES or device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        with self._lock:
            return torch.empty(0, dtype=dtype).set_(self._piece(size), 0, tuple(shape))  # type: ignore[call-overload, no-any-return]

    def _piece(self, size: int) -> torch.UntypedStorage:
        """The smallest free piece that fits, or a new one."""
        free = [piece for piece in self._pieces if torch._C._storage_Use_Count(piece._cdata) == 1]
        fitting = [piece for piece in free if size <= piece.nbytes() <= self.most_times * size]
        if fitting:
            return min(fitting, key=torch.UntypedStorage.nbytes)
        given_back = {piece._cdata for piece in free}
        self._pieces = [piece for piece in self._pieces if piece._cdata not in given_back]
        del free
        self._pieces.append(torch.UntypedStorage(size))  # type: ignore[no-untyped-call]
        _ask_for_huge_pages(self._pieces[-1])
        return self._pieces[-1]


def _ask_for_huge_pages(piece: torch.UntypedStorage) -> None:
    """Lets the system clear fresh memory 2 MiB at a time, where so many lie within the piece, which takes a fifth of
    the time. It is a wish: without such pages the piece has ordinary ones."""
    if sys.platform != "linux" or piece.nbytes() < 2 * _HUGE_PAGE_BYTES:
        return
    begin = -(-piece.data_ptr() // _PAGE_BYTES) * _PAGE_BYTES
    size = piece.data_ptr() + piece.nbytes() - begin
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_HUGEPAGE)


RESULTS = ResultMemory()
"""Of all results of the CPU's operations."""
OF_EXCHANGES = ResultMemory(most_times=math.inf)
"""Of what comes from other ranks, so many sizes in turn that they would take the results' pieces away."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A contiguous tensor for a result, not yet written."""
    return RESULTS.empty(shape, dtype, device)


def empty_channels_last(shape: Sequence[int], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A result of a shape [N, C, ...], not yet written, whose memory is in (N, ..., C) order."""
    if len(shape) == 4 and math.prod(shape) * dtype.itemsize < LARGE_BYTES:
        return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
    rows, channels, *size = shape
    x = empty((rows, *size, channels), dtype, device)
    return x.movedim(-1, 1) if size else x
