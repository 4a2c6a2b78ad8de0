"""Freed memory goes back to the system."""

import resource
import subprocess
import sys

import pytest

from bnn.training.allocator import memory_is_limited

SCRIPT = """
import sys
from pathlib import Path
import torch
from bnn.training.allocator import hold_little_memory

def resident_mib():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024

hold_little_memory()
before = resident_mib()
for _ in range(3):  # the C library would keep the memory from the second time on
    blocks = [torch.ones(4 << 20, dtype=torch.uint8) for _ in range(16)]
    small = torch.ones(1000)
    assert resident_mib() - before > 60
    del blocks
assert resident_mib() - before < 8, resident_mib() - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left as it is")
def test_freed_tensors_leave_the_process():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


@pytest.mark.parametrize("limited", [resource.RLIMIT_DATA, resource.RLIMIT_AS, None])
def test_a_limit_of_the_system_is_known(monkeypatch, limited):
    def limit_of(kind: int) -> tuple[int, int]:
        soft = 1 << 30 if kind == limited else resource.RLIM_INFINITY
        return soft, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", limit_of)
    assert memory_is_limited() == (limited is not None)
