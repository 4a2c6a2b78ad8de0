"""Memory as the operating system measures it."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident at any time since its start, its libraries included.

    On Linux the kernel's VmHWM, on macOS that of `getrusage`, which on Linux would include the peak of the process
    that started this one.
    """
    if _STATUS.exists():
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else 1024 * peak


def rss_bytes() -> int:
    """The memory that this process has resident now, its libraries included.

    Raises:
        OSError: the system does not tell, as Linux does.
    """
    return _status_bytes("VmRSS")


def peak_device_bytes(device: torch.device) -> int | None:
    """The most memory that tensors have taken on a CUDA device at once; None for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def available_bytes() -> int | None:
    """The memory that a new process could take without swapping, by Linux's estimate; None on other systems."""
    return _field_bytes(_MEMINFO, "MemAvailable") if _MEMINFO.exists() else None


class PeakResident:
    """How far the process's resident memory rises above its level at the making of this object.

    Raises:
        OSError: the system cannot set the peak back, as Linux can.
    """

    def __init__(self) -> None:
        _CLEAR_REFS.write_text("5")
        self._start_bytes = _status_bytes("VmRSS")

    def above_start_bytes(self) -> int:
        """The rise up to now."""
        return max(0, _status_bytes("VmHWM") - self._start_bytes)


def _status_bytes(field: str) -> int:
    return _field_bytes(_STATUS, field)


def _field_bytes(file: Path, field: str) -> int:
    (line,) = (line for line in file.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])
