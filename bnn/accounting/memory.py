"""Memory as the operating system measures it."""

import resource
import sys

import torch


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident at any time since its start, its libraries included.

    On Linux and macOS, of `getrusage`.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_bytes(device: torch.device) -> int | None:
    """The most memory that tensors have taken on a CUDA device at once; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
