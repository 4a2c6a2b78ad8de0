"""The allocator of memory that tensors on the CPU come from."""

import ctypes
import os
import sys

_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE_BYTES = 1 << 20


def give_back_freed_memory() -> None:
    """From now on, freed tensors of 1 MiB and more go back to the system at once, for the whole process.

    The GNU C library keeps what has been freed for later use, up to 32 MiB a piece; of a training step with large
    transients that can double what the process holds. Fresh memory has to be cleared, which takes half as long in huge
    pages: torch is told to ask for these, unless `THP_MEM_ALLOC_ENABLE` is set. Systems other than Linux and other C
    libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
