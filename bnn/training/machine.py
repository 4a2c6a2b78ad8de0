"""The machine that a run began on, in words."""

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_GIB = 2**30


def machine() -> str:
    """Processor, cores and memory, as in `x86_64, Intel(R) Xeon(R), 2 cores, 23 GiB, Linux`."""
    parts = [platform.machine(), _processor(), f"{os.cpu_count()} cores", _memory(), platform.system()]
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _processor() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor()


def _memory() -> str:
    try:
        total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not known to every system
        return ""
    return f"{total_bytes / _GIB:.0f} GiB"
