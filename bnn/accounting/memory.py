"""Memory as the operating system measures it."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident at any time since its start, its libraries included.

    On Linux the kernel's VmHWM, on macOS that of `getrusage`, which on Linux would include the peak of the process
    that started this one.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_bytes(device: torch.device) -> int | None:
    """The most memory that tensors have taken on a CUDA device at once; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
