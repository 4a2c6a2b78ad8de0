"""Memory of large results, which is used again for later ones instead of being given back to the system.

Fresh memory has to be cleared by the system, page by page, which takes longer than most passes over it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

LARGE_BYTES = 1 << 18
"""Results of this size and more take each other's place."""
_CPU = torch.device("cpu")
# Type codes of DLPack.
_CODES = {
    torch.int8: 0,
    torch.int32: 0,
    torch.int64: 0,
    torch.uint8: 1,
    torch.float16: 2,
    torch.float32: 2,
    torch.float64: 2,
    torch.bfloat16: 4,
}


def _load_arena() -> ModuleType | None:
    try:
        arena: ModuleType = importlib.import_module("bnn._native").arena
    except (ImportError, AttributeError):  # not built, or by an earlier release
        return None
    return arena if arena.is_there() else None


class ResultMemory:
    """Memory for tensors of 256 KiB and more on the CPU, from one range of addresses.

    A tensor takes the lowest free part of the range that holds it, and has it for as long as it lives, or a view of it.
    What is free stays for later tensors, as far as all that is held is no more than was ever in use at once. Where
    there is no such range (without the native kernels, beside Linux, or where the addresses of a process are limited),
    tensors have memory of their own.
    """

    def __init__(self) -> None:
        self.is_kept = False
        """Whether tensors lie in the range; set by `bnn.training.allocator`."""
        self._arena = _load_arena()

    @property
    def nbytes(self) -> int:
        """Bytes that are held, in use or free: the most that have been in use at once since the last `give_back`."""
        return 0 if self._arena is None else int(self._arena.held_bytes())

    def give_back(self) -> None:
        """Gives the system back what no tensor uses any more, and forgets how much was in use."""
        if self._arena is not None:
            self._arena.trim()

    def empty(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device = _CPU,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """A contiguous or channels-last tensor, not yet written; on other devices than the CPU of their own memory."""
        is_large = math.prod(shape) * dtype.itemsize >= LARGE_BYTES
        if not self.is_kept or not is_large or device.type != "cpu" or dtype not in _CODES or self._arena is None:
            return torch.empty(shape, dtype=dtype, device=device, memory_format=memory_format)
        is_image = memory_format is torch.channels_last
        return from_dlpack(self._arena.take(shape, _CODES[dtype], 8 * dtype.itemsize, is_image))


RESULTS = ResultMemory()
"""Of all results of the CPU's operations, and of what comes from other ranks."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A contiguous tensor for a result, not yet written."""
    return RESULTS.empty(shape, dtype, device)


def empty_channels_last(shape: Sequence[int], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A result of a shape [N, C, ...], not yet written, whose memory is in (N, ..., C) order."""
    if len(shape) == 4:
        return RESULTS.empty(shape, dtype, device, torch.channels_last)
    rows, channels, *size = shape
    x = empty((rows, *size, channels), dtype, device)
    return x.movedim(-1, 1) if size else x


def channels_last(x: Tensor) -> Tensor:
    """[N, C, ...] with its memory in (N, ..., C) order: itself, or a copy as a result."""
    last = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.movedim(1, -1).is_contiguous()
    return x if last else empty_channels_last(x.shape, x.dtype, x.device).copy_(x)


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, C, ...] in a dtype: itself, or a copy as a result, whose memory is in (N, ..., C) order."""
    return x if x.dtype is dtype else empty_channels_last(x.shape, dtype, x.device).copy_(x)
