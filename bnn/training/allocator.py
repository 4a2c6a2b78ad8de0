"""The memory that tensors on the CPU come from."""

import ctypes
import resource
import sys

from bnn.ops.memory import LARGE_BYTES, RESULTS

_M_MMAP_THRESHOLD = -3  # of malloc.h


def hold_little_memory() -> None:
    """From now on, large results of this package's operations take each other's place, and other tensors of 256 KiB
    and more go back to the system as soon as they are freed; for the whole process."""
    RESULTS.is_kept = True
    give_back_freed_memory()


def give_back_freed_memory() -> None:
    """From now on, tensors of 256 KiB and more go back to the system as soon as they are freed; for the whole process.

    The GNU C library keeps what has been freed for later use, up to 32 MiB a piece; of a training step with large
    transients that can double what the process holds. Systems other than Linux and other C libraries are left as they
    are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def memory_is_limited() -> bool:
    """Whether the system limits this process's memory, as by `ulimit -d` or `ulimit -v`."""
    limits = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
