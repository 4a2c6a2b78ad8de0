import subprocess
import sys

import pytest
import torch

from bnn.cost.memory import peak_device_bytes, peak_rss_bytes
from bnn.cost.memory.resident import available_bytes

# Started by a process that has had much more: what it prints is its own.
_PROGRAM = """import mmap
from bnn.cost.memory import peak_rss_bytes
from bnn.cost.memory.resident import PeakResident
before = peak_rss_bytes()
untouched = mmap.mmap(-1, 512 << 20)
reserved = peak_rss_bytes()
touched = b"1" * (256 << 20)
del touched
after = peak_rss_bytes()
try:
    resident = PeakResident()
    touched = bytearray(64 << 20)
    del touched
    print(before, reserved, after, resident.above_start_bytes())
except OSError:
    print(before, reserved, after, -1)
"""
_START = "import subprocess, sys; print(b'1' * (500 << 20) and subprocess.check_output(sys.argv[1:], text=True))"


@pytest.fixture(scope="module")
def figures() -> list[int]:
    words = [sys.executable, "-c", _START, sys.executable, "-c", _PROGRAM]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    return [int(word) for word in ran.stdout.split()]


def test_peak_grows_by_memory_that_was_touched_and_stays_after_it_is_freed(figures):
    before, reserved, after, _ = figures
    assert reserved - before < 32 << 20, "reserving is not touching"
    assert 224 << 20 < after - before < 288 << 20


def test_peak_is_that_of_this_process_and_not_of_the_one_that_started_it(figures):
    assert figures[0] < 450 << 20


def test_peak_of_this_process_is_plausible():
    assert 50 << 20 < peak_rss_bytes() < 100 << 30


def test_devices_without_a_meter_say_so():
    assert peak_device_bytes(torch.device("cpu")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
def test_rise_above_the_start_forgets_what_was_before(figures):
    assert 60 << 20 < figures[-1] < 70 << 20


def test_available_memory_is_that_of_the_machine_or_unknown():
    available = available_bytes()
    assert available is None or 10 << 20 < available < 100 << 40
